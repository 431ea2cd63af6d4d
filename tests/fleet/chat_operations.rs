//! The chat as its operators see it: health, asked of real processes over HTTP.
use std::time::Duration;

use mcp_courier_testing::eventually::eventually;
use mcp_courier_testing::examples::ChatProcess;
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::redis_server::RedisServer;
use reqwest::StatusCode;
use serde_json::{Value, json};

/// Asks a server for a path beside its MCP endpoint.
async fn get(server: &ChatProcess, path: &str) -> Option<(StatusCode, String)> {
    let url = server.url.replace("/mcp", path);
    let response = reqwest::get(url).await.ok()?;
    Some((response.status(), response.text().await.ok()?))
}

async fn health(server: &ChatProcess, path: &str) -> Option<(StatusCode, Value)> {
    let (status, body) = get(server, path).await?;
    Some((status, serde_json::from_str(&body).expect("a report")))
}

/// Waits until both probes answer with these statuses, and returns the last report.
async fn until_health_is(server: &ChatProcess, live: u16, ready: u16) -> Value {
    let report = std::sync::Mutex::new(Value::Null);
    eventually("the probes answer so", Duration::from_secs(30), async || {
        let Some((is_live, _)) = health(server, "/livez").await else { return false };
        let Some((is_ready, found)) = health(server, "/readyz").await else { return false };
        *report.lock().unwrap() = found;
        (is_live.as_u16(), is_ready.as_u16()) == (live, ready)
    })
    .await;
    report.into_inner().unwrap()
}

#[tokio::test]
async fn the_chat_answers_probes_and_leaves_the_balancer_as_its_drain_begins() {
    let redis = RedisServer::start();
    let mut server = ChatProcess::start(&["--redis", &redis.url(), "--poll-timeout", "600"]).await;
    let report = until_health_is(&server, 200, 200).await;
    assert_eq!((&report["live"], &report["ready"]), (&json!(true), &json!(true)), "{report}");
    redis.signal("-STOP");
    let report = until_health_is(&server, 200, 503).await;
    let queue = report["checks"].as_array().unwrap().iter().find(|check| check["part"] == "queue").unwrap();
    assert_eq!(queue["problem"], "the queue did not answer within 800ms");
    redis.signal("-CONT");
    until_health_is(&server, 200, 200).await;

    // A client that reads nothing holds the drain up, so there is a time in which the server can be asked.
    let client = RawClient::connect(&server.url).await;
    let stream = client.open_stream().await;
    stream.answer_pings(false);
    let joined = client.call_tool("join", json!({"room": "r", "name": "a"})).await;
    assert_eq!(joined["isError"], false, "{joined}");
    client.call_tool("say", json!({"room": "r", "text": "x"})).await;
    eventually("it is asked to confirm", Duration::from_secs(30), async || stream.pings() > 0).await;
    server.signal("-TERM");
    let report = until_health_is(&server, 200, 503).await;
    let shutdown = report["checks"].as_array().unwrap().iter().find(|check| check["part"] == "shutdown").unwrap();
    assert_eq!(shutdown["problem"], "the server shuts down");
    assert_eq!(server.ended().await.code(), Some(0));
}
