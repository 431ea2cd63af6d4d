//! Clause 18: receipts.

use std::time::Duration;

use mcp_courier::testing::backend::{Delivered, MessageOutcome, Taken};
use mcp_courier::{DiscardReason, NotificationId, Publisher, Receipt};
use mcp_courier_testing::eventually::{SOON, eventually};

use super::place::{Owner, Place, config, delivered, envelopes, note, numbers, push, session};

async fn push_one(publisher: &Publisher, n: usize) -> NotificationId {
    publisher.push(&session(), note(n).with_receipt()).await.unwrap().id
}

async fn receipt(publisher: &Publisher, id: NotificationId) -> Receipt {
    publisher.receipt(&session(), id).await.unwrap()
}

/// Returns the acknowledgement of the oldest message, with its outcome for the receipt.
fn settled(taken: &Taken, discarded: Option<DiscardReason>) -> Delivered {
    let receipt = Some(envelopes(taken)[0].id);
    Delivered { outcomes: vec![MessageOutcome { position: 0, discarded, receipt }], ..delivered(taken, 1) }
}

fn is_delivered(receipt: &Receipt) -> bool {
    matches!(receipt, Receipt::Delivered { .. })
}

pub(crate) async fn a_receipt_is_queued_with_the_push_and_settled_with_the_acknowledgement(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    let ids = [push_one(&publisher, 0).await, push_one(&publisher, 1).await];
    let taken = owner.take().await;
    assert!(envelopes(&taken).iter().all(|envelope| envelope.receipt));
    for (id, envelope) in ids.iter().zip(envelopes(&taken)) {
        let expires_at = envelope.expires_at.unwrap().to_system();
        assert_eq!(receipt(&publisher, *id).await, Receipt::Queued { expires_at });
    }
    let rest = owner.take_after(&settled(&taken, None)).await;
    assert_eq!(receipt(&publisher, ids[0]).await, Receipt::Delivered { at: rest.now.to_system() });
    let reason = DiscardReason::Rejected("no\n".to_owned());
    let done = owner.take_after(&settled(&rest, Some(reason.clone()))).await;
    assert_eq!(receipt(&publisher, ids[1]).await, Receipt::Discarded { reason, at: done.now.to_system() });
}

pub(crate) async fn only_who_asked_gets_a_receipt(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    // In one call, so that each gets its own.
    let batch = (0..6).map(|n| (session(), if n % 3 == 1 { note(n).with_receipt() } else { note(n) }));
    let ids: Vec<_> = publisher.push_many(batch).await.into_iter().map(|pushed| pushed.unwrap().id).collect();
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(receipt(&publisher, id).await != Receipt::Unknown, n % 3 == 1, "{n}");
    }
    assert_eq!(numbers(&owner.take().await), [0, 1, 2, 3, 4, 5]);
}

pub(crate) async fn a_refused_push_leaves_no_receipt(place: &Place) {
    let (publisher, _queue, _owner) = place.pair(config().queue_max_messages(1)).await;
    push(&publisher, [0]).await;
    let refused = publisher.push(&session(), note(1).with_receipt()).await.unwrap_err();
    assert_eq!(receipt(&publisher, refused.notification.id().unwrap()).await, Receipt::Unknown);
}

pub(crate) async fn what_was_delivered_stands_for_good(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    let id = push_one(&publisher, 0).await;
    let taken = owner.take().await;
    let mut newer = Owner::claiming(&queue).await;
    // Displaced: nothing is removed, and yet it was delivered.
    owner.take_after(&settled(&taken, None)).await;
    let told = receipt(&publisher, id).await;
    assert!(is_delivered(&told));
    let again = newer.take().await;
    assert_eq!(numbers(&again), [0]);
    newer.take_after(&settled(&again, Some(DiscardReason::Expired))).await;
    assert_eq!(receipt(&publisher, id).await, told);
}

pub(crate) async fn an_acknowledgement_that_finds_the_queue_changed_tells_what_was_delivered_and_not_what_was_discarded(
    place: &Place,
) {
    let (publisher, _queue, mut owner) = place.pair(config().dead_letters(10)).await;
    for discarded in [None, Some(DiscardReason::Expired)] {
        let id = push_one(&publisher, 0).await;
        let taken = owner.take().await;
        // Without a word of its outcome.
        assert!(!owner.take_after(&delivered(&taken, 1)).await.changed);
        assert!(owner.take_after(&settled(&taken, discarded.clone())).await.changed);
        let told = receipt(&publisher, id).await;
        match discarded {
            None => assert!(is_delivered(&told), "{told:?}"),
            Some(_) => assert!(matches!(told, Receipt::Queued { .. }), "{told:?}"),
        }
    }
    assert!(publisher.dead_letters().list(&session(), 0, 10).await.unwrap().is_empty());
}

pub(crate) async fn a_redriven_one_is_queued_again(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().dead_letters(10)).await;
    let id = push_one(&publisher, 0).await;
    let taken = owner.take().await;
    owner.take_after(&settled(&taken, Some(DiscardReason::Expired))).await;
    assert!(matches!(receipt(&publisher, id).await, Receipt::Discarded { .. }));
    assert_eq!(publisher.dead_letters().redrive(&session()).await.unwrap().redriven, 1);
    let again = owner.take().await;
    let expires_at = envelopes(&again)[0].expires_at.unwrap().to_system();
    assert_eq!(receipt(&publisher, id).await, Receipt::Queued { expires_at });
    owner.take_after(&settled(&again, None)).await;
    assert!(is_delivered(&receipt(&publisher, id).await));
}

pub(crate) async fn what_expires_without_an_owner_says_so(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    let short = note(0).with_receipt().with_time_to_live(Duration::from_millis(50)).unwrap();
    let id = publisher.push(&session(), short).await.unwrap().id;
    let taken = owner.take().await;
    let expired = envelopes(&taken)[0].expires_at.unwrap();
    eventually("its end", SOON, async || queue.receipt(&session(), id).await.unwrap().1 > expired).await;
    // Who owns it will say what becomes of it.
    assert_eq!(receipt(&publisher, id).await, Receipt::Queued { expires_at: expired.to_system() });
    assert!(queue.release(&session(), owner.token).await.unwrap());
    assert_eq!(receipt(&publisher, id).await, Receipt::Expired);
    assert_eq!(publisher.until_settled(&session(), id, SOON).await.unwrap(), Receipt::Expired);
}

pub(crate) async fn a_receipt_is_kept_for_a_bounded_time(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().receipt_life(Duration::from_secs(2))).await;
    let id = push_one(&publisher, 0).await;
    let taken = owner.take().await;
    owner.take_after(&settled(&taken, None)).await;
    assert!(is_delivered(&receipt(&publisher, id).await));
    eventually("its end", SOON, async || receipt(&publisher, id).await == Receipt::Unknown).await;
}

pub(crate) async fn all_who_wait_for_a_receipt_are_woken(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    let id = push_one(&publisher, 0).await;
    let other = push_one(&publisher, 1).await;
    let long = Duration::from_secs(60);
    let begun = std::time::Instant::now();
    let session = session();
    let wait = || publisher.until_settled(&session, id, long);
    let (a, b, c, ()) = tokio::join!(wait(), wait(), wait(), async {
        let taken = owner.take().await;
        owner.take_after(&settled(&taken, None)).await;
    });
    for told in [a, b, c] {
        assert!(is_delivered(&told.unwrap()));
    }
    assert!(begun.elapsed() < SOON, "by being told, not by looking again: {:?}", begun.elapsed());
    // One that was settled before is known at once, one that nobody knows too, and one that is not is told as it is.
    assert!(is_delivered(&publisher.until_settled(&session, id, long).await.unwrap()));
    let queued = publisher.until_settled(&session, other, Duration::from_millis(20)).await.unwrap();
    assert!(matches!(queued, Receipt::Queued { .. }));
    let never = publisher.push(&session, note(2)).await.unwrap().id;
    assert_eq!(publisher.until_settled(&session, never, long).await.unwrap(), Receipt::Unknown);
}

pub(crate) async fn many_receipts_of_one_batch_are_settled_each_by_its_own_fate(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().dead_letters(100)).await;
    let batch = (0..100).map(|n| (session(), note(n).with_receipt()));
    let ids: Vec<_> = publisher.push_many(batch).await.into_iter().map(|pushed| pushed.unwrap().id).collect();
    let taken = owner.take().await;
    let outcomes = ids.iter().enumerate().map(|(position, id)| MessageOutcome {
        position,
        discarded: (position % 3 == 0).then_some(DiscardReason::Superseded),
        receipt: Some(*id),
    });
    owner.take_after(&Delivered { outcomes: outcomes.collect(), ..delivered(&taken, 100) }).await;
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(is_delivered(&receipt(&publisher, id).await), n % 3 != 0, "{n}");
    }
    assert_eq!(publisher.dead_letters().list(&session(), 0, 100).await.unwrap().len(), 34);
}
