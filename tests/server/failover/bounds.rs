//! Bounds of what clients, and anybody who may publish in Redis, can make a fleet store or do, even with bad intent
//! (G6).

use mcp_courier::testing::backend::ProcessId;
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::log;
use mcp_courier_testing::mcp_server::Handler;
use rmcp::transport::streamable_http_server::session::SessionManager;

use super::*;

/// Sends `initialize`; returns the status, the session id if there is one, and the body.
async fn introduce(url: &str, client_info: Value) -> (StatusCode, Option<String>, String) {
    let request = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params":
        {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client_info}});
    let sent = reqwest::Client::new().post(url).header("accept", "application/json, text/event-stream");
    let sent = sent.header("content-type", "application/json").body(request.to_string()).send();
    let response = sent.await.unwrap();
    let id = response.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
    (response.status(), id, response.text().await.unwrap())
}

async fn sessions_in_redis(redis: &RedisServer) -> Vec<String> {
    redis.command(&["KEYS", "mcp-courier:session:*"]).await
}

async fn is_remembered(redis: &RedisServer, client: &RawClient) -> bool {
    redis.command::<usize>(&["STRLEN", &format!("mcp-courier:session:{}", client.session_id())]).await > 0
}

/// Serves a fleet of one, with a round of its housekeeping each half second.
async fn with_rounds(redis: &RedisServer, config: ConfigBuilder) -> Member {
    Member::with(redis, config, Duration::from_secs(2)).await
}

#[actix::test]
async fn g6_what_a_client_says_of_itself_is_kept_within_a_bound_or_refused() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let large = "x".repeat(1_000_000);
    let icons = json!({"name": "c", "version": "1", "icons": [{"src": format!("data:image/png;base64,{large}")}]});
    let (status, session, _) = introduce(&a.url, icons).await;
    assert_eq!(status, StatusCode::OK);
    let session = session.unwrap();
    let kept: usize = redis.command(&["STRLEN", &format!("mcp-courier:session:{session}")]).await;
    assert!((1..1000).contains(&kept), "{kept} bytes are kept");
    // Without its icon the client continues at any server.
    assert!(ping(&RawClient::attach(&b.url, &session)).await["error"].is_null());
    let (status, session, body) = introduce(&a.url, json!({"name": large, "version": "1"})).await;
    assert_eq!((status, session), (StatusCode::INTERNAL_SERVER_ERROR, None));
    assert!(body.contains("session_state_max_bytes (65536)"), "{body}");
    assert_eq!(sessions_in_redis(&redis).await.len(), 1, "nothing is left of it");
}

#[actix::test]
async fn g6_the_longest_idle_session_makes_room_and_where_none_is_idle_the_next_is_refused() {
    let redis = RedisServer::start();
    let a = Member::with(&redis, config().session_limit(3), Duration::from_secs(300)).await;
    let (first, second) = (RawClient::connect(&a.url).await, RawClient::connect(&a.url).await);
    let _open = first.open_stream().await;
    let _third = RawClient::connect(&a.url).await;
    // The second has been idle for longest: the first has a stream.
    let fourth = RawClient::connect(&a.url).await;
    eventually("four have begun", SOON, async || a.initialized() == 4).await;
    assert!(ping(&first).await["error"].is_null());
    assert_eq!(a.initialized(), 4, "the first is still there");
    // It ended here only. It comes back, in the place of another that is idle.
    let _open = (_open, second.open_stream().await);
    eventually("it is restored", SOON, async || a.initialized() == 5).await;
    let _open = (_open, fourth.open_stream().await);
    let (status, session, body) = introduce(&a.url, json!({"name": "c", "version": "1"})).await;
    assert_eq!((status, session), (StatusCode::SERVICE_UNAVAILABLE, None));
    assert!(body.contains("session_limit (3)"), "{body}");
    assert!(ping(&first).await["error"].is_null() && ping(&second).await["error"].is_null());
}

#[actix::test]
async fn g6_a_delete_of_a_session_that_never_was_leaves_nothing_behind() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let client = RawClient::connect(&a.url).await;
    for n in 0..50 {
        assert_eq!(RawClient::attach(&a.url, &format!("never-was-{n}")).delete().await, StatusCode::NO_CONTENT);
    }
    assert_eq!(sessions_in_redis(&redis).await.len(), 1, "that of the client that is there");
    assert!(a.ended.lock().unwrap().is_empty());
    // At a server that never saw the session, its end is the end for all.
    assert_eq!(client.at(&b.url).delete().await, StatusCode::NO_CONTENT);
    eventually("its end at A", SOON, async || *a.ended.lock().unwrap() == [id(&client)]).await;
    assert_eq!(client.open_stream_after(None).await.unwrap_err(), StatusCode::NOT_FOUND);
}

#[actix::test]
async fn a_session_in_use_that_redis_forgot_is_stored_again_within_a_round() {
    let redis = RedisServer::start();
    let a = with_rounds(&redis, config()).await;
    let client = RawClient::connect(&a.url).await;
    let _stream = client.open_stream().await;
    for _ in 0..3 {
        assert!(is_remembered(&redis, &client).await);
        redis.command::<()>(&["DEL", &format!("mcp-courier:session:{}", client.session_id())]).await;
        eventually("it is stored again", SOON, async || is_remembered(&redis, &client).await).await;
    }
}

#[actix::test]
async fn g6_a_full_redis_stores_no_sessions_and_learns_of_ends() {
    let redis = RedisServer::start();
    let (a, b) = (with_rounds(&redis, config()).await, with_rounds(&redis, config()).await);
    let known = RawClient::connect(&a.url).await;
    let mut stream = known.open_stream().await;
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let unknown = RawClient::connect(&a.url).await;
    let _open = unknown.open_stream().await;
    assert!(ping(&unknown).await["error"].is_null(), "it is served");
    assert!(!is_remembered(&redis, &unknown).await);
    assert_eq!(known.at(&b.url).delete().await, StatusCode::NO_CONTENT);
    stream.ended().await;
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    eventually("it is stored", SOON, async || is_remembered(&redis, &unknown).await).await;
}

#[actix::test]
async fn g6_g7_forged_news_end_no_session_and_hold_nothing_up() {
    let redis = RedisServer::start();
    let (a, b) = (Member::start(&redis).await, Member::start(&redis).await);
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream().await;
    let publisher = a.courier.publisher();
    push(&publisher, &id(&client), 0..1).await;
    assert_eq!(numbers(&mut stream, 1).await, [0]);
    let begun = Instant::now();
    let mut connection = redis.connection().await;
    for round in 0..30 {
        let mut pipe = redis::pipe();
        for n in 0..1000 {
            let forged = match n % 4 {
                0 => format!("ended {} {}", id(&client), ProcessId::new()),
                1 => format!("ended never-was-{round}-{n} {}", ProcessId::new()),
                2 => format!("confirmed {} {n}", id(&client)),
                _ => "x".repeat(20_000),
            };
            pipe.cmd("PUBLISH").arg("mcp-courier:news").arg(forged).ignore();
        }
        pipe.exec_async(&mut connection).await.unwrap();
        push(&publisher, &id(&client), round + 1..round + 2).await;
        assert_eq!(numbers(&mut stream, 1).await, [round + 1], "its stream goes on");
    }
    println!("30,000 forged news took {:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(30));
    // What really ends is heard of behind all that.
    assert_eq!(client.at(&b.url).delete().await, StatusCode::NO_CONTENT);
    stream.ended().await;
    eventually("its end at A", SOON, async || *a.ended.lock().unwrap() == [id(&client)]).await;
}

#[actix::test]
async fn no_log_line_of_the_crate_has_a_whole_session_id() {
    in_own_process!();
    log::begin_with("mcp_courier=trace");
    let redis = RedisServer::start();
    let a = Member::with(&redis, config().session_limit(2), Duration::from_millis(200)).await;
    let b = Member::start(&redis).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let client = RawClient::connect(&a.url).await;
        push(&a.courier.publisher(), &id(&client), 0..1).await;
        let mut stream = client.open_stream().await;
        assert_eq!(numbers(&mut stream, 1).await, [0]);
        drop(stream);
        clients.push(client);
    }
    let mut stream = clients[2].at(&b.url).open_stream_after(Some("0")).await.unwrap();
    stream.ended().await;
    redis.command::<()>(&["CLIENT", "PAUSE", "1", "ALL"]).await;
    clients[2].at(&b.url).delete().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!log::lines(&["mcp_courier"]).is_empty(), "nothing was logged");
    for client in &clients {
        assert_eq!(log::lines(&[client.session_id()]), [""; 0]);
    }
}

#[actix::test]
async fn a_manager_that_is_dropped_listens_no_more() {
    let redis = RedisServer::start();
    let courier = Courier::start(&redis.url(), config().build().unwrap()).await.unwrap();
    let listening = async || redis.command::<Vec<String>>(&["PUBSUB", "CHANNELS", "*news*"]).await.len();
    let manager = courier.session_manager().store_sessions(|| Ok(Handler::default())).build();
    assert!(!manager.has_session(&"unknown".into()).await.unwrap());
    eventually("the manager listens", SOON, async || listening().await > 0).await;
    drop(manager);
    // Nothing happens in the fleet.
    eventually("its connection is closed", SOON, async || listening().await == 0).await;
}
