//! Dead letters and receipts while Redis forgets, dies, is full, or holds something else.

use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{Delivered, LeaseState, MessageOutcome, Taken};
use mcp_courier::{ConfigBuilder, DiscardReason, NotificationId, Receipt};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use redis::RedisResult;

use super::fixture::{Fixture, LEASE, LONG, QUEUE, note, numbers, session};

const DEAD: &str = "{mcp-courier:notifications:s-1}:dead";

fn keeping() -> ConfigBuilder {
    waiting::config().dead_letters(100)
}

/// Returns the acknowledgement of all messages, discarded or delivered, with the outcomes for their receipts.
fn done(taken: &Taken, discarded: Option<DiscardReason>) -> Delivered {
    let outcomes = taken.items.iter().enumerate().map(|(position, item)| {
        let envelope = item.envelope.as_ref().unwrap();
        MessageOutcome { position, discarded: discarded.clone(), receipt: envelope.receipt.then_some(envelope.id) }
    });
    Delivered {
        count: taken.items.len(),
        last: taken.items.last().unwrap().mark.clone(),
        questions: Vec::new(),
        outcomes: outcomes.collect(),
    }
}

async fn push_with_receipt(f: &Fixture, n: usize) -> NotificationId {
    f.publisher.push(&session(), note(n).with_receipt()).await.unwrap().id
}

async fn receipt(f: &Fixture, id: NotificationId) -> Receipt {
    f.publisher.receipt(&session(), id).await.unwrap()
}

async fn letters(f: &Fixture) -> usize {
    f.publisher.dead_letters().list(&session(), 0, 1000).await.unwrap().len()
}

#[tokio::test]
async fn what_lies_in_redis_can_be_read_by_hand() {
    let mut f = Fixture::with(RedisServer::start(), keeping()).await;
    let id = push_with_receipt(&f, 7).await;
    let key = format!("{{mcp-courier:notifications:s-1}}:receipt:{id}");
    let queued: String = f.redis(&["GET", &key]).await;
    let taken = f.take().await;
    let envelope = taken.items[0].envelope.as_ref().unwrap();
    assert_eq!(queued, format!("queued {}", envelope.expires_at.unwrap().0));
    let reason = DiscardReason::Rejected("no".to_owned());
    let rest = f.consumer.take(Some(&done(&taken, Some(reason)))).await.unwrap();
    let at = rest.now.0;
    let told: String = f.redis(&["GET", &key]).await;
    assert_eq!(told, format!(r#"discarded {at} {{"rejected":"no"}}"#));
    let kept: String = f.redis(&["LINDEX", DEAD, "0"]).await;
    let (header, raw) = kept.split_once('\n').unwrap();
    assert_eq!(header, format!(r#"{{"at":{at},"reason":{{"rejected":"no"}}}}"#));
    assert!(taken.items[0].mark.matches(raw.as_bytes()));
    let (dead, told): (i64, i64) = (f.redis(&["PTTL", DEAD]).await, f.redis(&["PTTL", &key]).await);
    assert!((604_790_000..=604_800_000).contains(&dead) && (3_590_000..=3_600_000).contains(&told), "{dead} {told}");
    f.end().await;
}

#[tokio::test]
async fn all_of_it_goes_on_when_redis_has_forgotten_the_scripts() {
    let mut f = Fixture::with(RedisServer::start(), keeping()).await;
    let forget = async |f: &mut Fixture| f.redis::<()>(&["SCRIPT", "FLUSH"]).await;
    forget(&mut f).await;
    let id = push_with_receipt(&f, 0).await;
    let taken = f.take().await;
    forget(&mut f).await;
    f.consumer.take(Some(&done(&taken, Some(DiscardReason::Expired)))).await.unwrap();
    forget(&mut f).await;
    assert!(matches!(receipt(&f, id).await, Receipt::Discarded { .. }));
    forget(&mut f).await;
    assert_eq!(f.publisher.dead_letters().redrive(&session()).await.unwrap().redriven, 1);
    forget(&mut f).await;
    let publisher = f.publisher.clone();
    let waiting = tokio::spawn(async move { publisher.until_settled(&session(), id, LONG).await.unwrap() });
    let again = f.take().await;
    forget(&mut f).await;
    let outcome = MessageOutcome { position: 0, discarded: Some(DiscardReason::Superseded), receipt: None };
    f.queue.record(&session(), &outcome, b"{}").await.unwrap();
    assert_eq!(letters(&f).await, 1);
    f.consumer.take(Some(&done(&again, None))).await.unwrap();
    assert!(matches!(waiting.await.unwrap(), Receipt::Delivered { .. }));
    f.end().await;
}

#[tokio::test]
async fn g2_out_of_memory_what_is_discarded_is_kept_and_receipts_are_settled() {
    let mut f = Fixture::with(RedisServer::start(), keeping()).await;
    let ids = [push_with_receipt(&f, 0).await, push_with_receipt(&f, 1).await, push_with_receipt(&f, 2).await];
    let mut taken = f.take().await;
    let (rest, second) = (taken.items.split_off(1), taken);
    let _: () = f.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let mut taken = f.consumer.take(Some(&done(&second, Some(DiscardReason::Expired)))).await.unwrap();
    assert!(matches!(receipt(&f, ids[0]).await, Receipt::Discarded { .. }));
    assert_eq!(letters(&f).await, 1);
    // Not removed, because the queue is another owner's. The delivery is recorded all the same.
    drop(rest);
    taken.items.truncate(1);
    let owner: String = f.redis(&["GET", LEASE]).await;
    let _: () = f.redis(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let _: () = f.redis(&["SET", LEASE, "another", "PX", "60000"]).await;
    let _: () = f.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_eq!(f.consumer.take(Some(&done(&taken, None))).await.unwrap().lease, LeaseState::Lost);
    assert!(matches!(receipt(&f, ids[1]).await, Receipt::Delivered { .. }));
    let _: () = f.redis(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let _: () = f.redis(&["SET", LEASE, &owner, "PX", "60000"]).await;
    let _: () = f.redis(&["CONFIG", "SET", "maxmemory", "1"]).await;
    // One that is in no queue any more is kept too; redriving is refused, and the letters stay.
    let outcome = MessageOutcome { position: 0, discarded: Some(DiscardReason::Superseded), receipt: Some(ids[2]) };
    f.queue.record(&session(), &outcome, b"{}").await.unwrap();
    assert!(f.publisher.dead_letters().redrive(&session()).await.is_err());
    assert_eq!(letters(&f).await, 2);
    let _: () = f.redis(&["CONFIG", "SET", "maxmemory", "0"]).await;
    let done = f.publisher.dead_letters().redrive(&session()).await.unwrap();
    assert_eq!((done.redriven, done.undecodable), (1, 1));
    assert_eq!(numbers(&f.take().await), [1, 2, 0]);
    f.end().await;
}

#[tokio::test]
async fn a_receipt_of_another_type_hides_no_other_from_an_inspection() {
    let mut f = Fixture::with(RedisServer::start(), keeping()).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        ids.push(push_with_receipt(&f, n).await);
    }
    ids.sort_unstable();
    // The receipts are read in this order.
    for (place, id) in ids.iter().enumerate() {
        let key = format!("{{mcp-courier:notifications:s-1}}:receipt:{id}");
        let text: String = f.redis(&["GETDEL", &key]).await;
        let _: () = f.redis(&["RPUSH", &key, "something else"]).await;
        let found = f.queue.find_id(&session()).await.unwrap();
        assert_eq!((found.receipts.len(), found.is_partial), (2, false), "without that at place {place}");
        let _: () = f.redis(&["SET", &key, &text, "EX", "60"]).await;
    }
    f.end().await;
}

#[tokio::test]
async fn an_acknowledgement_goes_on_where_letters_cannot_be_kept() {
    let mut f = Fixture::with(RedisServer::start(), keeping()).await;
    let _: () = f.redis(&["SET", DEAD, "something else", "EX", "60"]).await;
    let id = push_with_receipt(&f, 0).await;
    f.push([1]).await;
    let mut taken = f.take().await;
    taken.items.truncate(1);
    let rest = f.consumer.take(Some(&done(&taken, Some(DiscardReason::Expired)))).await.unwrap();
    assert_eq!((numbers(&rest), rest.changed), (vec![1], false));
    assert!(matches!(receipt(&f, id).await, Receipt::Discarded { .. }));
    let life: i64 = f.redis(&["PTTL", DEAD]).await;
    assert!((1..=60_000).contains(&life), "what is another's lives as long as it would have: {life}");
    assert!(f.publisher.dead_letters().list(&session(), 0, 1).await.is_err());
    assert!(f.publisher.dead_letters().redrive(&session()).await.is_err());
    f.end().await;
}

#[tokio::test]
async fn what_others_put_among_the_letters_is_shown_and_stops_nothing() {
    let mut f = Fixture::with(RedisServer::start(), keeping()).await;
    f.push([0]).await;
    let taken = f.take().await;
    f.consumer.take(Some(&done(&taken, Some(DiscardReason::Expired)))).await.unwrap();
    let _: () = f.redis(&["RPUSH", DEAD, "not ours", "", "{\"at\":1}\n"]).await;
    f.push([1]).await;
    let taken = f.take().await;
    f.consumer.take(Some(&done(&taken, Some(DiscardReason::Expired)))).await.unwrap();
    let kept = f.publisher.dead_letters().list(&session(), 0, 10).await.unwrap();
    let foreign = kept.iter().filter(|letter| matches!(letter.reason, DiscardReason::Undecodable(_))).count();
    assert!(kept.len() - foreign == 2 && foreign >= 2, "{kept:?}");
    let done = f.publisher.dead_letters().redrive(&session()).await.unwrap();
    assert_eq!((done.redriven, done.undecodable), (2, foreign));
    assert_eq!(numbers(&f.take().await), [0, 1]);
    f.end().await;
}

#[tokio::test]
async fn g2_redriving_loses_and_doubles_nothing_though_redis_is_killed_meanwhile() {
    const MANY: usize = 600;
    let config = keeping().dead_letters(MANY).batch_messages(1000);
    let mut f = Fixture::with(RedisServer::durable(), config).await;
    let batch = (0..MANY).map(|n| (session(), note(n)));
    assert!(f.publisher.push_many(batch).await.iter().all(Result::is_ok));
    let taken = f.take().await;
    f.consumer.take(Some(&done(&taken, Some(DiscardReason::Expired)))).await.unwrap();
    let publisher = f.publisher.clone();
    let redriving = tokio::spawn(async move {
        let (mut failures, begun) = (0, Instant::now());
        while publisher.dead_letters().redrive(&session()).await.is_err() {
            failures += 1;
            assert!(begun.elapsed() < 4 * SOON, "nothing can be redriven");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        failures
    });
    for part in 1..=4 {
        eventually("the next part", SOON, async || {
            let length: RedisResult<usize> = redis::cmd("LLEN").arg(QUEUE).query_async(&mut f.raw.clone()).await;
            length.unwrap() >= MANY * part / 6
        })
        .await;
        f.server.kill();
        f.server.start_again();
        f.raw = f.server.connection().await;
    }
    assert!(redriving.await.unwrap() > 0, "nothing was killed in time");
    f.reopen().await;
    f.consumer.claim().await.unwrap();
    assert_eq!(numbers(&f.take().await), (0..MANY as u64).collect::<Vec<_>>());
    assert_eq!(letters(&f).await, 0);
    f.end().await;
}

#[tokio::test]
async fn a_letter_whose_time_is_over_is_neither_listed_nor_redriven() {
    let mut f = Fixture::with(RedisServer::start(), keeping()).await;
    f.push([0]).await;
    let taken = f.take().await;
    f.consumer.take(Some(&done(&taken, Some(DiscardReason::Expired)))).await.unwrap();
    let kept: String = f.redis(&["LINDEX", DEAD, "0"]).await;
    let (_, raw) = kept.split_once('\n').unwrap();
    for _ in 0..15 {
        let old = format!("{{\"at\":1000000,\"reason\":\"expired\"}}\n{raw}");
        let _: () = f.redis(&["RPUSH", DEAD, &old]).await;
    }
    assert_eq!(f.publisher.dead_letters().redrive(&session()).await.unwrap().redriven, 1);
    assert_eq!((numbers(&f.take().await), letters(&f).await), (vec![0], 0));
    f.end().await;
}

#[tokio::test]
async fn who_waits_for_a_receipt_gets_it_though_redis_died_meanwhile() {
    let mut f = Fixture::with(RedisServer::durable(), keeping()).await;
    let id = push_with_receipt(&f, 0).await;
    let publisher = f.publisher.clone();
    let waiting = tokio::spawn(async move { publisher.until_settled(&session(), id, LONG).await.unwrap() });
    f.server.kill();
    f.server.start_again();
    f.raw = f.server.connection().await;
    f.reopen().await;
    f.consumer.claim().await.unwrap();
    let taken = f.take().await;
    f.consumer.take(Some(&done(&taken, None))).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap();
    assert!(matches!(told, Receipt::Delivered { .. }));
    f.end().await;
}

#[tokio::test]
async fn many_who_wait_for_receipts_share_one_connection() {
    const MANY: usize = 300;
    let mut f = Fixture::with(RedisServer::start(), keeping().batch_messages(1000)).await;
    let before = f.server.connected_clients().await;
    let mut waiting = Vec::new();
    for n in 0..MANY {
        let (id, publisher) = (push_with_receipt(&f, n).await, f.publisher.clone());
        waiting.push(tokio::spawn(async move { publisher.until_settled(&session(), id, LONG).await.unwrap() }));
    }
    // Each key was read over the connection to which Redis announces changes.
    eventually("tracked keys", SOON, async || {
        let info: String = redis::cmd("INFO").arg("stats").query_async(&mut f.raw.clone()).await.unwrap();
        let keys = info.lines().find_map(|line| line.strip_prefix("tracking_total_keys:")).unwrap();
        keys.trim().parse::<usize>().unwrap() >= MANY
    })
    .await;
    assert!(f.server.connected_clients().await <= before + 1);
    let taken = f.take().await;
    let begun = Instant::now();
    f.consumer.take(Some(&done(&taken, None))).await.unwrap();
    for told in waiting {
        assert!(matches!(told.await.unwrap(), Receipt::Delivered { .. }));
    }
    assert!(begun.elapsed() < SOON, "told of, and not found by looking again");
    f.end().await;
}

#[tokio::test]
async fn who_asks_for_nothing_pays_for_nothing() {
    if mcp_courier_testing::waiting::is_shared() {
        return; // Counts the calls of a connection of its own.
    }
    // Dead letters are on, and nothing is discarded. One goes before, so that the scripts are known.
    let mut f = Fixture::with(RedisServer::start(), keeping()).await;
    f.push([99]).await;
    let taken = f.take().await;
    f.take_after(&taken).await;
    let before = f.server.calls().await;
    f.push(0..10).await;
    let taken = f.take().await;
    f.take_after(&taken).await;
    let calls = f.server.calls().await;
    let since = |name: &str| calls.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
    assert_eq!(since("evalsha"), 12);
    assert_eq!(
        (since("get"), since("set"), since("del"), since("lpush")),
        (4, 0, 0, 10),
        "the lease, twice at each take"
    );
    let keys: Vec<String> = f.redis(&["KEYS", "*"]).await;
    assert_eq!(keys.len(), 2, "the lease and the live sessions: {keys:?}");
    f.end().await;
}

#[tokio::test]
async fn an_acknowledgement_is_whole_though_the_bytes_of_letters_may_not_be_counted() {
    let config = keeping().message_max_bytes(1024).queue_max_bytes(9_000);
    let mut f = Fixture::with(RedisServer::start(), config).await;
    let ids = [push_with_receipt(&f, 0).await, push_with_receipt(&f, 1).await];
    let taken = f.take().await;
    let _: () = f.redis(&["ACL", "SETUSER", "default", "-memory"]).await;
    let rest = f.consumer.take(Some(&done(&taken, Some(DiscardReason::Superseded)))).await.unwrap();
    assert!(rest.items.is_empty() && !rest.changed);
    for id in ids {
        assert!(matches!(receipt(&f, id).await, Receipt::Discarded { .. }));
    }
    f.end().await;
}

#[tokio::test]
async fn a_key_that_is_no_text_hides_no_dead_letters() {
    let mut f = Fixture::with(RedisServer::start(), keeping()).await;
    f.push([0]).await;
    let taken = f.take().await;
    f.consumer.take(Some(&done(&taken, Some(DiscardReason::Expired)))).await.unwrap();
    let strange = b"{mcp-courier:notifications:\xff}:dead".as_slice();
    let _: () = redis::pipe().lpush(strange, "x").expire(strange, 60).query_async(&mut f.raw).await.unwrap();
    assert_eq!(f.publisher.dead_letters().sessions().await.unwrap(), [session()]);
    let () = redis::cmd("DEL").arg(strange).query_async(&mut f.raw).await.unwrap();
    f.end().await;
}
