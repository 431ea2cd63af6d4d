//! The example `chat` in trouble: signals at its start, a Redis that permits little, connections that were closed.
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::examples::ChatProcess;
use mcp_courier_testing::forwarder::{Forwarder, Mode};
use mcp_courier_testing::raw_client::{EventStream, RawClient};
use mcp_courier_testing::readme;
use mcp_courier_testing::redis_server::RedisServer;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

#[tokio::test]
async fn a_signal_right_after_the_start_ends_the_chat_cleanly() {
    for _ in 0..20 {
        let mut server = ChatProcess::start(&[]).await;
        let status = server.terminate().await;
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

async fn tool(client: &RawClient, tool: &str, arguments: Value) -> Value {
    let mut result = client.call_tool(tool, arguments).await;
    assert_eq!(result["isError"], false, "{tool}: {result}");
    result["structuredContent"].take()
}

async fn resources(client: &RawClient, method: &str, params: Value) {
    let answer = client.request(&format!("resources/{method}"), params).await;
    assert!(answer["error"].is_null(), "{method}: {answer}");
}

/// Does all that the chat does in Redis, each step after `before`.
async fn everything(client: &RawClient, stream: &mut EventStream, mut before: impl AsyncFnMut()) {
    let (room, uri) = (json!({"room": "r"}), json!({"uri": "chat://rooms/r"}));
    before().await;
    assert_eq!(tool(client, "join", json!({"room": "r", "name": "a"})).await["members"], json!(["a"]));
    before().await;
    assert_eq!(tool(client, "say", json!({"room": "r", "text": "hello"})).await, json!({"seq": 1, "members": 1}));
    assert_eq!(stream.next_notification().await.unwrap()["params"]["data"]["text"], "hello");
    before().await;
    assert_eq!(tool(client, "who", room.clone()).await["seq"], 1);
    before().await;
    resources(client, "list", json!({})).await;
    before().await;
    resources(client, "read", uri.clone()).await;
    before().await;
    resources(client, "subscribe", uri.clone()).await;
    before().await;
    resources(client, "unsubscribe", uri).await;
    before().await;
    assert_eq!(tool(client, "leave", room.clone()).await, json!({"room": "r", "left": true}));
    before().await;
    assert_eq!(tool(client, "who", room).await["members"], json!([]));
}

#[tokio::test]
async fn the_documented_rights_are_enough_for_the_chat() {
    let redis = RedisServer::start();
    // docs/redis.md: "The example `chat` keeps its rooms in Redis too".
    let rights = [&readme::rights()[..], &["+hgetall", "+hkeys", "+incr", "+zrange", "+zscore"]].concat();
    let url = redis.restricted_url(&rights).await;
    // So short that members are kept meanwhile.
    let mut server = ChatProcess::start(&["--redis", &url, "--member-ttl", "1", "--poll-timeout", "1"]).await;
    let client = RawClient::connect_with(&server.url, json!({"elicitation": {}})).await;
    let mut stream = client.open_stream().await;
    everything(&client, &mut stream, async || ()).await;
    tool(&client, "join", json!({"room": "r", "name": "a"})).await;
    tool(&client, "poll", json!({"room": "r", "question": "Well?", "options": ["yes", "no"]})).await;
    assert_eq!(stream.next_request().await.unwrap()["method"], "elicitation/create");
    assert_eq!(server.terminate().await.code(), Some(0));
    redis.assert_no_right_was_missing().await;
}

/// Closes every connection but the caller's own, as Redis does with idle ones and with all at its restart.
async fn close_all(raw: &MultiplexedConnection) {
    let mut raw = raw.clone();
    redis::cmd("CLIENT").arg(&["KILL", "SKIPME", "yes"]).exec_async(&mut raw).await.unwrap();
}

#[tokio::test]
async fn the_first_call_after_an_idle_connection_was_closed_works() {
    let redis = RedisServer::start();
    let raw = redis.connection().await;
    let server = ChatProcess::start(&["--redis", &redis.url()]).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    everything(&client, &mut stream, async || close_all(&raw).await).await;
}

#[tokio::test]
async fn who_leaves_while_the_connection_drops_behind_the_command_has_left() {
    let redis = RedisServer::start();
    let line = Forwarder::to(redis.port());
    let raw = redis.connection().await;
    let server = ChatProcess::start(&["--redis", &line.url()]).await;
    let client = RawClient::connect(&server.url).await;
    let _stream = client.open_stream().await;
    let join = async || tool(&client, "join", json!({"room": "r", "name": "a"})).await;
    join().await;
    // From then on Redis has the script, and needs one command for it.
    tool(&client, "leave", json!({"room": "r"})).await;
    join().await;
    line.set(Mode::OneWay);
    let leaving = tokio::spawn(async move { tool(&client, "leave", json!({"room": "r"})).await });
    eventually("Redis has done it", SOON, async || {
        let members = redis::cmd("EXISTS").arg("mcp-courier:chat:members:r").query_async(&mut raw.clone()).await;
        members == Ok(0)
    })
    .await;
    line.cut();
    line.set(Mode::Pass);
    assert_eq!(leaving.await.unwrap(), json!({"room": "r", "left": true}));
}
