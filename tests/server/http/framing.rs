//! Framing of the events of a stream.

use mcp_courier::{Notification, SessionId};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::wire::{Wire, early_close, initialize, post, text};
use serde_json::json;

use super::courier;

fn has_data(event: &str) -> bool {
    event.lines().any(|line| line.strip_prefix("data:").is_some_and(|data| !data.trim().is_empty()))
}

async fn push(server: &McpServer, wire: &Wire, data: &str) {
    let notification = Notification::new("notifications/message").unwrap();
    let notification = notification.with_params(json!({"level": "info", "data": data})).unwrap();
    server.courier.publisher().push(&SessionId::new(&wire.session).unwrap(), notification).await.unwrap();
}

#[actix_web::test]
async fn line_separators_are_escaped_in_everything() {
    let courier = courier().await;
    let server = McpServer::start(courier.clone(), courier.session_manager());
    let wire = Wire::connect(&server.url, "2025-11-25").await;
    let mut stream = wire.stream().await;
    let separators = "a\u{2028}b\u{2029}c\u{85}d";
    push(&server, &wire, separators).await;
    let seen = stream.until(|text| text.contains("notifications/message") && text.ends_with("\n\n")).await;
    assert!(!seen.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{seen:?}");
    let message = stream.messages().into_iter().find(|message| message["method"] == "notifications/message").unwrap();
    assert_eq!(message["params"]["data"], separators);
    // An error that names what was asked for comes down the stream of its own request.
    let call = json!({"jsonrpc": "2.0", "id": separators, "method": "tools/list"});
    let answer = text(wire.post(call.to_string()).await).await;
    assert!(answer.contains(r"a\u2028b\u2029c\u0085d"), "{answer:?}");
    assert!(!answer.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{answer:?}");
}

#[actix_web::test]
async fn events_with_a_message_say_so() {
    let courier = courier().await;
    let server = McpServer::start(courier.clone(), courier.session_manager());
    let wire = Wire::connect(&server.url, "2025-11-25").await;
    let mut stream = wire.stream().await;
    push(&server, &wire, "1").await;
    stream.until(|text| text.contains("notifications/message") && text.ends_with("\n\n")).await;
    let list = text(wire.post(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string()).await).await;
    for event in stream.events().into_iter().chain(list.split("\n\n")).filter(|event| has_data(event)) {
        assert!(event.starts_with("event: message\n"), "{event:?}");
    }
}

/// Clients in TypeScript use the newest `retry` of any stream.
#[actix_web::test]
async fn an_answer_names_no_delay_of_rmcp() {
    let courier = courier().await;
    let server = McpServer::start(courier.clone(), courier.session_manager());
    let wire = Wire::connect(&server.url, "2025-11-25").await;
    let list = text(wire.post(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string()).await).await;
    let events: Vec<_> = list.split("\n\n").filter(|event| !event.is_empty()).collect();
    let [primed, answer] = events[..] else { panic!("{list:?}") };
    assert!(primed.contains("id: ") && !has_data(primed) && has_data(answer), "{list:?}");
    assert!(!list.contains("retry:"), "{list:?}");
}

#[actix_web::test]
async fn clients_older_than_2025_11_25_get_no_events_without_data_and_others_one() {
    let courier = courier().await;
    let server = McpServer::start(courier.clone(), courier.session_manager());
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let is_old = version < "2025-11-25";
        let begun = text(post(&server.url, initialize(version).to_string()).send().await.unwrap()).await;
        let primed = begun.split("\n\n").filter(|event| !event.is_empty() && !has_data(event)).count();
        assert!(!is_old || primed == 0, "{version}: {begun:?}");
        // What the session negotiated counts where the header does not say it.
        for said in [Some(version), None] {
            let wire = Wire::connect(&server.url, version).await;
            let mut stream = wire.get(said, None).await;
            push(&server, &wire, "1").await;
            let seen = stream.until(|text| text.contains("notifications/message") && text.ends_with("\n\n")).await;
            let primed: Vec<&str> = seen.split("\n\n").filter(|event| !event.is_empty() && !has_data(event)).collect();
            assert_eq!(primed.len(), usize::from(!is_old), "{version}, said {said:?}: {seen:?}");
            for event in primed {
                assert!(event.contains("id: ") && event.contains("retry: "), "{event:?}");
            }
        }
    }
}

#[actix_web::test]
async fn a_stream_ends_with_its_connection_but_for_clients_older_than_2025_11_25() {
    let courier = courier().await;
    let server = McpServer::start(courier.clone(), courier.session_manager());
    for version in ["2025-06-18", "2025-11-25"] {
        let wire = Wire::connect(&server.url, version).await;
        let stream = wire.stream().await;
        let is_chunked = stream.headers().contains_key("transfer-encoding");
        assert_eq!(is_chunked, version == "2025-06-18", "{:?}", stream.headers());
        assert_eq!(is_chunked, !stream.headers().contains_key("connection"), "{:?}", stream.headers());
    }
}

#[actix_web::test]
async fn clients_older_than_2025_11_25_that_resume_get_ids_by_pings() {
    let courier = courier().await;
    let server = McpServer::start(courier.clone(), courier.session_manager());
    let version = "2025-06-18";
    let wire = Wire::connect(&server.url, version).await;
    let ids = |text: &str| text.lines().filter_map(|l| l.strip_prefix("id: ")).map(str::to_owned).collect::<Vec<_>>();
    let mut stream = wire.stream().await;
    push(&server, &wire, "1").await;
    let seen = stream.until(|text| text.contains("notifications/message") && text.ends_with("\n\n")).await;
    let last = ids(seen).pop().unwrap();
    drop(stream);
    // No early close: TypeScript's clients of that time do not come back after it.
    let mut stream = wire.get(Some(version), Some(&last)).await;
    let begun = stream.until(|text| text.contains("\"ping\"") && text.ends_with("\n\n")).await.to_owned();
    assert!(begun.contains("retry: "), "{begun:?}");
    push(&server, &wire, "2").await;
    stream.until(|text| text.contains("notifications/message") && text.ends_with("\n\n")).await;
    assert!(stream.text.split("\n\n").all(|event| event.is_empty() || has_data(event)), "{:?}", stream.text);
    // The ping names the first message.
    let message = |id: &str| id.rsplit_once('~').unwrap().1.to_owned();
    assert_eq!(message(&ids(&begun)[0]), message(&last));
    assert_ne!(message(ids(&stream.text).last().unwrap()), message(&last));
}

#[actix_web::test]
async fn a_resumed_stream_begins_with_one_priming_event_too() {
    let courier = courier().await;
    let server = McpServer::start(courier.clone(), courier.session_manager());
    let wire = Wire::connect(&server.url, "2025-11-25").await;
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}).to_string();
    let mut stream = wire.stream().await;
    // rmcp's own, whose id can be resumed.
    assert_eq!(wire.post(changed.clone()).await.status(), 202);
    let seen = stream.until(|text| text.contains("list_changed") && text.ends_with("\n\n")).await;
    let last = seen.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(stream);
    for last_event_id in ["0", "forged", &last] {
        let mut stream = wire.get(Some("2025-11-25"), Some(last_event_id)).await;
        let begun = stream.until(|text| text.contains("retry:") && text.ends_with("\n\n")).await;
        // A stream that ends early comes before the real one.
        if let Some(closed) = early_close(begun) {
            stream = wire.get(Some("2025-11-25"), Some(closed)).await;
        }
        push(&server, &wire, "1").await;
        let seen = stream.until(|text| text.contains("notifications/message") && text.ends_with("\n\n")).await;
        let primed = seen.split("\n\n").filter(|event| event.contains("id: ") && !has_data(event)).count();
        assert_eq!(primed, 1, "{last_event_id}: {seen:?}");
    }
}

#[actix_web::test]
async fn numbers_arrive_as_they_were_pushed() {
    let courier = courier().await;
    let server = McpServer::start(courier.clone(), courier.session_manager());
    let wire = Wire::connect(&server.url, "2025-11-25").await;
    let mut stream = wire.stream().await;
    let data = "[18446744073709551616,-9223372036854775809,12345678901234567890.123456789,100.00,1e2,1E400]";
    let params = format!(r#"{{"level":"info","data":{data}}}"#);
    let notification = Notification::new("notifications/message").unwrap().with_params_json(&params).unwrap();
    server.courier.publisher().push(&SessionId::new(&wire.session).unwrap(), notification).await.unwrap();
    let seen = stream.until(|text| text.contains("notifications/message") && text.ends_with("\n\n")).await;
    assert!(seen.contains(&format!(r#""data":{data}"#)), "{seen:?}");
}

/// A client that does not read is one whose socket is full: what comes of rmcp's and of the courier's is whole all the same.
#[actix_web::test]
async fn messages_of_rmcp_and_of_the_courier_do_not_mix() {
    let courier = courier().await;
    let server = McpServer::start(courier.clone(), courier.session_manager());
    let wire = Wire::connect(&server.url, "2025-11-25").await;
    let mut stream = wire.stream().await;
    // The test server's handler has rmcp itself send a notification for each of these.
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"}).to_string();
    for number in 0..20 {
        push(&server, &wire, &format!("{number}-{}", "x".repeat(10_000))).await;
        assert_eq!(wire.post(changed.clone()).await.status(), 202);
    }
    stream.until(|text| text.matches("list_changed").count() == 20 && text.matches("xxx\"").count() == 20).await;
    stream.until(|text| text.ends_with("\n\n")).await;
    let data = |message: serde_json::Value| message["params"]["data"].as_str().map(|data| data[..2].to_owned());
    let order: Vec<String> = stream.messages().into_iter().filter_map(data).collect();
    let wanted: Vec<String> = (0..20).map(|number| format!("{number}-{}", "x".repeat(9))[..2].to_owned()).collect();
    assert_eq!(order, wanted);
}
