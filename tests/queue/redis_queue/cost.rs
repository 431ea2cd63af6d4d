//! Cost of waiting subscribers.

use std::collections::HashMap;
use std::time::Duration;

use mcp_courier_testing::eventually::{SOON, eventually};

use super::fixture::{Fixture, LEASE, LONG, QUEUE, numbers};

/// The commands since `before`, without those by which the test looks.
pub(super) async fn calls_since(f: &Fixture, before: &HashMap<String, u64>) -> HashMap<String, u64> {
    let mut calls = f.server.calls().await;
    for (name, count) in before {
        calls.entry(name.clone()).and_modify(|now| *now -= count);
    }
    calls.retain(|name, count| *count > 0 && !["info", "client|setinfo", "client", "hello"].contains(&name.as_str()));
    calls
}

#[tokio::test]
async fn an_idle_wake_costs_one_round_trip() {
    if mcp_courier_testing::waiting::is_shared() {
        return; // Speaks of a connection of its own: `tests/queue/shared_waiting` says what a wait over a shared one costs.
    }
    const WAKES: u64 = 5;
    let mut f = Fixture::new().await;
    let before = f.server.calls().await;
    for _ in 0..WAKES {
        let Fixture { server, consumer, raw, .. } = &mut f;
        let (taken, ()) = tokio::join!(consumer.wait(LONG), async {
            eventually("a wait", SOON, async || server.blocked_clients().await == 1).await;
            let message = r#"{"notification": {"params": {"n": 7}}}"#;
            let mut pushed = redis::pipe();
            pushed.cmd("LPUSH").arg(QUEUE).arg(message).ignore().cmd("EXPIRE").arg(QUEUE).arg(60).ignore();
            pushed.exec_async(raw).await.unwrap();
        });
        let taken = taken.unwrap();
        assert_eq!(numbers(&taken), [7]);
        let _: () = f.redis(&["DEL", QUEUE]).await;
    }
    let calls = calls_since(&f, &before).await;
    // What an owner sends; the rest is the test's, or what the script does inside.
    assert_eq!((calls["blmove"], calls["evalsha"]), (WAKES, WAKES), "{calls:?}");
    let by_others_or_inside = ["lpush", "expire", "del", "time", "get", "pttl", "pexpire", "lrange", "client|setinfo"];
    let more: Vec<_> = calls
        .keys()
        .filter(|name| !["blmove", "evalsha"].contains(&name.as_str()) && !by_others_or_inside.contains(&name.as_str()))
        .collect();
    assert!(more.is_empty(), "{more:?}");
    assert_eq!(calls["get"], 2 * WAKES, "the lease is read in the script, and behind the messages: {calls:?}");
    f.end().await;
}

#[tokio::test]
async fn who_waits_sends_nothing() {
    if mcp_courier_testing::waiting::is_shared() {
        return; // Speaks of a connection of its own: `tests/queue/shared_waiting` says what a wait over a shared one costs.
    }
    let mut f = Fixture::new().await;
    let before = f.server.calls().await;
    let taken = f.consumer.wait(Duration::from_secs(1)).await.unwrap();
    assert!(taken.items.is_empty());
    let calls = calls_since(&f, &before).await;
    let sent = calls.iter().filter(|(name, _)| !["time", "get", "pttl", "lrange"].contains(&name.as_str()));
    let mut sent: Vec<_> = sent.map(|(name, count)| (name.as_str(), *count)).collect();
    sent.sort_unstable();
    assert_eq!(sent, [("blmove", 1), ("evalsha", 1)]);
    f.end().await;
}

#[tokio::test]
async fn a_consumer_that_is_dropped_while_it_waits_closes_its_connection() {
    if mcp_courier_testing::waiting::is_shared() {
        return; // Speaks of a connection of its own: `tests/queue/shared_waiting` says what a wait over a shared one costs.
    }
    let mut f = Fixture::new().await;
    let before = f.server.connected_clients().await;
    for _ in 0..10 {
        f.reopen().await;
        let Fixture { server, consumer, .. } = &mut f;
        tokio::select! {
            _ = consumer.wait(LONG) => panic!("nothing was pushed"),
            () = eventually("a wait", SOON, async || server.blocked_clients().await == 1) => {}
        }
    }
    f.reopen().await;
    eventually("the end of the old connections", SOON, async || {
        f.server.connected_clients().await <= before && f.server.blocked_clients().await == 0
    })
    .await;
    f.end().await;
}

#[tokio::test]
async fn a_publisher_shares_one_connection() {
    let f = Fixture::new().await;
    let before = f.server.connected_clients().await;
    let pushes = (0..200).map(|n| {
        let publisher = f.publisher.clone();
        tokio::spawn(async move {
            let session = mcp_courier::SessionId::new(format!("s-{}", n % 20)).unwrap();
            publisher.push(&session, super::fixture::note(n)).await.unwrap();
        })
    });
    for push in pushes.collect::<Vec<_>>() {
        push.await.unwrap();
    }
    assert!(f.server.connected_clients().await <= before);
    f.end().await;
}

/// Number of reads from connections that a push makes Redis do: one for each round trip.
async fn reads_of_a_push(f: &Fixture) -> usize {
    let first = f.server.reads().await;
    // The reads of looking.
    let looking = f.server.reads().await - first;
    let before = f.server.reads().await;
    f.push([1]).await;
    f.server.reads().await - before - looking
}

#[tokio::test]
async fn a_push_costs_one_round_trip_whether_the_session_is_owned_or_not() {
    let mut f = Fixture::new().await;
    // The script is loaded with the first push.
    f.push([0]).await;
    for owned in [true, false] {
        if !owned {
            let _: () = f.redis(&["DEL", LEASE]).await;
        }
        assert_eq!(reads_of_a_push(&f).await, 1, "owned: {owned}");
        let before = f.server.calls().await;
        f.push([1]).await;
        let calls = calls_since(&f, &before).await;
        let inside = ["time", "llen", "pttl", "lpush", "pexpire"];
        let mut sent: Vec<_> = calls.iter().filter(|(name, _)| !inside.contains(&name.as_str())).collect();
        sent.sort_unstable();
        let sent: Vec<_> = sent.into_iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(sent, [("evalsha", 1), ("strlen", 1)], "{calls:?}");
    }
    f.end().await;
}

#[tokio::test]
async fn a_round_of_pushes_to_many_sessions_is_sent_at_once() {
    let f = Fixture::new().await;
    f.push([0]).await;
    let before = f.server.calls().await;
    let batch =
        (0..1000).map(|n| (mcp_courier::SessionId::new(format!("s-{}", n % 10)).unwrap(), super::fixture::note(n)));
    for pushed in f.publisher.push_many(batch).await {
        pushed.unwrap();
    }
    let calls = calls_since(&f, &before).await;
    assert_eq!((calls["evalsha"], calls["lpush"]), (10, 10), "one call for each session's hundred");
    assert_eq!(calls["strlen"], 9, "one of the ten has an owner");
    f.end().await;
}
