//! Answers to questions that cannot be read as they come.

use std::time::Duration;

use mcp_courier::{Answer, Elicitation, SessionId, TaskKey};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::wire::{VERSION, Wire, post, text};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::courier;

/// Longer than any test: an answer that comes in time does not come because the time is over.
const PATIENCE_OF_WORKER: Duration = Duration::from_secs(300);

/// A user who is asked, and the worker that waits for the answer.
struct Asked {
    server: McpServer,
    wire: Wire,
    id: String,
    worker: JoinHandle<Answer>,
}

async fn asked() -> Asked {
    let courier = courier().await;
    let server = McpServer::with(courier.clone(), |server| server.max_body_bytes(64 * 1024));
    let wire = Wire::connect(&server.url, VERSION).await;
    let mut stream = wire.stream().await;
    let session = SessionId::new(&wire.session).unwrap();
    let worker = actix::spawn(async move {
        let schema = json!({"type": "object", "properties": {"s": {"type": "string"}}});
        let question = Elicitation::form("?", schema).unwrap();
        let task = TaskKey::anonymous("t").unwrap();
        courier.publisher().elicitor().elicit(&session, &task, question, PATIENCE_OF_WORKER).await.unwrap()
    });
    let question = stream.request("elicitation/create").await;
    actix::spawn(async move { stream.until(|_| false).await.len() });
    Asked { server, wire, id: question["id"].as_str().unwrap().to_owned(), worker }
}

impl Asked {
    async fn answer(self) -> Answer {
        tokio::time::timeout(Duration::from_secs(20), self.worker).await.expect("told at once").unwrap()
    }
}

#[actix_web::test]
async fn half_a_surrogate_pair_in_an_answer_becomes_a_replacement_character() {
    let asked = asked().await;
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":"{}","result":{{"action":"accept","content":{{"s":"well done \ud83d"}}}}}}"#,
        asked.id
    );
    assert_eq!(asked.wire.post(body).await.status(), 202);
    let Answer::Accept(content) = asked.answer().await else { panic!("the user's yes does not count") };
    assert_eq!(content["s"], "well done \u{FFFD}");
}

#[actix_web::test]
async fn half_a_surrogate_pair_in_a_request_becomes_a_replacement_character() {
    let asked = asked().await;
    for half in [br"\udC00".as_slice(), b"\xED\xA0\xBD"] {
        let body = [br#"{"jsonrpc":"2.0","id":""#, half, br#"","method":"tools/list"}"#].concat();
        let response = asked.wire.post(body).await;
        assert_eq!(response.status(), 200);
        assert!(text(response).await.contains("\"id\":\"\u{FFFD}\""));
    }
}

#[actix_web::test]
async fn an_answer_that_cannot_be_read_cancels_its_question_at_once() {
    let large = format!(r#"{{"result":{{"action":"accept","content":{{"s":"{}"}}}},"#, "x".repeat(100_000));
    for (name, before, after, status) in [
        ("cut", r#"{"jsonrpc":"2.0","id":"#, r#","result":{"action":"acc"#, 400),
        ("of two parts", r#"{"id":"#, r#","result":{}} {}"#, 400),
        (
            "Latin-1",
            r#"{"jsonrpc":"2.0","id":"#,
            ",\"result\":{\"action\":\"accept\",\"content\":{\"s\":\"\u{1}\"}}}",
            400,
        ),
        ("neither result nor error", r#"{"jsonrpc":"2.0","id":"#, r#","error":"no"}"#, 400),
        ("a batch", r#"[{"jsonrpc":"2.0","id":"#, r#","result":{"action":"accept"}}]"#, 400),
        ("too large, and its id comes last", large.as_str(), r#","jsonrpc":"2.0"}"#, 413),
    ] {
        let asked = asked().await;
        let id = json!(asked.id).to_string();
        let id = if name.starts_with("too large") { format!("\"id\":{id}") } else { id };
        let response = asked.wire.post(format!("{before}{id}{after}")).await;
        assert_eq!(response.status(), status, "{name}");
        let why = text(response).await;
        assert!(why.contains("answer") || why.contains("exceeds"), "{name}: {why}");
        match asked.answer().await {
            Answer::Cancel { reason: Some(reason) } => {
                assert!(reason.contains("the client's answer"), "{name}: {reason}")
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[actix_web::test]
async fn a_readable_answer_that_is_refused_for_another_reason_can_still_be_given() {
    let asked = asked().await;
    let accept = json!({"jsonrpc": "2.0", "id": asked.id, "result": {"action": "accept", "content": {"s": "yes"}}});
    // A server of the same queue that does not hold the session, and cannot restore it.
    let elsewhere = McpServer::with(asked.server.courier.clone(), |server| server);
    assert_eq!(asked.wire.at(&elsewhere.url).post(accept.to_string()).await.status(), 404);
    let refused = |name: &'static str, value: &'static str| {
        let request = post(&asked.server.url, accept.to_string()).header("mcp-session-id", &asked.wire.session);
        let mut request = request.build().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
        reqwest::Client::new().execute(request)
    };
    for (name, value, status) in [("accept", "text/html", 406), ("mcp-protocol-version", "1999-01-01", 400)] {
        assert_eq!(refused(name, value).await.unwrap().status(), status, "{name}");
    }
    assert_eq!(asked.wire.post(accept.to_string()).await.status(), 202);
    let answer = asked.answer().await;
    assert!(matches!(&answer, Answer::Accept(content) if content["s"] == "yes"), "{answer:?}");
}

#[actix_web::test]
async fn the_unreadable_answer_of_another_user_cancels_nothing() {
    let asked = asked().await;
    let body = format!(r#"{{"jsonrpc":"2.0","id":"{}","result":oops}}"#, asked.id);
    let forged = post(&asked.server.url, body.clone()).header("mcp-session-id", &asked.wire.session);
    let forged = forged.header("authorization", "Bearer eve").send().await.unwrap();
    assert!(forged.status().is_client_error());
    let elsewhere = post(&asked.server.url, body).header("mcp-session-id", "another").send().await.unwrap();
    assert!(elsewhere.status().is_client_error());
    let right: Value = json!({"jsonrpc": "2.0", "id": asked.id, "result": {"action": "decline"}});
    assert_eq!(asked.wire.post(right.to_string()).await.status(), 202);
    assert_eq!(asked.answer().await, Answer::Decline);
}
