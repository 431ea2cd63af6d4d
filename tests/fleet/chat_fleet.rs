//! The chat as a fleet whose servers come and go: real processes on one Redis, real HTTP clients.
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use mcp_courier::{Config, LoggingLevel, Notification, Principal, Publisher, SessionId};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::examples::ChatProcess;
use mcp_courier_testing::forwarder::Forwarder;
use mcp_courier_testing::raw_client::{EventStream, RawClient};
use mcp_courier_testing::redis_server::RedisServer;
use reqwest::StatusCode;
use rmcp::ServiceExt;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::StreamableHttpClientTransport;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::chat::Told;

/// Connects a worker in this process.
async fn publisher(redis: &RedisServer) -> Publisher {
    Publisher::connect(&redis.url(), Config::default()).await.unwrap()
}

/// Pushes notifications with the data `{"n": 1}`, `{"n": 2}` and so on, for each of these numbers, all at once.
async fn push_numbered(publisher: &Publisher, session: &SessionId, numbers: RangeInclusive<usize>) {
    let numbered =
        numbers.map(|n| (session.clone(), Notification::message(LoggingLevel::Info, Some("worker"), json!({"n": n}))));
    for pushed in publisher.push_many(numbered).await {
        pushed.unwrap();
    }
}

async fn join(client: &RawClient, name: &str) {
    let joined = client.call_tool("join", json!({"room": "r", "name": name})).await;
    assert_eq!(joined["isError"], false, "{joined}");
}

async fn members(client: &RawClient) -> Value {
    client.call_tool("who", json!({"room": "r"})).await["structuredContent"]["members"].clone()
}

async fn say(client: &RawClient, text: &str) {
    let said = client.call_tool("say", json!({"room": "r", "text": text})).await;
    assert_eq!(said["isError"], false, "{said}");
}

async fn hears(stream: &mut EventStream, text: &str) {
    let next = stream.next_notification().await.expect("a notification");
    assert_eq!(next["params"]["data"]["text"], text, "{next}");
}

#[tokio::test]
async fn g8_sigterm_ends_a_server_cleanly_and_its_members_go_on_at_another() {
    let redis = RedisServer::start();
    let args = ["--redis", &redis.url(), "--member-ttl", "5"];
    let (one, mut other) = (ChatProcess::start(&args).await, ChatProcess::start(&args).await);
    let (a, b) = (RawClient::connect(&one.url).await, RawClient::connect(&other.url).await);
    let (mut a_hears, mut b_hears) = (a.open_stream().await, b.open_stream().await);
    join(&a, "a").await;
    join(&b, "b").await;
    let began = Instant::now();
    assert_eq!(other.terminate().await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
    b_hears.ended().await;
    // Released, so that whoever has its next stream takes over at once.
    let lease = format!("{{mcp-courier:notifications:{}}}:lease", b.session_id());
    let mut connection = redis.connection().await;
    let leases: usize = redis::cmd("EXISTS").arg(lease).query_async(&mut connection).await.unwrap();
    assert_eq!(leases, 0);
    say(&a, "are you still there?").await;
    hears(&mut a_hears, "are you still there?").await;
    let b = b.at(&one.url);
    let mut b_hears = b.open_stream().await;
    hears(&mut b_hears, "are you still there?").await;
    // And stays, for longer than whom nobody keeps.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(7) {
        assert_eq!(members(&a).await, json!(["a", "b"]));
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    say(&b, "yes").await;
    hears(&mut a_hears, "yes").await;
}

#[tokio::test]
async fn g2_a_client_whose_server_is_killed_while_it_drains_gets_the_rest_in_order_at_another() {
    let redis = RedisServer::start();
    let args = ["--redis", &redis.url()];
    let (mut one, other) = (ChatProcess::start(&args).await, ChatProcess::start(&args).await);
    let client = RawClient::connect(&one.url).await;
    let mut stream = client.open_stream().await;
    let publisher = publisher(&redis).await;
    let session = SessionId::new(client.session_id()).unwrap();
    push_numbered(&publisher, &session, 1..=3000).await;
    let (mut ids, mut got) = (Vec::new(), Vec::new());
    let mut take = |notification: Value| {
        let id = notification["params"]["_meta"]["mcp-courier/id"].clone();
        if !ids.contains(&id) {
            ids.push(id);
            got.push(notification["params"]["data"]["n"].as_u64().unwrap());
        }
        got.len()
    };
    for _ in 0..1234 {
        take(stream.next_notification().await.unwrap());
    }
    one.kill();
    while let Some(notification) = stream.next_notification().await {
        take(notification);
    }
    // A fast client may have confirmed all before the kill. The other server has something to deliver in any case.
    push_numbered(&publisher, &session, 3001..=3100).await;
    let mut stream = client.at(&other.url).open_stream().await;
    while take(stream.next_notification().await.unwrap()) < 3100 {}
    assert_eq!(got, (1..=3100).collect::<Vec<_>>());
}

#[tokio::test]
async fn g3_nothing_comes_twice_to_an_rmcp_client_whose_servers_are_killed() {
    const BURST: usize = 50;
    let redis = RedisServer::start();
    let args = ["--redis", &redis.url()];
    let mut fleet = Vec::new();
    for _ in 0..6 {
        fleet.push(ChatProcess::start(&args).await);
    }
    let ports: Vec<u16> = fleet.iter().map(ChatProcess::port).collect();
    let way = Forwarder::to(ports[0]);
    let (sender, mut told) = mpsc::unbounded_channel();
    let transport = StreamableHttpClientTransport::from_uri(format!("http://127.0.0.1:{}/mcp", way.port()));
    let client = Told(sender).serve(transport).await.unwrap();
    let session = client.call_tool(CallToolRequestParams::new("session_id")).await.unwrap();
    let session = session.structured_content.unwrap()["session_id"].as_str().unwrap().parse().unwrap();
    let publisher = publisher(&redis).await;
    let mut numbers = Vec::new();
    let mut take = async |count: usize| {
        for _ in 0..count {
            let next = tokio::time::timeout(Duration::from_secs(20), told.recv()).await.expect("in time").unwrap();
            numbers.push(next["n"].as_u64().unwrap());
        }
    };
    for (n, server) in fleet.iter_mut().enumerate() {
        push_numbered(&publisher, &session, 1..=BURST).await;
        take(BURST / 2).await;
        // The client comes back at once.
        if let Some(next) = ports.get(n + 1) {
            way.lead_to(*next);
            server.kill();
        }
        take(BURST / 2).await;
    }
    // As many as were pushed: whatever came twice would take the place of another, or be one more.
    let more = tokio::time::timeout(Duration::from_millis(500), told.recv()).await;
    assert!(more.is_err(), "more came: {more:?}");
    // It handles each notification in a task of its own, so neighbours may change places.
    numbers.sort_unstable();
    assert!(numbers.chunks(fleet.len()).zip(1..).all(|(same, n)| same == vec![n; fleet.len()]), "{numbers:?}");
}

#[tokio::test]
async fn a_session_that_its_client_ends_anywhere_leaves_its_rooms() {
    let redis = RedisServer::start();
    let args = ["--redis", &redis.url()];
    let (one, other) = (ChatProcess::start(&args).await, ChatProcess::start(&args).await);
    let (a, b) = (RawClient::connect(&one.url).await, RawClient::connect(&one.url).await);
    join(&a, "a").await;
    join(&b, "b").await;
    // The other has never seen it.
    assert_eq!(b.at(&other.url).delete().await, StatusCode::NO_CONTENT);
    eventually("b has left", SOON, async || members(&a).await == json!(["a"])).await;
}

#[tokio::test]
async fn with_tokens_a_session_is_its_users_alone() {
    let redis = RedisServer::start();
    let args = ["--redis", &redis.url(), "--token", "alice=a-secret", "--token", "mallory=another"];
    let (one, other) = (ChatProcess::start(&args).await, ChatProcess::start(&args).await);
    for stranger in [RawClient::attach(&one.url, "s"), RawClient::attach(&one.url, "s").with_token("invented")] {
        assert_eq!(stranger.open_stream_after(None).await.unwrap_err(), StatusCode::UNAUTHORIZED);
    }
    let alice = RawClient::connect_as(&one.url, "a-secret").await;
    let mut stream = alice.open_stream().await;
    join(&alice, "alice").await;
    let mallory = RawClient::attach(&other.url, alice.session_id()).with_token("another");
    assert_eq!(mallory.open_stream_after(None).await.unwrap_err(), StatusCode::NOT_FOUND);
    assert_eq!(mallory.delete().await, StatusCode::NO_CONTENT, "and does nothing");
    let publisher = publisher(&redis).await;
    let push = async |user: &str, text: &str| {
        let session = SessionId::new(alice.session_id()).unwrap().bound_to(Principal::new(user).unwrap());
        let notification = Notification::message(LoggingLevel::Info, None, json!({"text": text}));
        publisher.push(&session, notification).await.unwrap();
    };
    push("mallory", "from mallory's worker").await;
    push("alice", "from alice's worker").await;
    hears(&mut stream, "from alice's worker").await;
    say(&alice.at(&other.url), "said at the other server").await;
    hears(&mut stream, "said at the other server").await;
}
