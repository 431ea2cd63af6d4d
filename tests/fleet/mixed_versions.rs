//! A fleet while it is upgraded: servers and workers of the previous version beside those of this one, on one Redis.
//!
//! `scripts/mixed-versions` builds the previous version and runs these tests, which are ignored without it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use mcp_courier_testing::examples::{ChatProcess, example};
use mcp_courier_testing::raw_client::{EventStream, RawClient};
use mcp_courier_testing::redis_server::RedisServer;
use serde_json::{Value, json};

/// Version of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Previous,
    This,
}
use Version::{Previous, This};

/// Number of notifications of one worker.
const BURST: usize = 200;

fn program(version: Version, name: &str) -> PathBuf {
    match version {
        This => example(name),
        Previous => {
            let dir = std::env::var_os("PREVIOUS_EXAMPLES").expect("PREVIOUS_EXAMPLES: run scripts/mixed-versions");
            PathBuf::from(dir).join(name)
        }
    }
}

async fn server(version: Version, redis: &RedisServer) -> ChatProcess {
    ChatProcess::start_program(&program(version, "chat"), &["--redis", &redis.url()]).await
}

/// Has a worker push notifications with the data `first`, `first + 1` and so on.
async fn push(version: Version, redis: &RedisServer, session: &str, first: usize) {
    let params = (first..first + BURST).map(|n| json!({"level": "info", "data": n}).to_string());
    let mut worker = tokio::process::Command::new(program(version, "worker"));
    worker.args([session, "notifications/message"]).args(params).env("REDIS_URL", redis.url());
    let pushed = worker.stdout(Stdio::piped()).kill_on_drop(true).output().await.expect("the worker");
    assert!(pushed.status.success(), "{version:?}: {pushed:?}");
}

/// Reads notifications until all up to `last` have come, and asserts that none is missing, repeated or out of order.
async fn reads(stream: &mut EventStream, next: &mut usize, last: usize) {
    while *next <= last {
        let notification = stream.notification_within(Duration::from_secs(20)).await.expect("a notification");
        assert_eq!(notification["params"]["data"], json!(*next), "{notification}");
        *next += 1;
    }
}

async fn a_session_moves(from: Version, to: Version) {
    let redis = RedisServer::start();
    let (mut one, other) = (server(from, &redis).await, server(to, &redis).await);
    let client = RawClient::connect(&one.url).await;
    let mut stream = client.open_stream().await;
    let mut next = 1;
    for (version, first) in [(from, 1), (to, 1 + BURST)] {
        // A worker ends once it has its receipts.
        let pushing = push(version, &redis, client.session_id(), first);
        tokio::join!(pushing, reads(&mut stream, &mut next, first + BURST - 1));
    }
    let last = stream.last_event_id().expect("an id").to_owned();
    one.kill();
    for (version, first) in [(from, 1 + 2 * BURST), (to, 1 + 3 * BURST)] {
        let pushing = push(version, &redis, client.session_id(), first);
        let reading = async {
            if first == 1 + 2 * BURST {
                stream = client.at(&other.url).come_back(&last).await;
            }
            reads(&mut stream, &mut next, first + BURST - 1).await;
        };
        tokio::join!(pushing, reading);
    }
    let more = stream.notification_within(Duration::from_millis(300)).await;
    assert!(more.is_none(), "{more:?}");
    // A tool call, which needs the whole session and not only its stream.
    let called = client.at(&other.url).call_tool("session_id", json!({})).await;
    assert_eq!(called["structuredContent"]["session_id"], client.session_id());
}

#[tokio::test]
#[ignore = "needs the previous version: scripts/mixed-versions"]
async fn g2_g3_a_session_moves_to_a_server_of_this_version() {
    a_session_moves(Previous, This).await;
}

#[tokio::test]
#[ignore = "needs the previous version: scripts/mixed-versions"]
async fn g2_g3_a_session_moves_back_to_a_server_of_the_previous_version() {
    a_session_moves(This, Previous).await;
}

/// Has a worker ask, and a client at a server answer.
async fn asks(worker: Version, at: Version) {
    let redis = RedisServer::start();
    let server = server(at, &redis).await;
    let client = RawClient::connect_with(&server.url, json!({"elicitation": {}})).await;
    let mut stream = client.open_stream().await;
    let mut ask = tokio::process::Command::new(program(worker, "ask"));
    ask.args([client.session_id(), "task-7"]).env("REDIS_URL", redis.url()).stdout(Stdio::piped()).kill_on_drop(true);
    let asking = ask.spawn().expect("the worker");
    let request = tokio::time::timeout(Duration::from_secs(20), stream.next_request()).await.expect("in time");
    let request = request.expect("a question");
    assert_eq!(request["method"], "elicitation/create", "{request}");
    client.answer(&request, json!({"action": "accept", "content": {"approve": true}})).await;
    let output = tokio::time::timeout(Duration::from_secs(20), asking.wait_with_output()).await.expect("in time");
    let answer: Value = serde_json::from_slice(&output.expect("its output").stdout).expect("an answer");
    assert_eq!(answer["content"]["approve"], true, "{answer}");
}

#[tokio::test]
#[ignore = "needs the previous version: scripts/mixed-versions"]
async fn a_question_is_answered_across_versions() {
    asks(Previous, This).await;
    asks(This, Previous).await;
}

#[tokio::test]
#[ignore = "needs the previous version: scripts/mixed-versions"]
async fn the_end_of_a_session_is_known_to_servers_of_both_versions() {
    for (at, elsewhere) in [(Previous, This), (This, Previous)] {
        let redis = RedisServer::start();
        let (one, other) = (server(at, &redis).await, server(elsewhere, &redis).await);
        let client = RawClient::connect(&one.url).await;
        let mut stream = client.open_stream().await;
        assert!(client.at(&other.url).delete().await.is_success());
        tokio::time::timeout(Duration::from_secs(20), stream.ended()).await.expect("its server has heard of the end");
        assert_eq!(client.open_stream_after(None).await.expect_err("an ended session"), 404);
    }
}
