//! Clauses 16 and 17: what is discarded is kept, and can be queued anew.

use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{Delivered, Mark, MessageOutcome, Replaced, Taken};
use mcp_courier::{ConfigBuilder, DeadLetter, DiscardReason, Publisher, QueueLimit, SessionId};
use mcp_courier_testing::eventually::{SOON, assert_about, eventually};
use serde_json::json;

use super::place::{Owner, Place, config, delivered, envelopes, note, numbers, opened, push, session};

fn keeping(count: usize) -> ConfigBuilder {
    config().dead_letters(count)
}

fn rejected(position: usize) -> MessageOutcome {
    MessageOutcome { position, discarded: Some(DiscardReason::Rejected(format!("no {position}"))), receipt: None }
}

/// Returns the acknowledgement of the `count` oldest messages, of which those at `positions` were discarded.
fn discarded(taken: &Taken, count: usize, positions: impl IntoIterator<Item = usize>) -> Delivered {
    Delivered { outcomes: positions.into_iter().map(rejected).collect(), ..delivered(taken, count) }
}

async fn all(publisher: &Publisher) -> Vec<DeadLetter> {
    publisher.dead_letters().list(&session(), 0, 1000).await.unwrap()
}

fn number(letter: &DeadLetter) -> u64 {
    let params: serde_json::Value = opened(&letter.raw).parse_params().unwrap();
    params["n"].as_u64().unwrap()
}

async fn letters(publisher: &Publisher) -> Vec<u64> {
    all(publisher).await.iter().map(number).collect()
}

/// Pushes these and discards them.
async fn discard(publisher: &Publisher, owner: &mut Owner, what: std::ops::Range<usize>) {
    push(publisher, what.clone()).await;
    let taken = owner.take().await;
    assert_eq!(numbers(&taken), what.clone().collect::<Vec<_>>());
    assert!(owner.take_after(&discarded(&taken, what.len(), 0..what.len())).await.items.is_empty());
}

pub(crate) async fn what_is_discarded_is_kept_with_its_reason_the_oldest_first(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(keeping(10)).await;
    push(&publisher, 0..6).await;
    let taken = owner.take().await;
    let rest = owner.take_after(&discarded(&taken, 5, [1, 3, 4])).await;
    assert_eq!(numbers(&rest), [5]);
    let kept = all(&publisher).await;
    assert_eq!(kept.iter().map(number).collect::<Vec<_>>(), [1, 3, 4]);
    for (letter, position) in kept.iter().zip([1, 3, 4]) {
        let before = envelopes(&taken)[position];
        assert_eq!((letter.id, letter.method.as_deref()), (Some(before.id), Some("notifications/test")));
        assert_eq!(letter.reason, DiscardReason::Rejected(format!("no {position}")));
        assert!(taken.items[position].mark.matches(&letter.raw));
        assert_eq!(letter.at, rest.now.to_system());
        assert_eq!((letter.attempts, &letter.last_error), (0, &None));
    }
    let page = publisher.dead_letters().list(&session(), 1, 1).await.unwrap();
    assert_eq!(page, kept[1..2]);
    assert!(publisher.dead_letters().list(&session(), 3, 5).await.unwrap().is_empty());
    assert!(publisher.dead_letters().list(&session(), 0, 0).await.unwrap().is_empty());
}

pub(crate) async fn every_reason_survives(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(keeping(10)).await;
    let exhausted = DiscardReason::AttemptsExhausted { attempts: 3, last_error: "é\n\"".to_owned() };
    let undecodable = DiscardReason::Undecodable("x".into());
    let closed = DiscardReason::CannotOpen { key: "k".to_owned(), why: "no\n".to_owned() };
    let reasons = [
        DiscardReason::Expired,
        exhausted,
        DiscardReason::Superseded,
        undecodable,
        DiscardReason::Purged,
        closed,
        DiscardReason::NotSealed,
    ];
    push(&publisher, 0..reasons.len()).await;
    let taken = owner.take().await;
    let outcomes = reasons.iter().enumerate().map(|(position, reason)| MessageOutcome {
        position,
        discarded: Some(reason.clone()),
        receipt: None,
    });
    owner.take_after(&Delivered { outcomes: outcomes.collect(), ..delivered(&taken, reasons.len()) }).await;
    let kept = all(&publisher).await;
    assert_eq!(kept.iter().map(|letter| letter.reason.clone()).collect::<Vec<_>>(), reasons);
    assert_eq!((kept[1].attempts, kept[1].last_error.as_deref()), (3, Some("é\n\"")));
}

pub(crate) async fn bytes_of_any_kind_are_kept_as_they_are(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(keeping(10)).await;
    let strange: [&[u8]; 4] = [b"", b"\n\n", b"\xff\x00\r\n{}", &[0xfe; 5000]];
    for strange in strange {
        push(&publisher, [0]).await;
        let oldest = owner.take().await.items[0].mark.clone();
        assert_eq!(owner.consumer.replace_oldest(&oldest, strange.to_vec()).await.unwrap(), Replaced::Done);
        let taken = owner.take().await;
        owner.take_after(&discarded(&taken, 1, [0])).await;
    }
    let kept = all(&publisher).await;
    assert_eq!(kept.iter().map(|letter| letter.raw.as_slice()).collect::<Vec<_>>(), strange);
    assert!(kept.iter().all(|letter| letter.id.is_none() && letter.method.is_none()));
    let done = publisher.dead_letters().redrive(&session()).await.unwrap();
    assert_eq!((done.redriven, done.undecodable), (0, 4));
    assert_eq!(all(&publisher).await.len(), 4);
}

pub(crate) async fn nothing_is_kept_where_nothing_is_removed(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(keeping(10)).await;
    push(&publisher, 0..3).await;
    let taken = owner.take().await;
    let done = discarded(&taken, 2, 0..2);
    // Removed, and its answer lost: the repetition changes nothing.
    owner.take_after(&done).await;
    assert!(owner.take_after(&done).await.changed);
    assert_eq!(letters(&publisher).await, [0, 1]);
    // Displaced.
    let rest = owner.take().await;
    let _newer = Owner::claiming(&queue).await;
    owner.take_after(&discarded(&rest, 1, [0])).await;
    assert_eq!(letters(&publisher).await, [0, 1]);
}

pub(crate) async fn by_default_nothing_is_kept(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    discard(&publisher, &mut owner, 0..3).await;
    assert!(all(&publisher).await.is_empty());
    assert!(publisher.dead_letters().sessions().await.unwrap().is_empty());
}

pub(crate) async fn the_oldest_make_room(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(keeping(3)).await;
    discard(&publisher, &mut owner, 0..2).await;
    discard(&publisher, &mut owner, 2..7).await;
    assert_eq!(letters(&publisher).await, [4, 5, 6]);
}

pub(crate) async fn dead_letters_are_bounded_in_bytes(place: &Place) {
    let bounded = keeping(1000).message_max_bytes(2048).queue_max_bytes(10_000);
    let (publisher, _queue, mut owner) = place.pair(bounded).await;
    for n in 0..20 {
        let padded = note(n).with_meta(json!({"x": "x".repeat(1000)})).unwrap();
        publisher.push(&session(), padded).await.unwrap();
        let taken = owner.take().await;
        owner.take_after(&discarded(&taken, 1, [0])).await;
        let bytes: usize = all(&publisher).await.iter().map(|letter| letter.raw.len()).sum();
        assert!(bytes <= 10_000, "{bytes}");
    }
    let kept = letters(&publisher).await;
    assert!(kept.len() >= 4 && kept.ends_with(&[18, 19]), "{kept:?}");
}

pub(crate) async fn letters_of_messages_larger_than_are_allowed_are_bounded_too(place: &Place) {
    // Workers of others queue what they like.
    let bounded = keeping(1000).message_max_bytes(2048).queue_max_bytes(100_000);
    let (publisher, queue, _owner) = place.pair(bounded).await;
    for _ in 0..10 {
        queue.record(&session(), &rejected(0), &[b'x'; 30_000]).await.unwrap();
    }
    let kept = all(&publisher).await;
    let bytes: usize = kept.iter().map(|letter| letter.raw.len()).sum();
    assert!(!kept.is_empty() && bytes <= 100_000, "{bytes}");
}

pub(crate) async fn a_letter_larger_than_all_may_be_drives_no_other_out(place: &Place) {
    let bounded = keeping(1000).message_max_bytes(2048).queue_max_bytes(10_000);
    let (publisher, queue, mut owner) = place.pair(bounded).await;
    discard(&publisher, &mut owner, 0..2).await;
    queue.record(&session(), &rejected(0), &[b'x'; 20_000]).await.unwrap();
    assert_eq!(letters(&publisher).await, [0, 1]);
}

pub(crate) async fn a_page_beyond_all_letters_is_empty(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(keeping(10)).await;
    discard(&publisher, &mut owner, 0..2).await;
    let dead = publisher.dead_letters();
    for (skip, limit) in [(usize::MAX, 1), (usize::MAX, usize::MAX), (2, usize::MAX)] {
        assert!(dead.list(&session(), skip, limit).await.unwrap().is_empty());
    }
    assert_eq!(dead.list(&session(), 1, usize::MAX).await.unwrap().len(), 1);
}

pub(crate) async fn a_dead_letter_goes_at_its_time_whatever_came_after(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(keeping(100_000).dead_letter_life(Duration::from_secs(1))).await;
    discard(&publisher, &mut owner, 0..2).await;
    assert_eq!(letters(&publisher).await, [0, 1]);
    let (begun, mut newest, mut n) = (Instant::now(), Instant::now(), 2);
    while letters(&publisher).await.contains(&1) {
        assert!(begun.elapsed() < SOON, "it stays");
        newest = Instant::now();
        discard(&publisher, &mut owner, n..n + 1).await;
        n += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stay = !letters(&publisher).await.is_empty();
    assert!(stay || newest.elapsed() >= Duration::from_secs(1), "those that came after stay");
    eventually("the end of all", SOON, async || letters(&publisher).await.is_empty()).await;
}

pub(crate) async fn a_session_is_found_for_no_longer_than_its_letters_live(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(keeping(10).dead_letter_life(Duration::from_secs(1))).await;
    discard(&publisher, &mut owner, 0..1).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    discard(&publisher, &mut owner, 1..2).await;
    // The key lives as long as the newest letter would have lived, which is queued again.
    let newest = all(&publisher).await.last().unwrap().id.unwrap();
    assert_eq!(publisher.dead_letters().redrive_only(&session(), &[newest]).await.unwrap().redriven, 1);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(publisher.dead_letters().sessions().await.unwrap().is_empty());
}

pub(crate) async fn redriving_queues_in_order_behind_what_is_queued_from_the_beginning(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(keeping(100)).await;
    for n in 0..30 {
        let short = note(n).with_time_to_live(Duration::from_secs(7)).unwrap();
        publisher.push(&session(), short).await.unwrap();
    }
    let mut taken = owner.take().await;
    let failed = envelopes(&taken)[0].after_failure("once");
    assert_eq!(owner.consumer.replace_oldest(&taken.items[0].mark, failed).await.unwrap(), Replaced::Done);
    taken = owner.take().await;
    let ids: Vec<_> = envelopes(&taken).iter().map(|envelope| envelope.id).collect();
    owner.take_after(&discarded(&taken, 30, 0..30)).await;
    let kept = all(&publisher).await;
    assert_eq!((kept[0].attempts, kept[0].last_error.as_deref()), (1, Some("once")));
    push(&publisher, 100..102).await;
    let done = publisher.dead_letters().redrive(&session()).await.unwrap();
    assert_eq!((done.redriven, done.full, done.undecodable, done.obsolete), (30, None, 0, 0));
    assert!(all(&publisher).await.is_empty());
    let again = owner.take().await;
    assert_eq!(numbers(&again), [100, 101].into_iter().chain(0..30).collect::<Vec<_>>());
    for (envelope, id) in envelopes(&again)[2..].iter().zip(ids) {
        assert_eq!((envelope.id, envelope.attempt, &envelope.last_error), (id, 0, &None));
        let (from, to) = (envelope.enqueued_at.unwrap(), envelope.expires_at.unwrap());
        assert!(from.to_system() >= kept[29].at);
        assert_eq!(to.since(from), Duration::from_secs(7));
    }
}

pub(crate) async fn single_letters_can_be_redriven_by_their_ids(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(keeping(100)).await;
    discard(&publisher, &mut owner, 0..25).await;
    let kept = all(&publisher).await;
    let ids = [20, 3, 14].map(|n| kept[n].id.unwrap());
    let done = publisher.dead_letters().redrive_only(&session(), &ids).await.unwrap();
    assert_eq!(done.redriven, 3);
    assert_eq!(numbers(&owner.take().await), [3, 14, 20]);
    assert_eq!(letters(&publisher).await, (0..25).filter(|n| ![3, 14, 20].contains(n)).collect::<Vec<_>>());
    assert_eq!(publisher.dead_letters().redrive_only(&session(), &ids).await.unwrap().redriven, 0);
}

pub(crate) async fn what_does_not_fit_stays_and_the_answer_says_how_many_went(place: &Place) {
    let bounded = keeping(100).queue_max_messages(4);
    let (publisher, _queue, mut owner) = place.pair(bounded).await;
    discard(&publisher, &mut owner, 0..4).await;
    discard(&publisher, &mut owner, 4..6).await;
    push(&publisher, [9]).await;
    let done = publisher.dead_letters().redrive(&session()).await.unwrap();
    assert_eq!((done.redriven, done.full), (3, Some(QueueLimit::Messages(4))));
    assert_eq!(letters(&publisher).await, [3, 4, 5]);
    assert_eq!(numbers(&owner.take().await), [9, 0, 1, 2]);
}

pub(crate) async fn a_letter_is_redriven_only_where_it_was_seen(place: &Place) {
    use mcp_courier::testing::backend::Redrove;
    let (publisher, queue, mut owner) = place.pair(keeping(100)).await;
    push(&publisher, [7]).await;
    let draft = {
        // The same notification, as it would be queued anew.
        let id = envelopes(&owner.take().await)[0].id;
        mcp_courier::testing::envelope::Draft::new(&note(7), id, SOON)
    };
    let taken = owner.take().await;
    owner.take_after(&discarded(&taken, 1, [0])).await;
    let (seen, _) = queue.dead_letters(&session(), 0, 10).await.unwrap();
    assert_eq!(queue.redrive(&session(), 1, &seen[0].mark, &draft).await.unwrap(), Redrove::Changed);
    let other = Mark::of(b"another");
    assert_eq!(queue.redrive(&session(), 0, &other, &draft).await.unwrap(), Redrove::Changed);
    assert_eq!(queue.redrive(&session(), 0, &seen[0].mark, &draft).await.unwrap(), Redrove::Done);
    assert_eq!(queue.redrive(&session(), 0, &seen[0].mark, &draft).await.unwrap(), Redrove::Changed);
    assert_eq!(numbers(&owner.take().await), [7]);
    assert!(all(&publisher).await.is_empty());
}

pub(crate) async fn two_who_redrive_at_once_lose_and_double_nothing(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(keeping(100)).await;
    discard(&publisher, &mut owner, 0..50).await;
    let other = place.publisher(keeping(100)).await;
    let (dead, others, session) = (publisher.dead_letters(), other.dead_letters(), session());
    let (a, b) = tokio::join!(dead.redrive(&session), others.redrive(&session));
    assert_eq!(a.unwrap().redriven + b.unwrap().redriven, 50);
    assert_eq!(numbers(&owner.take().await), (0..50).collect::<Vec<_>>());
}

pub(crate) async fn dead_letters_are_purged_and_their_sessions_found(place: &Place) {
    // What Redis would read as a pattern, and what begins like another session's.
    let queue = place.queue(keeping(10).prefix("a*[b]?")).await;
    let publisher = place.publisher(keeping(10).prefix("a*[b]?")).await;
    let other = place.publisher(keeping(10).prefix("axbx")).await;
    let mut ids: Vec<_> = ["s", "s:dead", "a*", "{s}", "%"].map(|id| SessionId::new(id).unwrap()).into();
    for id in &ids {
        publisher.push(id, note(0)).await.unwrap();
        let mut consumer =
            queue.open(id, mcp_courier::testing::backend::OwnerToken::new(), Default::default()).await.unwrap();
        consumer.claim().await.unwrap();
        let taken = consumer.take(None).await.unwrap();
        consumer.take(Some(&discarded(&taken, 1, [0]))).await.unwrap();
    }
    ids.sort();
    assert_eq!(publisher.dead_letters().sessions().await.unwrap(), ids);
    assert!(other.dead_letters().sessions().await.unwrap().is_empty());
    assert_eq!(publisher.dead_letters().purge(&ids[0]).await.unwrap(), 1);
    assert_eq!(publisher.dead_letters().purge(&ids[0]).await.unwrap(), 0);
    assert_eq!(publisher.dead_letters().sessions().await.unwrap(), ids[1..]);
}

pub(crate) async fn what_is_in_no_queue_any_more_can_be_kept_too(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(keeping(10)).await;
    push(&publisher, [5]).await;
    let mut taken = owner.take().await;
    let now = owner.take_after(&delivered(&taken, 1)).await.now;
    let raw = taken.items.remove(0).envelope.unwrap().after_failure("x");
    queue.record(&session(), &rejected(0), &raw).await.unwrap();
    let kept = all(&publisher).await;
    assert_eq!(kept.len(), 1);
    assert_about(kept[0].at, now.to_system());
    assert_eq!((number(&kept[0]), kept[0].attempts), (5, 1));
}
