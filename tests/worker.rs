//! The example `worker`: processes that hold no session reach the clients of a server.
#![cfg(feature = "rmcp")]

use std::process::Output;

use serde_json::{Value, json};

#[path = "support/chat_process.rs"]
mod chat_process;
#[path = "support/raw_client.rs"]
mod raw_client;
#[path = "support/redis_server.rs"]
mod redis_server;

use chat_process::{ChatProcess, worker};
use raw_client::RawClient;
use redis_server::RedisServer;

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn what_a_worker_pushes_arrives_unchanged() {
    let redis = RedisServer::start();
    let server = ChatProcess::start(&["--redis", &redis.url(), "--prefix", "w"]).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    let status = json!({
        "taskId": "7", "status": "working", "statusMessage": "half-way", "createdAt": "2026-11-01T10:00:00Z",
        "lastUpdatedAt": "2026-11-01T10:00:05Z", "ttl": null, "pollInterval": 500, "x-own": {"b": [1.5, null], "a": "ü"},
    });
    let own = json!({"any": ["thing", {"nested": true}]});
    for (method, params) in [("notifications/tasks/status", &status), ("notifications/mine/own", &own)] {
        let push = ["--redis", &redis.url(), "--prefix", "w", "push", client.session_id(), method, &params.to_string()];
        let pushed = worker(&push).await;
        assert!(pushed.status.success(), "{}", stderr(&pushed));
        let id = stdout(&pushed);
        let id = id.trim().strip_prefix("queued ").and_then(|rest| rest.strip_suffix(", 1 waiting")).unwrap();

        let mut arrived = stream.next_notification().await.unwrap();
        assert_eq!(arrived["method"], method);
        let arrived = arrived["params"].as_object_mut().unwrap();
        let meta = arrived.remove("_meta").unwrap();
        assert_eq!(meta["mcp-courier/id"], id);
        assert_eq!(Value::Object(arrived.clone()), *params);
    }
}

#[tokio::test]
async fn five_thousand_arrive_in_order() {
    let redis = RedisServer::start();
    let server = ChatProcess::start(&["--redis", &redis.url()]).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    let pushed = worker(&["--redis", &redis.url(), "push-many", client.session_id(), "5000"]).await;
    assert!(pushed.status.success(), "{}", stderr(&pushed));
    assert!(stdout(&pushed).starts_with("queued 5000 of 5000 in "), "{}", stdout(&pushed));
    let arrived = stream.notifications(5000).await;
    let numbers: Vec<_> = arrived.iter().map(|n| n["params"]["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=5000).collect::<Vec<_>>());
    assert!(arrived.iter().all(|n| n["method"] == "notifications/message" && n["params"]["logger"] == "worker"));
}

#[tokio::test]
async fn what_a_full_queue_refuses_is_reported() {
    let redis = RedisServer::start();
    let pushed = worker(&["--redis", &redis.url(), "push-many", "nobody", "10005"]).await;
    assert_eq!(pushed.status.code(), Some(1));
    assert!(stdout(&pushed).starts_with("queued 10000 of 10005 in "), "{}", stdout(&pushed));
    assert!(stderr(&pushed).contains("the queue is full: it may hold 10000 messages"), "{}", stderr(&pushed));
}

#[tokio::test]
async fn a_worker_that_cannot_push_says_why_and_ends_with_status_1() {
    let nowhere = "redis://127.0.0.1:1/";
    let wrong = [
        (nowhere, ["with space", "notifications/x", "{}"], "visible ASCII"),
        (nowhere, ["s", "tools/call", "{}"], "must begin with \"notifications/\""),
        (nowhere, ["s", "notifications/x", "{"], "the params are no JSON"),
        (nowhere, ["s", "notifications/x", "[]"], "must be a JSON object"),
        (nowhere, ["s", "notifications/x", "{}"], "cannot be reached"),
        ("http://127.0.0.1/", ["s", "notifications/x", "{}"], "redis://"),
        ("memory://chat", ["s", "notifications/x", "{}"], "memory://"),
    ];
    for (url, push, expected) in wrong {
        let output = worker(&["--redis", url, "push", push[0], push[1], push[2]]).await;
        assert_eq!(output.status.code(), Some(1), "{push:?}");
        assert!(stderr(&output).contains(expected), "{push:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}
