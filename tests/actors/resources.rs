//! Threads, descriptors and connections that a stopped or parked subscriber gives back. Each test counts those of a process
//! of its own.

use std::time::Duration;

use mcp_courier::{Config, Courier, GetSubscriberCount, Notification, SessionId};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::process::Process;
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use serde_json::json;

fn threads_and_descriptors() -> (u64, u64) {
    (Process::this().threads(), Process::this().descriptors())
}

/// Until no more threads and descriptors are open than before. The threads that waited for the ends of others end by
/// themselves, after a while of idleness.
async fn until_given_back(before: (u64, u64)) {
    let mut after = threads_and_descriptors();
    for _ in 0..600 {
        if after.0 <= before.0 && after.1 <= before.1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        after = threads_and_descriptors();
    }
    panic!("before {before:?}, after {after:?}");
}

#[actix::test]
async fn g6_a_hundred_parked_subscribers_hold_no_thread_no_descriptor_and_no_connection() {
    in_own_process!();
    let redis = RedisServer::start();
    let config = Config::builder().dedicated_limit(10).shared_limit(0).build().unwrap();
    let courier = Courier::start(&redis.url(), config).await.unwrap();
    let sessions: Vec<_> =
        (0..100).map(|n| (SessionId::new(format!("session-{n}")).unwrap(), Recorder::new())).collect();
    let (before, connections) = (threads_and_descriptors(), redis.connected_clients().await);
    for (id, session) in &sessions {
        eventually("a place", SOON, async || courier.ensure_subscriber(id, session.clone()).await.is_ok()).await;
        session.presence().disconnected();
    }
    until_given_back(before).await;
    assert_eq!(courier.supervisor().send(GetSubscriberCount).await.unwrap(), 100);
    eventually("no connection", SOON, async || redis.connected_clients().await <= connections).await;
    let message = Notification::new("notifications/x").unwrap().with_params(json!({"n": 1})).unwrap();
    for (id, session) in &sessions {
        courier.publisher().push(id, message.clone()).await.unwrap();
        session.presence().connected(2);
        session.until_taken(1).await;
        session.presence().disconnected();
    }
    until_given_back(before).await;
}

#[actix::test]
async fn a_thousand_subscribers_give_their_threads_and_descriptors_back() {
    in_own_process!();
    let config = Config::builder().dedicated_limit(1000).build().unwrap();
    let courier = Courier::start("memory://resources", config).await.unwrap();
    let ids: Vec<SessionId> = (0..1000).map(|n| SessionId::new(format!("session-{n}")).unwrap()).collect();
    let before = threads_and_descriptors();
    for id in &ids {
        courier.ensure_subscriber(id, Recorder::new()).await.unwrap();
    }
    assert_eq!(courier.supervisor().send(GetSubscriberCount).await.unwrap(), 1000);
    let during = threads_and_descriptors();
    assert!(during.0 >= before.0 + 1000, "an arbiter each: {before:?} {during:?}");
    for id in &ids {
        assert!(courier.stop_subscriber(id, None).await);
    }
    until_given_back(before).await;
}

#[actix::test]
async fn shared_subscribers_hold_a_thread_per_core_and_give_everything_back() {
    in_own_process!();
    let redis = RedisServer::start();
    let config = Config::builder().dedicated_limit(0).build().unwrap();
    let courier = Courier::start(&redis.url(), config).await.unwrap();
    let cores = std::thread::available_parallelism().unwrap().get();
    let (before, connections) = (threads_and_descriptors(), redis.connected_clients().await);
    let sessions: Vec<_> =
        (0..500).map(|n| (SessionId::new(format!("session-{n}")).unwrap(), Recorder::new())).collect();
    for (id, session) in &sessions {
        courier.ensure_subscriber(id, session.clone()).await.unwrap();
    }
    for (id, session) in &sessions {
        let message = Notification::new("notifications/x").unwrap().with_params(json!({"n": 1})).unwrap();
        courier.publisher().push(id, message).await.unwrap();
        session.until_taken(1).await;
    }
    let during = threads_and_descriptors();
    assert!(during.0 <= before.0 + cores as u64, "before {before:?}, during {during:?}");
    let opened = redis.connected_clients().await - connections;
    // Two for each arbiter, and those of the process for pushes and the rest.
    assert!(opened <= 2 * cores + 2, "{opened} connections");
    let report = courier.shutdown(SOON).await;
    assert_eq!((report.stopped, report.forced, report.delivered), (500, 0, 500));
    eventually("no connection", SOON, async || redis.connected_clients().await <= connections + 2).await;
    let mut after = threads_and_descriptors();
    for _ in 0..600 {
        if after.0 <= before.0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        after = threads_and_descriptors();
    }
    assert!(after.0 <= before.0, "before {before:?}, after {after:?}");
}
