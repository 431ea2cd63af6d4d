//! Story of a session at the level TRACE, as an operator reads it: two servers over one Redis, and a client that moves.

use std::time::Duration;

use mcp_courier::{Answer, Courier, Elicitation, Notification, SessionId, TaskKey, TraceContext};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::{in_own_process, log, waiting};
use serde_json::json;

/// Text that no line may contain.
const PAYLOAD: &str = "the-payload";

async fn server(redis: &RedisServer) -> McpServer {
    let courier = Courier::start(&redis.url(), waiting::config().build().unwrap()).await.unwrap();
    let manager = courier.session_manager();
    McpServer::of_fleet(courier, manager)
}

fn note(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n, "text": PAYLOAD})).unwrap()
}

/// Waits for a line of the story that has not come before, and returns the number of lines up to it.
async fn told(from: usize, words: &'static [&'static str]) -> usize {
    let at = || log::lines(&[]).iter().skip(from).position(|line| words.iter().all(|word| line.contains(word)));
    eventually(&words.join(" "), SOON, || async { at().is_some() }).await;
    from + at().unwrap() + 1
}

#[actix::test]
async fn a_session_can_be_followed_from_its_beginning_to_its_end_at_the_level_trace() {
    in_own_process!();
    log::begin_with("mcp_courier::story=trace");
    let redis = RedisServer::start();
    let (first, second) = (server(&redis).await, server(&redis).await);

    // Begins at one server, gets a notification there, and is asked.
    let client = RawClient::connect_with(&first.url, json!({"elicitation": {}})).await;
    let session = SessionId::new(client.session_id()).unwrap();
    let at = told(0, &["a session moves", "step=\"created\""]).await;
    let mut stream = client.open_stream().await;
    let at = told(at, &["a stream is opened", "stream=1", "resumed=false"]).await;
    let at = told(at, &["a subscriber is started", "epoch=1"]).await;
    let at = told(at, &["the client has an open stream", "generation=1"]).await;
    let at = told(at, &["the lease is claimed"]).await;
    let at = told(at, &["the state of a subscriber changes", "now=Waiting"]).await;
    let publisher = first.courier.publisher().clone();
    let pushed = publisher.push(&session, note(0)).await.unwrap();
    stream.next_notification().await.unwrap();
    let at = told(at, &["messages are taken", "count=1"]).await;
    let at = told(at, &["a batch is delivered", "delivery=1", "count=1"]).await;
    assert!(log::lines(&[])[at - 1].contains(&pushed.id.to_string()), "the line names the notification");
    let at = told(at, &["a batch is handed over", "accepted=1", "end=\"all accepted\""]).await;
    let at = told(at, &["the client has confirmed a delivery", "delivery=1"]).await;
    let at = told(at, &["messages are acknowledged", "count=1"]).await;

    let context = TraceContext::new("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
    let elicitor = publisher.elicitor().with_trace_context(context.clone());
    let form =
        Elicitation::form(PAYLOAD, json!({"type": "object", "properties": {"text": {"type": "string"}}})).unwrap();
    let asking = {
        let session = session.clone();
        actix::spawn(async move {
            elicitor.elicit(&session, &TaskKey::anonymous("t").unwrap(), form, Duration::from_secs(60)).await
        })
    };
    let request = stream.next_request().await.unwrap();
    assert_eq!(request["params"]["_meta"]["traceparent"], context.traceparent(), "the question carries its cause");
    client.answer(&request, json!({"action": "accept", "content": {"text": PAYLOAD}})).await;
    assert!(matches!(asking.await.unwrap().unwrap(), Answer::Accept(_)));
    let at = told(at, &["the client is asked a question"]).await;
    let at = told(at, &["a question has an answer"]).await;

    // Leaves, and continues at the other server.
    stream.close();
    let at = told(at, &["a stream is closed", "stream=1", "cause=\"the client or the server has ended it\""]).await;
    let at = told(at, &["the client has no open stream"]).await;
    let at = told(at, &["the lease is released"]).await;
    let at = told(at, &["a subscriber is parked"]).await;
    let client = client.at(&second.url);
    let mut stream = client.open_stream().await;
    let at = told(at, &["a session moves", "step=\"loaded\""]).await;
    let at = told(at, &["a stream is opened", "stream=1"]).await;
    let at = told(at, &["the lease is claimed"]).await;
    publisher.push(&session, note(1)).await.unwrap();
    stream.next_notification().await.unwrap();
    let at = told(at, &["the client has confirmed a delivery"]).await;

    // Ends for good.
    client.delete().await;
    told(at, &["a session moves", "step=\"ended everywhere\""]).await;
    let at = told(at, &["a session moves", "step=\"closed here\""]).await;
    let at = told(at, &["a stream is closed", "cause=\"the session is closed\""]).await;
    let at = told(at, &["the session has ended at this server"]).await;
    let at = told(at, &["the subscriber exits", "reason=Detached"]).await;
    told(at, &["a subscriber has ended"]).await;

    let lines = log::lines(&[]);
    lines.iter().for_each(|line| println!("{line}"));
    let shown = format!("session={session:?}");
    for line in lines {
        assert!(line.contains("TRACE mcp_courier::story: ") && line.contains(&shown), "{line}");
        assert!(!line.contains(client.session_id()) && !line.contains(PAYLOAD), "{line}");
    }
}
