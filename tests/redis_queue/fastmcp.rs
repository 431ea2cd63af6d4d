//! FastMCP's Python workers push into the same list.

use std::time::Duration;

use mcp_courier::Config;

use crate::fixture::{Fixture, numbers, session};
use crate::redis_server::RedisServer;

const QUEUE: &str = "docket:fastmcp:notifications:s-1";

/// As `json.dumps` writes it, with spaces.
const MESSAGE: &str = r#"{"notification": {"method": "notifications/tasks/status", "params": {"n": 0, "taskId": "t", "status": "working"}, "_meta": {"io.modelcontextprotocol/related-task": {"taskId": "t"}}}, "attempt": 0, "enqueued_at": "2026-11-23T10:00:00.123456+00:00"}"#;

#[tokio::test]
async fn what_fastmcp_pushed_is_taken_in_order_with_ours() {
    let mut f = Fixture::with(RedisServer::start(), Config::builder().prefix("docket:fastmcp")).await;
    let _: () = f.redis(&["LPUSH", QUEUE, MESSAGE]).await;
    let _: () = f.redis(&["EXPIRE", QUEUE, "300"]).await;
    f.push([1]).await;
    let without_method =
        MESSAGE.replace(r#""method": "notifications/tasks/status", "#, "").replace(r#""n": 0"#, r#""n": 2"#);
    let _: () = f.redis(&["LPUSH", QUEUE, &without_method]).await;
    let taken = f.take().await;
    assert_eq!(numbers(&taken), [0, 1, 2]);
    let first = taken.items[0].envelope.as_ref().unwrap();
    // MCP: a task's status should not say besides whose it is.
    assert!(first.meta.is_empty());
    assert_eq!(first.expires_at.unwrap().since(first.enqueued_at.unwrap()), Duration::from_secs(300));
    assert_eq!(taken.items[2].envelope.as_ref().unwrap().method, "notifications/tasks/status");

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
    let mut f = Fixture::with(RedisServer::start(), Config::builder().prefix("docket:fastmcp")).await;
    for _ in 0..3 {
        let _: () = f.redis(&["LPUSH", QUEUE, MESSAGE]).await;
    }
    let taken = f.take().await;
    let one = mcp_courier::queue::Delivered { count: 1, last: taken.items[0].mark.clone(), questions: Vec::new() };
    assert_eq!(f.consumer.take(Some(&one)).await.unwrap().items.len(), 2);
    f.end().await;
}

#[tokio::test]
async fn what_is_no_envelope_comes_as_an_item_and_can_be_acknowledged() {
    let mut f = Fixture::with(RedisServer::start(), Config::builder().prefix("docket:fastmcp")).await;
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
    assert_eq!(f.publisher.push(&session(), crate::fixture::note(2)).await.unwrap().waiting, 1);
    f.end().await;
}
