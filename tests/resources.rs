//! What a stopped subscriber gives back. Alone in its file: it counts the threads and descriptors of its process.

use std::time::Duration;

use mcp_courier::actors::GetSubscriberCount;
use mcp_courier::{Config, Courier, SessionId};

#[path = "support/session.rs"]
mod session;

fn entries(of: &str) -> usize {
    std::fs::read_dir(of).unwrap().count()
}

fn threads_and_descriptors() -> (usize, usize) {
    (entries("/proc/self/task"), entries("/proc/self/fd"))
}

#[actix::test]
async fn a_thousand_subscribers_give_their_threads_and_descriptors_back() {
    let courier = Courier::start("memory://resources", Config::default()).await.unwrap();
    let ids: Vec<SessionId> = (0..1000).map(|n| SessionId::new(format!("session-{n}")).unwrap()).collect();
    let before = threads_and_descriptors();
    for id in &ids {
        courier.ensure_subscriber(id, session::Recorder::new()).await.unwrap();
    }
    assert_eq!(courier.supervisor().send(GetSubscriberCount).await.unwrap(), 1000);
    let during = threads_and_descriptors();
    assert!(during.0 >= before.0 + 1000, "an arbiter each: {before:?} {during:?}");
    for id in &ids {
        assert!(courier.stop_subscriber(id, None).await);
    }
    // The threads that waited for the ends of others end by themselves, after a while of idleness.
    let mut after = threads_and_descriptors();
    for _ in 0..600 {
        if after.0 <= before.0 && after.1 <= before.1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        after = threads_and_descriptors();
    }
    assert!(after.0 <= before.0 && after.1 <= before.1, "before {before:?}, after {after:?}");
}
