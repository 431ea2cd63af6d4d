//! Sessions of a fleet where things go wrong between two steps: real servers over one Redis, or rmcp's own calls in an order
//! that HTTP gives them only now and then.
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mcp_courier::{
    ConfigBuilder, Courier, ListSubscribers, Notification, Principal, Publisher, SessionId, SessionManagerBuilder,
    SubscriberState, acting_as,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::mcp_server::{Handler, McpServer};
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use reqwest::StatusCode;
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

/// Sooner than any gate opens by itself.
const AT_ONCE: Duration = Duration::from_secs(5);

type Ended = Arc<Mutex<Vec<SessionId>>>;

fn config() -> ConfigBuilder {
    waiting::config().backoff_initial(Duration::from_millis(5)).backoff_max(Duration::from_millis(100))
}

async fn manager(redis: &RedisServer) -> (Courier, SessionManagerBuilder<LocalSessionManager>, Ended) {
    let courier = Courier::start(&redis.url(), config().build().unwrap()).await.unwrap();
    let ended = Ended::default();
    let heard = Arc::clone(&ended);
    let manager = courier.session_manager();
    let manager = manager.on_session_end(move |session| heard.lock().unwrap().push(session.clone()));
    (courier, manager, ended)
}

async fn server(redis: &RedisServer) -> (McpServer, Ended) {
    let (courier, manager, ended) = manager(redis).await;
    (McpServer::of_fleet(courier, manager), ended)
}

fn id(client: &RawClient) -> SessionId {
    SessionId::new(client.session_id()).unwrap()
}

async fn push(publisher: &Publisher, session: &SessionId, n: usize) {
    let notification = Notification::new("notifications/x").unwrap().with_params(json!({ "n": n })).unwrap();
    publisher.push(session, notification).await.unwrap();
}

fn ping() -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "ping"})
}

#[actix::test]
async fn who_comes_while_anothers_session_is_restored_gets_nothing_of_it_and_disturbs_nothing() {
    let redis = RedisServer::start();
    let (a, _) = server(&redis).await;
    for round in 0..15 {
        let (b, _) = server(&redis).await;
        let alice = RawClient::connect_as(&a.url, "alice").await.at(&b.url);
        let mallory = alice.with_token("mallory");
        let message = ping();
        let of_alice = futures_util::future::join_all((0..4).map(|_| alice.send(&message)));
        let of_mallory = futures_util::future::join_all((0..4).map(|_| mallory.send(&message)));
        let streams = futures_util::future::join_all((0..4).map(|_| mallory.open_stream_after(None)));
        // Each of them first, now and then.
        let (of_alice, of_mallory, streams) = if round % 2 == 0 {
            futures_util::join!(of_alice, of_mallory, streams)
        } else {
            let (of_mallory, streams, of_alice) = futures_util::join!(of_mallory, streams, of_alice);
            (of_alice, of_mallory, streams)
        };
        assert!(of_alice.iter().all(StatusCode::is_success), "round {round}: {of_alice:?}");
        assert!(!of_mallory.iter().any(StatusCode::is_success), "round {round}: {of_mallory:?}");
        assert!(streams.iter().all(Result::is_err), "round {round}: mallory has a stream of hers");
    }
}

#[actix::test]
async fn nothing_is_done_in_a_session_for_another_than_its_user() {
    let redis = RedisServer::start();
    let (_courier, manager, _) = manager(&redis).await;
    let manager = manager.build();
    let user = |name: &str| Some(Principal::new(name).unwrap());
    let (id, _transport) = acting_as(user("alice"), manager.create_session()).await.unwrap();
    for who in [user("mallory"), None] {
        let message = || serde_json::from_value(ping()).unwrap();
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let initialized = serde_json::from_value(initialized).unwrap();
        assert!(acting_as(who.clone(), manager.create_stream(&id, message())).await.is_err());
        assert!(acting_as(who.clone(), manager.accept_message(&id, initialized)).await.is_err());
        assert!(acting_as(who.clone(), manager.create_standalone_stream(&id)).await.is_err());
        assert!(acting_as(who, manager.resume(&id, "0".to_owned())).await.is_err());
    }
}

#[actix::test]
async fn an_impossible_session_id_is_of_no_session() {
    let redis = RedisServer::start();
    let (a, _) = server(&redis).await;
    let client = RawClient::attach(&a.url, &"x".repeat(300));
    assert_eq!(client.open_stream_after(None).await.unwrap_err(), StatusCode::NOT_FOUND);
    assert_eq!(client.send(&ping()).await, StatusCode::NOT_FOUND);
}

#[actix::test]
async fn where_the_store_is_not_mounted_unknown_sessions_hold_nobody_up() {
    let redis = RedisServer::start();
    let (_courier, manager, _) = manager(&redis).await;
    let manager = manager.store_sessions(|| Ok(Handler::default())).build();
    let begun = Instant::now();
    for _ in 0..3 {
        assert!(!manager.has_session(&"unknown".into()).await.unwrap());
    }
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[actix::test]
async fn a_restore_for_which_there_is_no_service_is_tried_again() {
    let redis = RedisServer::start();
    let ((a, _), (b, _)) = (server(&redis).await, server(&redis).await);
    let client = RawClient::connect(&a.url).await.at(&b.url);
    b.is_out_of_service.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    for _ in 0..3 {
        assert_eq!(client.send(&ping()).await, StatusCode::INTERNAL_SERVER_ERROR);
    }
    b.is_out_of_service.store(false, Ordering::Relaxed);
    assert_eq!(client.send(&ping()).await, StatusCode::OK);
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
}

#[actix::test]
async fn a_request_that_comes_as_its_session_ends_leaves_nothing() {
    let redis = RedisServer::start();
    let (_courier, manager, _) = manager(&redis).await;
    let manager = manager.build();
    let ended = "ended".into();
    assert!(manager.create_stream(&ended, serde_json::from_value(ping()).unwrap()).await.is_err());
    assert!(manager.create_standalone_stream(&ended).await.is_err());
    assert!(format!("{manager:?}").contains("sessions: 0"), "{manager:?}");
}

#[actix::test]
async fn the_end_of_a_session_is_told_once_however_often_it_is_ended() {
    let redis = RedisServer::start();
    let ((a, at_a), (b, at_b)) = (server(&redis).await, server(&redis).await);
    let (first, last) = (RawClient::connect(&a.url).await, RawClient::connect(&b.url).await);
    for url in [&a.url, &b.url, &a.url] {
        assert_eq!(first.at(url).delete().await, StatusCode::NO_CONTENT);
    }
    last.delete().await;
    for ended in [at_a, at_b] {
        eventually("the last one", SOON, async || ended.lock().unwrap().contains(&id(&last))).await;
        assert_eq!(*ended.lock().unwrap(), [id(&first), id(&last)]);
    }
}

#[actix::test]
async fn a_callback_that_panics_stops_nothing_else() {
    let redis = RedisServer::start();
    let (a, _) = server(&redis).await;
    let courier = Courier::start(&redis.url(), config().build().unwrap()).await.unwrap();
    let manager = courier.session_manager().on_session_end(|_| panic!("on purpose"));
    let b = McpServer::of_fleet(courier, manager);
    let clients = [RawClient::connect(&b.url).await, RawClient::connect(&b.url).await];
    for client in clients {
        let mut stream = client.open_stream().await;
        assert_eq!(client.at(&a.url).delete().await, StatusCode::NO_CONTENT);
        stream.ended().await;
    }
}

#[actix::test]
async fn news_that_were_lost_are_made_up_for_as_soon_as_news_come_again() {
    let redis = RedisServer::start();
    let (a, _) = server(&redis).await;
    let client = RawClient::connect(&a.url).await;
    let mut stream = client.open_stream().await;
    // It ends elsewhere, and A does not hear of it.
    let key = format!("mcp-courier:session:{}", client.session_id());
    redis.command::<String>(&["SET", &key, "", "PX", "100000"]).await;
    redis.command::<usize>(&["CLIENT", "KILL", "TYPE", "PUBSUB"]).await;
    stream.ended().await;
}

#[actix::test]
async fn a_redis_that_comes_back_without_its_data_is_told_of_sessions_at_once() {
    let mut redis = RedisServer::start();
    let ((a, _), (b, _)) = (server(&redis).await, server(&redis).await);
    let client = RawClient::connect(&a.url).await;
    redis.start_again();
    eventually("the session at B", SOON, async || client.at(&b.url).open_stream_after(None).await.is_ok()).await;
}

#[actix::test]
async fn a_client_that_hangs_up_behind_its_delete_has_ended_its_session() {
    let redis = RedisServer::start();
    let ((a, _), (b, _)) = (server(&redis).await, server(&redis).await);
    for round in 0..20_u64 {
        let client = RawClient::connect(&a.url).await;
        let address = b.url.strip_prefix("http://").unwrap().split('/').next().unwrap();
        let mut connection = tokio::net::TcpStream::connect(address).await.unwrap();
        let session = client.session_id();
        let delete = format!("DELETE /mcp HTTP/1.1\r\nhost: {address}\r\nmcp-session-id: {session}\r\n\r\n");
        connection.write_all(delete.as_bytes()).await.unwrap();
        // The server has it, and is somewhere on its way.
        tokio::time::sleep(Duration::from_micros(100 * round)).await;
        drop(connection);
        if round > 4 {
            eventually("its end", SOON, async || client.open_stream_after(None).await.is_err()).await;
        }
    }
}

#[actix::test]
async fn a_delete_while_redis_is_down_is_made_up_for() {
    let mut redis = RedisServer::durable();
    let ((a, _), (b, at_b)) = (server(&redis).await, server(&redis).await);
    let (client, at_both) = (RawClient::connect(&a.url).await, RawClient::connect(&a.url).await);
    let mut stream = at_both.at(&b.url).open_stream().await;
    redis.kill();
    client.delete().await;
    at_both.delete().await;
    redis.start_again();
    let patience = Duration::from_secs(30);
    for client in [&client, &at_both] {
        eventually("its end", patience, async || {
            client.at(&b.url).open_stream_after(None).await.is_err_and(|status| status == StatusCode::NOT_FOUND)
        })
        .await;
    }
    stream.ended().await;
    // Of the other, which B has not served, B need not hear where the news of its end are lost.
    eventually("it is told", patience, async || at_b.lock().unwrap().contains(&id(&at_both))).await;
}

#[actix::test]
async fn the_older_stream_at_another_server_goes_on_when_the_newer_ends() {
    let redis = RedisServer::start();
    let member = async || {
        let config = config().heartbeat(Duration::from_millis(300)).build().unwrap();
        let courier = Courier::start(&redis.url(), config).await.unwrap();
        let manager = courier.session_manager();
        McpServer::of_fleet(courier, manager)
    };
    let (a, b) = (member().await, member().await);
    let client = RawClient::connect(&a.url).await;
    let mut older = client.open_stream().await;
    // Of two open claims the one that Redis sees last wins. This test is about the steps after that.
    eventually("an owner at the first server", SOON, async || {
        let infos = a.courier.supervisor().send(ListSubscribers).await.unwrap();
        infos.iter().any(|info| info.state == SubscriberState::Waiting)
    })
    .await;
    let mut newer = client.at(&b.url).open_stream().await;
    push(&a.courier.publisher(), &id(&client), 1).await;
    assert_eq!(newer.next_notification().await.unwrap()["params"]["n"], 1);
    drop(newer);
    push(&a.courier.publisher(), &id(&client), 2).await;
    let mut next = older.next_notification().await.unwrap();
    if next["params"]["n"] == 1 {
        next = older.next_notification().await.unwrap();
    }
    assert_eq!(next["params"]["n"], 2);
}

#[actix::test]
async fn while_redis_does_not_answer_no_session_is_denied() {
    let redis = RedisServer::start();
    let ((a, _), (b, _)) = (server(&redis).await, server(&redis).await);
    let client = RawClient::connect(&a.url).await.at(&b.url);
    redis.signal("-STOP");
    let message = ping();
    let mut statuses = Vec::new();
    for pause in [0, 1000] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        statuses.extend(futures_util::future::join_all((0..5).map(|_| client.send(&message))).await);
    }
    redis.signal("-CONT");
    assert!(statuses.iter().all(|status| *status != StatusCode::NOT_FOUND), "{statuses:?}");
    eventually("the session", SOON, async || client.send(&message).await == StatusCode::OK).await;
}
