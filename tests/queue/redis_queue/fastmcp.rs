//! FastMCP's Python workers push into the same list.

use std::time::Duration;

use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::{Answer, Courier, Elicitation, HandOverError, Publisher, TaskKey};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::{Value, json};

use super::fixture::{Fixture, numbers, session};

const QUEUE: &str = "docket:fastmcp:notifications:s-1";

/// Returns a message that was queued now, as `json.dumps` writes one, with spaces.
fn message() -> String {
    let now = Timestamp::of_this_host();
    format!(
        r#"{{"notification": {{"method": "notifications/tasks/status", "params": {{"n": 0, "taskId": "t", "status": "working"}}, "_meta": {{"io.modelcontextprotocol/related-task": {{"taskId": "t"}}}}}}, "attempt": 0, "enqueued_at": "{now}"}}"#
    )
}

#[tokio::test]
async fn what_fastmcp_pushed_is_taken_in_order_with_ours() {
    let mut f = Fixture::with(RedisServer::start(), waiting::config().prefix("docket:fastmcp")).await;
    let message = message();
    let _: () = f.redis(&["LPUSH", QUEUE, &message]).await;
    let _: () = f.redis(&["EXPIRE", QUEUE, "300"]).await;
    f.push([1]).await;
    let without_method =
        message.replace(r#""method": "notifications/tasks/status", "#, "").replace(r#""n": 0"#, r#""n": 2"#);
    let _: () = f.redis(&["LPUSH", QUEUE, &without_method]).await;
    let taken = f.take().await;
    assert_eq!(numbers(&taken), [0, 1, 2]);
    let first = taken.items[0].envelope.as_ref().unwrap();
    // MCP: the `_meta` of a task's status does not name the task, because its params do.
    let meta = first.parse_params::<Value>().unwrap()["_meta"].clone();
    assert_eq!(meta, json!({"mcp-courier/id": first.id.to_string()}));
    assert_eq!(first.expires_at.unwrap().since(first.enqueued_at.unwrap()), Duration::from_secs(300));
    assert_eq!(taken.items[2].envelope.as_ref().unwrap().method(), "notifications/tasks/status");

    // It has no id, and gets the same one at every reading and by every owner.
    let id = first.id;
    f.reopen().await;
    let again = f.take().await;
    assert_eq!(again.items[0].envelope.as_ref().unwrap().id, id);
    let rest = f.take_after(&again).await;
    assert_eq!((rest.items.len(), rest.changed), (0, false));
    f.end().await;
}

#[tokio::test]
async fn of_two_equal_messages_an_acknowledgement_removes_as_many_as_it_names() {
    let mut f = Fixture::with(RedisServer::start(), waiting::config().prefix("docket:fastmcp")).await;
    let message = message();
    for _ in 0..3 {
        let _: () = f.redis(&["LPUSH", QUEUE, &message]).await;
    }
    let taken = f.take().await;
    let one = mcp_courier::testing::backend::Delivered {
        count: 1,
        last: taken.items[0].mark.clone(),
        questions: Vec::new(),
        outcomes: Vec::new(),
    };
    assert_eq!(f.consumer.take(Some(&one)).await.unwrap().items.len(), 2);
    f.end().await;
}

#[tokio::test]
async fn what_is_no_envelope_comes_as_an_item_and_can_be_acknowledged() {
    let mut f = Fixture::with(RedisServer::start(), waiting::config().prefix("docket:fastmcp")).await;
    f.push([0]).await;
    for strange in ["nonsense", "", "{}", "[]", "\u{0}\r\n", r#"{"notification": {"method": "tools/call"}}"#] {
        let _: () = f.redis(&["LPUSH", QUEUE, strange]).await;
    }
    f.push([1]).await;
    let taken = f.take().await;
    let readable: Vec<_> = taken.items.iter().map(|item| item.envelope.is_ok()).collect();
    assert_eq!(readable, [true, false, false, false, false, false, false, true]);
    let rest = f.take_after(&taken).await;
    assert_eq!((rest.items.len(), rest.changed), (0, false));
    assert_eq!(f.publisher.push(&session(), super::fixture::note(2)).await.unwrap().waiting, 1);
    f.end().await;
}

#[actix::test]
async fn what_fastmcp_queued_again_has_that_attempt_behind_it_and_a_failed_one_keeps_what_we_do_not_know() {
    let server = RedisServer::start();
    let config = waiting::config().prefix("docket:fastmcp").backoff_initial(Duration::from_secs(60));
    let config = config.backoff_max(Duration::from_secs(60)).build().unwrap();
    let courier = Courier::start(&server.url(), config).await.unwrap();
    let mut redis = server.connection().await;
    let mut wire: Value = serde_json::from_str(&message()).unwrap();
    wire["attempt"] = json!(1);
    wire["last_error"] = json!("the pipe is broken");
    wire["unknown"] = json!({"kept": [1, null]});
    wire["notification"]["beside"] = json!("kept too");
    let _: () = redis::cmd("LPUSH").arg(QUEUE).arg(wire.to_string()).query_async(&mut redis).await.unwrap();

    let failing = Recorder::scripted([Act::Fail(HandOverError::Transient("told to".to_owned()))]);
    courier.ensure_subscriber(&session(), failing.clone()).await.unwrap();
    wire["attempt"] = json!(2);
    wire["last_error"] = json!("told to");
    let mut read = redis::cmd("LINDEX");
    read.arg(QUEUE).arg(-1);
    eventually("the second failure is written down", SOON, || {
        let (mut redis, read) = (redis.clone(), read.clone());
        async move {
            let queued: String = read.query_async(&mut redis).await.unwrap();
            serde_json::from_str::<Value>(&queued).unwrap()["attempt"] == 2
        }
    })
    .await;
    let queued: String = read.query_async(&mut redis).await.unwrap();
    let mut queued: Value = serde_json::from_str(&queued).unwrap();
    // Ours, besides: without it an envelope that was written anew would be another notification.
    queued.as_object_mut().unwrap().retain(|field, _| !matches!(field.as_str(), "id" | "expires_at"));
    assert_eq!(queued, wire);
    server.assert_no_key_without_expiry().await;

    // The last attempt of three.
    let taking = Recorder::new();
    courier.ensure_subscriber(&session(), taking.clone()).await.unwrap();
    taking.until_taken(1).await;
    assert_eq!(taking.outbound()[0].attempt, 2);
    courier.shutdown(SOON).await;
}

/// FastMCP gives an answer by three commands: the answer, its expiry, and the status. A worker that goes on after the first
/// has the last one said of its next question.
#[tokio::test]
async fn an_answer_of_fastmcp_is_taken_when_it_has_been_given_in_full() {
    const KEYS: &str = "docket:fastmcp:task:anon:t:elicit";
    let server = RedisServer::start();
    let config = waiting::config().prefix("docket:fastmcp").build().unwrap();
    let elicitor = Publisher::connect(&server.url(), config).await.unwrap().elicitor();
    let mut redis = server.connection().await;
    let status = format!("{KEYS}:status");
    for _ in 0..3 {
        let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}});
        let (elicitor, question) = (elicitor.clone(), Elicitation::form("Sure?", schema).unwrap());
        let asking = tokio::spawn(async move {
            elicitor.elicit(&session(), &TaskKey::anonymous("t").unwrap(), question, Duration::from_secs(30)).await
        });
        eventually("the question is under way", SOON, || {
            let (mut redis, status) = (redis.clone(), status.clone());
            async move {
                let found: Option<String> = redis::cmd("GET").arg(status).query_async(&mut redis).await.unwrap();
                found.as_deref() == Some("waiting")
            }
        })
        .await;
        let mut push = redis::cmd("LPUSH");
        push.arg(format!("{KEYS}:response")).arg(r#"{"action": "decline", "content": null}"#);
        push.exec_async(&mut redis).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!asking.is_finished());
        redis::cmd("SET").arg(&status).arg("responded").arg("EX").arg(60).exec_async(&mut redis).await.unwrap();
        assert_eq!(asking.await.unwrap().unwrap(), Answer::Decline);
        let left: Vec<String> = redis::cmd("KEYS").arg(format!("{KEYS}:*")).query_async(&mut redis).await.unwrap();
        assert_eq!(left, Vec::<String>::new());
    }
}
