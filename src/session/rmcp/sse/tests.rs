use proptest::prelude::*;
use rmcp::model::ServerJsonRpcMessage;
use uuid::Uuid;

use super::*;
use crate::notification::NotificationId;

fn notification(params: &str) -> Outbound {
    Outbound::composed(NotificationId(Uuid::now_v7()), "notifications/x", params)
}

#[test]
fn an_event_has_a_name_an_id_and_its_data_in_this_order() {
    let mut out = String::new();
    push_notification(&mut out, |out| out.push('i'), &notification(r#"{"n":1E400}"#));
    let wanted = r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"n":1E400}}"#;
    assert_eq!(out, format!("event: message\nid: i\ndata: {wanted}\n\n"));
    out.clear();
    push_request(&mut out, "{}");
    assert_eq!(out, "event: message\ndata: {}\n\n");
}

#[test]
fn events_of_rmcp_have_the_same_form() {
    let mut out = String::new();
    let ping = serde_json::json!({"jsonrpc": "2.0", "id": "a\u{2028}", "method": "ping"});
    let message: ServerJsonRpcMessage = serde_json::from_value(ping).unwrap();
    push_event(&mut out, &ServerSseMessage::new("7", message));
    assert!(out.starts_with("event: message\nid: 7\ndata: {"), "{out:?}");
    assert!(out.contains("a\\u2028") && out.ends_with("}\n\n"), "{out:?}");
    out.clear();
    push_event(&mut out, &ServerSseMessage::priming("8", std::time::Duration::from_millis(1500)));
    assert_eq!(out, "data: \nid: 8\nretry: 1500\n\n");
    out.clear();
    push_event(&mut out, &ServerSseMessage::retry(std::time::Duration::from_secs(2)));
    assert_eq!(out, "data: \nretry: 2000\n\n");
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(texts in proptest::collection::vec("[a~:\\\\\" \u{85}\u{2028}\u{2029}é€]{0,12}", 0..6)) {
        let mut out = String::new();
        for (n, text) in texts.iter().enumerate() {
            let json = serde_json::json!({ "id: ": text }).to_string();
            if n % 2 == 0 { push_notification(&mut out, |out| out.push_str(&n.to_string()), &notification(&json)) } else { push_request(&mut out, &json) }
        }
        prop_assert!(!out.contains(SEPARATORS));
        let read: Vec<_> = read(&out).collect();
        prop_assert_eq!(read.len(), texts.len());
        for (n, ((id, data), text)) in read.into_iter().zip(&texts).enumerate() {
            let data: serde_json::Value = serde_json::from_str(data).unwrap();
            let params = if n % 2 == 0 { &data["params"] } else { &data };
            prop_assert_eq!(&params["id: "], text.as_str());
            prop_assert_eq!(id.map(str::to_owned), (n % 2 == 0).then(|| n.to_string()));
        }
    }
}
