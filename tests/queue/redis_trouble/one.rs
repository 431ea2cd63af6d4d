//! Troubles that one subscriber suffices to show.

use std::time::Duration;

use mcp_courier::{ConfigBuilder, Courier, Delivery, ListSubscribers, SessionId, SubscriberState};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::log;
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;

async fn courier(redis: &RedisServer, config: ConfigBuilder) -> Courier {
    log::begin();
    Courier::start(&redis.url(), config.build().unwrap()).await.unwrap()
}

async fn command(redis: &RedisServer, words: &[&str]) {
    let mut connection = redis.connection().await;
    redis::cmd(words[0]).arg(&words[1..]).exec_async(&mut connection).await.unwrap();
}

async fn is(courier: &Courier, state: SubscriberState) -> bool {
    courier.supervisor().send(ListSubscribers).await.unwrap().iter().all(|info| info.state == state)
}

#[actix::test]
async fn a_subscriber_that_pauses_after_a_failure_holds_no_connection() {
    in_own_process!();
    let redis = RedisServer::start();
    let pauses = waiting::config().backoff_initial(Duration::from_secs(600)).backoff_max(Duration::from_secs(600));
    let courier = courier(&redis, pauses).await;
    let before = redis.connected_clients().await;
    let id = SessionId::new("pauses").unwrap();
    command(&redis, &["SET", "mcp-courier:notifications:pauses", "something else"]).await;
    courier.ensure_subscriber(&id, Recorder::new()).await.unwrap();
    eventually("a pause", SOON, async || is(&courier, SubscriberState::BackingOff).await).await;
    // That of its arbiter stays for the others.
    let shared = usize::from(waiting::is_shared());
    eventually("no connection of its own", SOON, async || redis.connected_clients().await <= before + shared).await;
}

#[actix::test]
async fn a_long_trouble_fills_no_log() {
    in_own_process!();
    let redis = RedisServer::start();
    let often = waiting::config().backoff_initial(Duration::from_millis(1)).backoff_max(Duration::from_millis(5));
    let courier = courier(&redis, often).await;
    let id = SessionId::new("troubled").unwrap();
    command(&redis, &["SET", "mcp-courier:notifications:troubled", "something else"]).await;
    courier.ensure_subscriber(&id, Recorder::new()).await.unwrap();
    // Each attempt connects, or reads over the shared connection.
    let attempt = if waiting::is_shared() { "lrange" } else { "hello" };
    eventually("many attempts", SOON * 3, async || redis.calls().await.get(attempt).copied().unwrap_or(0) > 150).await;
    let said = log::lines(&["WARN", "troubled"]);
    assert!((3..=10).contains(&said.len()), "{} lines: {said:#?}", said.len());
}

#[actix::test]
async fn where_it_is_at_most_once_a_wait_that_ends_is_the_end_of_a_trouble_too() {
    in_own_process!();
    let redis = RedisServer::start();
    // No wait is longer than a heartbeat.
    let config = waiting::config().delivery(Delivery::AtMostOnce).heartbeat(Duration::from_secs(1));
    let courier = courier(&redis, config).await;
    let id = SessionId::new("atmost").unwrap();
    courier.ensure_subscriber(&id, Recorder::new()).await.unwrap();
    eventually("a wait", SOON, async || {
        // A shared wait blocks nothing in Redis.
        is(&courier, SubscriberState::Waiting).await
            && redis.blocked_clients().await == usize::from(!waiting::is_shared())
    })
    .await;
    command(&redis, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    eventually("a word of the end in the log", SOON, async || {
        !log::lines(&["atmost", "INFO", "the subscriber is at work again"]).is_empty()
    })
    .await;
}
