//! Pushes with keys: their cost, their keys in Redis, and their trouble.

use mcp_courier::{Notification, Publisher, PushRefusal};
use mcp_courier_testing::forwarder::{Forwarder, Mode};
use mcp_courier_testing::waiting;

use super::cost::calls_since;
use super::fixture::{Fixture, QUEUE, note, numbers, session};

const KEY_SET: &str = "{mcp-courier:notifications:s-1}:dedup:1";
const COLLAPSIBLE: &str = "{mcp-courier:notifications:s-1}:collapsible";

fn keyed(n: usize, key: &str) -> Notification {
    note(n).with_deduplication_key(key).unwrap()
}

#[tokio::test]
async fn a_push_whose_answer_was_lost_is_queued_once_with_its_key() {
    let mut f = Fixture::new().await;
    let forwarder = Forwarder::to(f.server.port());
    let worker = Publisher::connect(&forwarder.url(), waiting::config().build().unwrap()).await.unwrap();
    // The server knows the script from here on, so that the next request is the push itself.
    worker.push(&session(), keyed(6, "before")).await.unwrap();
    forwarder.set(Mode::OneWay);
    let refused = worker.push(&session(), keyed(7, "job")).await.unwrap_err();
    assert!(matches!(refused.reason, PushRefusal::Uncertain(_)), "{:?}", refused.reason);
    forwarder.set(Mode::Pass);
    // It is recognised by its key while it waits, also under another id, and once it is delivered.
    let again = worker.push(&session(), *refused.notification.clone()).await.unwrap();
    assert_eq!((again.is_duplicate, Some(again.id)), (true, refused.notification.id()));
    let taken = f.take().await;
    assert_eq!(numbers(&taken), [6, 7]);
    f.take_after(&taken).await;
    let by_a_restarted_worker = f.publisher.push(&session(), keyed(7, "job")).await.unwrap();
    assert_eq!((by_a_restarted_worker.is_duplicate, by_a_restarted_worker.id), (true, again.id));
    assert!(f.take().await.items.is_empty());
    f.end().await;
}

#[tokio::test]
async fn a_key_in_redis_shows_nothing_of_itself_and_the_keys_expire() {
    let mut f = Fixture::new().await;
    f.publisher.push(&session(), keyed(0, "secret-order-4711")).await.unwrap();
    let all: Vec<Vec<u8>> = f.redis(&["HGETALL", KEY_SET]).await;
    assert_eq!(all.len(), 4, "the key, and the time at which the key set began");
    for text in &all {
        assert!(!String::from_utf8_lossy(text).contains("4711"));
    }
    let life: i64 = f.redis(&["PTTL", KEY_SET]).await;
    assert!((1..=3_600_000).contains(&life), "{life}");
    f.end().await;
}

#[tokio::test]
async fn a_push_with_a_key_costs_one_round_trip_and_few_commands() {
    let f = Fixture::new().await;
    f.publisher.push(&session(), keyed(0, "first")).await.unwrap();
    for (key, inside) in [
        ("second", &["time", "pttl", "hget", "llen", "lpush", "hlen", "hset", "pexpire"][..]),
        ("second", &["time", "pttl", "hget", "llen"][..]),
    ] {
        let before = f.server.calls().await;
        f.publisher.push(&session(), keyed(1, key)).await.unwrap();
        let calls = calls_since(&f, &before).await;
        let (sent, done): (Vec<_>, Vec<_>) =
            calls.iter().partition(|(name, _)| ["evalsha", "strlen"].contains(&name.as_str()));
        assert_eq!(sent.iter().map(|(_, count)| **count).collect::<Vec<_>>(), [1, 1], "{calls:?}");
        assert!(done.iter().all(|(name, _)| inside.contains(&name.as_str())), "{calls:?}");
        let total: u64 = done.iter().map(|(_, count)| **count).sum();
        assert!(total <= 13, "{total}: {calls:?}");
    }
    f.end().await;
}

#[tokio::test]
async fn another_type_under_the_keys_refuses_the_whole_call_and_queues_nothing() {
    let mut f = Fixture::new().await;
    let _: () = f.redis(&["SET", KEY_SET, "x", "EX", "60"]).await;
    let call = [(session(), note(0)), (session(), keyed(1, "job"))];
    for result in f.publisher.push_many(call).await {
        let reason = result.unwrap_err().reason;
        assert!(matches!(&reason, PushRefusal::Refused(text) if text.contains("WRONGTYPE")), "{reason:?}");
    }
    assert!(f.take().await.items.is_empty());
    f.push([2]).await;
    assert_eq!(numbers(&f.take().await), [2], "a push without a key does not look there");
    f.end().await;
}

#[tokio::test]
async fn a_full_redis_refuses_a_push_with_a_key_and_keeps_no_key() {
    let mut f = Fixture::new().await;
    let _: () = f.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = f.publisher.push(&session(), keyed(0, "job")).await.unwrap_err();
    assert!(matches!(&refused.reason, PushRefusal::Refused(text) if text.contains("OOM")), "{:?}", refused.reason);
    let _: () = f.redis(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert!(!f.publisher.push(&session(), keyed(1, "job")).await.unwrap().is_duplicate);
    assert_eq!(numbers(&f.take().await), [1]);
    f.end().await;
}

#[tokio::test]
async fn replaceable_messages_are_bounded_by_their_queue_and_gone_with_the_next_owner() {
    let mut f = Fixture::new().await;
    let progress = |n: i32| Notification::progress("secret-token", f64::from(n), None, None).unwrap();
    f.publisher.push(&session(), progress(0)).await.unwrap();
    let kept: u64 = f.redis(&["EXISTS", COLLAPSIBLE]).await;
    assert_eq!(kept, 0, "under an owner nothing is kept");
    assert!(f.queue.release(&session(), f.token).await.unwrap());
    for n in 1..100 {
        assert_eq!(f.publisher.push(&session(), progress(n)).await.unwrap().waiting, 2);
    }
    let fields: Vec<Vec<u8>> = f.redis(&["HKEYS", COLLAPSIBLE]).await;
    assert_eq!(fields.len(), 1);
    assert!(!String::from_utf8_lossy(&fields[0]).contains("secret"));
    let lives: [i64; 2] = [f.redis(&["PTTL", QUEUE]).await, f.redis(&["PTTL", COLLAPSIBLE]).await];
    assert!(0 < lives[1] && lives[1] <= lives[0], "{lives:?}");
    f.consumer.claim().await.unwrap();
    let kept: u64 = f.redis(&["EXISTS", COLLAPSIBLE]).await;
    assert_eq!(kept, 0, "the owner may read it from here on");
    f.end().await;
}

#[tokio::test]
async fn what_another_program_took_from_the_queue_is_replaced_by_a_plain_push() {
    let mut f = Fixture::new().await;
    assert!(f.queue.release(&session(), f.token).await.unwrap());
    let keyed = |n| note(n).with_collapse_key("a").unwrap();
    f.publisher.push(&session(), keyed(0)).await.unwrap();
    // As a FastMCP server does, which takes no lease.
    let _: String = f.redis(&["RPOP", QUEUE]).await;
    let pushed = f.publisher.push(&session(), keyed(1)).await.unwrap();
    assert_eq!((pushed.collapsed, pushed.waiting), (false, 1));
    f.end().await;
}

#[tokio::test]
async fn another_type_under_the_replaceable_messages_refuses_the_push_and_queues_nothing() {
    let mut f = Fixture::new().await;
    assert!(f.queue.release(&session(), f.token).await.unwrap());
    let _: () = f.redis(&["SET", COLLAPSIBLE, "x", "EX", "60"]).await;
    let refused = f.publisher.push(&session(), Notification::tools_list_changed()).await.unwrap_err();
    assert!(
        matches!(&refused.reason, PushRefusal::Refused(text) if text.contains("WRONGTYPE")),
        "{:?}",
        refused.reason
    );
    let waiting: usize = f.redis(&["LLEN", QUEUE]).await;
    assert_eq!(waiting, 0);
    // The next owner removes it.
    f.consumer.claim().await.unwrap();
    f.publisher.push(&session(), Notification::tools_list_changed()).await.unwrap();
    f.end().await;
}
