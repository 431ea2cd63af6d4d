//! The bound on open streams.

use std::time::Duration;

use mcp_courier_testing::eventually::eventually;
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::RawClient;
use reqwest::StatusCode;

use super::courier;

#[actix_web::test]
async fn a_stream_beyond_the_limit_is_refused_until_another_ends() {
    let server = McpServer::with(courier().await, |server| server.stream_limit(2));
    let clients = [RawClient::connect(&server.url).await, RawClient::connect(&server.url).await];
    let (first, _second) = (clients[0].open_stream().await, clients[1].open_stream().await);

    let refused = reqwest::Client::new()
        .get(&server.url)
        .header("accept", "text/event-stream")
        .header("mcp-session-id", clients[0].session_id())
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "5");
    assert_eq!(
        refused.text().await.unwrap(),
        "Service Unavailable: this server has 2 open streams, which is its stream_limit"
    );
    // Requests are served all the same.
    clients[0].request("tools/list", serde_json::json!({})).await;

    drop(first);
    let patience = Duration::from_secs(20);
    eventually("a place", patience, async || clients[0].open_stream_after(None).await.is_ok()).await;
}

#[actix_web::test]
async fn a_request_that_opens_no_stream_takes_no_place() {
    let server = McpServer::with(courier().await, |server| server.stream_limit(1));
    let client = RawClient::connect(&server.url).await;
    for _ in 0..3 {
        let unknown = RawClient::attach(&server.url, "unknown").open_stream_after(None).await;
        assert_eq!(unknown.err(), Some(StatusCode::NOT_FOUND));
    }
    client.open_stream().await;
}
