//! Changes that Redis tells of, late, all at once, or not at all.

use std::time::{Duration, Instant};

use mcp_courier::{Courier, ListSubscribers, SubscriberState};
use mcp_courier_testing::eventually::eventually;
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::log;
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;

use super::place::{NEVER, PROMPT, Place, RECOVERY, numbered, shared};

#[actix::test]
async fn g4_a_takeover_is_noticed_through_the_lease_long_before_the_heartbeat() {
    let mut place = Place::new(20, shared().heartbeat(NEVER)).await;
    place.flows_at_once().await;
    place.until_all_acknowledged().await;
    let other = Courier::start(&place.redis.url(), shared().heartbeat(NEVER).build().unwrap()).await.unwrap();
    let (id, recorder) = place.sessions.pop().unwrap();
    let next = Recorder::new();
    other.ensure_subscriber(&id, next.clone()).await.unwrap();
    eventually("the old owner stands by", PROMPT, async || {
        let infos = place.courier.supervisor().send(ListSubscribers).await.unwrap();
        infos.iter().any(|info| info.session == id && info.state == SubscriberState::StandingBy)
    })
    .await;
    place.publisher().push(&id, numbered(1)).await.unwrap();
    next.until_taken(1).await;
    assert_eq!((recorder.taken(), next.taken()), (vec![0], vec![1]));
    place.flows_at_once().await;
    other.shutdown(PROMPT).await;
}

#[actix::test]
async fn a_foreign_push_wakes_a_shared_session_too() {
    let mut place = Place::new(3, shared().heartbeat(NEVER)).await;
    let message = r#"{"notification":{"method":"notifications/x","params":{"n":7}},"attempt":0}"#;
    let _: usize = place.redis(&["LPUSH", "mcp-courier:notifications:session-1", message]).await;
    tokio::time::timeout(PROMPT, place.recorder(1).until_taken(1)).await.expect("at once");
    assert_eq!(place.recorder(1).taken(), [7]);
}

#[actix::test]
async fn after_a_flush_all_own_their_sessions_again_at_once() {
    let mut place = Place::new(100, shared().heartbeat(NEVER)).await;
    place.flows_at_once().await;
    let _: () = place.redis(&["FLUSHALL"]).await;
    let begun = Instant::now();
    while place.redis::<Vec<String>>(&["KEYS", "*:lease"]).await.len() < place.sessions.len() {
        assert!(begun.elapsed() < PROMPT, "leases are still missing");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    place.flows_at_once().await;
}

#[actix::test]
async fn g2_a_table_of_tracked_keys_that_is_full_leaves_no_session_stuck() {
    let redis = RedisServer::with(&["--tracking-table-max-keys", "100"]);
    // Each heartbeat reads all of them: few enough for a busy machine, and more than the table holds.
    let mut place = Place::with(redis, 300, shared().heartbeat(Duration::from_secs(2))).await;
    for _ in 0..3 {
        place.flows().await;
    }
}

#[actix::test]
async fn g4_a_takeover_is_noticed_before_the_next_delivery_though_the_table_of_tracked_keys_is_full() {
    let redis = RedisServer::with(&["--tracking-table-max-keys", "1"]);
    let mut place = Place::with(redis, 20, shared().heartbeat(NEVER / 10)).await;
    // What Redis forgets to tell, the new owners find by their heartbeat.
    let config = shared().heartbeat(Duration::from_secs(1)).build().unwrap();
    let other = Courier::start(&place.redis.url(), config).await.unwrap();
    let taken_over: Vec<_> = (0..5).map(|_| place.sessions.pop().unwrap()).collect();
    for (id, recorder) in &taken_over {
        let next = Recorder::new();
        other.ensure_subscriber(id, next.clone()).await.unwrap();
        place.publisher().push(id, numbered(0)).await.unwrap();
        next.until_taken(1).await;
        assert_eq!(recorder.offered(), Vec::<i64>::new(), "{id:?}");
    }
    let _: () = place.redis(&["CONFIG", "SET", "tracking-table-max-keys", "0"]).await;
    other.shutdown(PROMPT).await;
}

#[actix::test]
async fn a_server_that_refuses_tracking_is_polled_and_the_log_says_so_once() {
    in_own_process!();
    log::begin();
    let redis = RedisServer::start();
    let mut raw = redis.connection().await;
    let rules = ["ACL", "SETUSER", "untracked", "on", ">secret", "~*", "&*", "+@all", "-client|tracking"];
    let () = redis::cmd(rules[0]).arg(&rules[1..]).query_async(&mut raw).await.unwrap();
    let url = redis.url().replace("redis://", "redis://untracked:secret@");
    let config = shared().heartbeat(Duration::from_secs(1));
    let mut place = Place::at(&url, redis, 100, config.clone()).await;
    for _ in 0..3 {
        place.push().await;
        tokio::time::timeout(RECOVERY, place.until_all_taken()).await.expect("within a bounded time");
    }
    let said = log::lines(&["WARN", "tracking"]);
    assert_eq!(said.len(), 1, "{said:#?}");
    // A takeover shows by the next read.
    place.until_all_acknowledged().await;
    let other = Courier::start(&url, config.build().unwrap()).await.unwrap();
    let (id, recorder) = place.sessions.pop().unwrap();
    let next = Recorder::new();
    other.ensure_subscriber(&id, next.clone()).await.unwrap();
    eventually("the new owner has claimed", PROMPT, async || {
        let infos = other.supervisor().send(ListSubscribers).await.unwrap();
        infos.iter().all(|info| info.state == SubscriberState::Waiting)
    })
    .await;
    place.publisher().push(&id, numbered(3)).await.unwrap();
    next.until_taken(1).await;
    assert_eq!((recorder.taken(), next.taken()), (vec![0, 1, 2], vec![3]));
    other.shutdown(PROMPT).await;
}
