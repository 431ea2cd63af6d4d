//! Clause 19: deduplication keys.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_courier::testing::backend::{Delivered, MessageOutcome};
use mcp_courier::{DiscardReason, Notification, PushRefusal, QueueLimit, Receipt, SessionId};
use mcp_courier_testing::eventually::{SOON, eventually};

use super::place::{Place, config, delivered, envelopes, note, numbers, push_one, session};

fn keyed(n: usize, key: &str) -> Notification {
    note(n).with_deduplication_key(key).unwrap()
}

pub(crate) async fn a_key_that_was_pushed_before_queues_nothing_and_answers_with_the_first(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    let first = push_one(&publisher, keyed(0, "job-1")).await;
    assert!(!first.is_duplicate);
    // A worker that has restarted.
    let restarted = place.publisher(config()).await;
    let second = push_one(&restarted, keyed(1, "job-1")).await;
    assert_eq!((second.is_duplicate, second.id, second.waiting), (true, first.id, 1));
    assert_eq!(second.session, first.session);
    assert!(!push_one(&restarted, keyed(2, "job-2")).await.is_duplicate);
    // A notification without a key is never a duplicate.
    push_one(&restarted, note(3)).await;
    let fourth = push_one(&restarted, note(3)).await;
    assert_eq!((fourth.is_duplicate, fourth.waiting), (false, 4));
    assert_eq!(numbers(&owner.take().await), [0, 2, 3, 3]);
}

pub(crate) async fn a_key_is_remembered_whatever_became_of_its_notification(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().expiry_grace(Duration::ZERO)).await;
    let first = push_one(&publisher, keyed(0, "delivered")).await;
    let taken = owner.take().await;
    assert!(owner.take_after(&delivered(&taken, 1)).await.items.is_empty());
    assert_eq!(push_one(&publisher, keyed(1, "delivered")).await.id, first.id);
    let away = SessionId::new("away").unwrap();
    let expiring = keyed(2, "expired").with_time_to_live(Duration::from_millis(20)).unwrap();
    let first = publisher.push(&away, expiring).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    let again = publisher.push(&away, keyed(3, "expired")).await.unwrap();
    assert_eq!((again.is_duplicate, again.id, again.waiting), (true, first.id, 0));
    assert!(owner.take().await.items.is_empty());
}

pub(crate) async fn the_receipt_of_the_first_is_found_by_the_answer_to_the_second(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push_one(&publisher, keyed(0, "job").with_receipt()).await;
    let taken = owner.take().await;
    let outcome = MessageOutcome { position: 0, discarded: None, receipt: Some(envelopes(&taken)[0].id) };
    owner.take_after(&Delivered { outcomes: vec![outcome], ..delivered(&taken, 1) }).await;
    let again = push_one(&publisher, keyed(1, "job").with_receipt()).await;
    let receipt = publisher.receipt(&session(), again.id).await.unwrap();
    assert!(again.is_duplicate && matches!(receipt, Receipt::Delivered { .. }), "{receipt:?}");
}

pub(crate) async fn a_refused_push_leaves_no_key(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().queue_max_messages(1)).await;
    push_one(&publisher, note(0)).await;
    let refused = publisher.push(&session(), keyed(1, "job")).await.unwrap_err();
    assert!(matches!(refused.reason, PushRefusal::QueueFull(_)));
    let taken = owner.take().await;
    owner.take_after(&delivered(&taken, 1)).await;
    assert!(!push_one(&publisher, keyed(2, "job")).await.is_duplicate);
    assert_eq!(numbers(&owner.take().await), [2]);
}

pub(crate) async fn a_notification_that_is_pushed_again_under_its_id_is_its_own_duplicate(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config().queue_max_messages(1)).await;
    // The refusal gives the notification its id, as the lost answer to a push does.
    push_one(&publisher, note(0)).await;
    let refused = publisher.push(&session(), keyed(1, "job")).await.unwrap_err();
    let taken = owner.take().await;
    owner.take_after(&delivered(&taken, 1)).await;
    let first = push_one(&publisher, (*refused.notification).clone()).await;
    assert!(!first.is_duplicate && Some(first.id) == refused.notification.id());
    for _ in 0..2 {
        let again = push_one(&publisher, (*refused.notification).clone()).await;
        assert_eq!((again.is_duplicate, again.id), (true, first.id));
        // The second time its notification has been delivered.
        let taken = owner.take().await;
        if !taken.items.is_empty() {
            owner.take_after(&delivered(&taken, 1)).await;
        }
    }
    drop(queue);
    assert!(owner.take().await.items.is_empty());
}

pub(crate) async fn a_key_that_stands_twice_in_a_call_is_queued_once_and_the_others_keep_their_order(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    let call = [
        (session(), note(0).with_receipt()),
        (session(), keyed(1, "a").with_receipt()),
        (session(), keyed(2, "a").with_receipt()),
        (session(), keyed(3, "b")),
        (session(), note(4).with_receipt()),
        (session(), keyed(5, "b").with_receipt()),
    ];
    let pushed: Vec<_> = publisher.push_many(call).await.into_iter().map(Result::unwrap).collect();
    let duplicates: Vec<_> = pushed.iter().map(|pushed| pushed.is_duplicate).collect();
    assert_eq!(duplicates, [false, false, true, false, false, true]);
    assert_eq!(pushed.iter().map(|pushed| pushed.waiting).collect::<Vec<_>>(), [1, 2, 2, 3, 4, 4]);
    assert_eq!((pushed[2].id, pushed[5].id), (pushed[1].id, pushed[3].id));
    for (n, wanted) in [(0, true), (1, true), (3, false), (4, true)] {
        let receipt = publisher.receipt(&session(), pushed[n].id).await.unwrap();
        assert_eq!(matches!(receipt, Receipt::Queued { .. }), wanted, "{n}: {receipt:?}");
    }
    assert_eq!(numbers(&owner.take().await), [0, 1, 3, 4]);
}

pub(crate) async fn a_call_that_a_bound_stops_remembers_the_keys_of_what_it_queued_only(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().queue_max_messages(2)).await;
    let call = ["a", "a", "b", "c", "a"].into_iter().enumerate().map(|(n, key)| (session(), keyed(n, key)));
    let results: Vec<_> =
        publisher.push_many(call).await.into_iter().map(|result| result.map_err(|e| e.reason)).collect();
    assert!(results[..3].iter().all(Result::is_ok), "{results:?}");
    assert!(matches!(results[3], Err(PushRefusal::QueueFull(QueueLimit::Messages(2)))), "{results:?}");
    assert!(matches!(results[4], Err(PushRefusal::AfterRefused)), "{results:?}");
    let taken = owner.take().await;
    assert_eq!(numbers(&taken), [0, 2]);
    owner.take_after(&delivered(&taken, 2)).await;
    for (key, is_duplicate) in [("a", true), ("b", true), ("c", false)] {
        assert_eq!(push_one(&publisher, keyed(7, key)).await.is_duplicate, is_duplicate, "{key}");
    }
}

pub(crate) async fn a_full_queue_answers_a_duplicate(place: &Place) {
    let (publisher, _queue, _owner) = place.pair(config().queue_max_messages(1)).await;
    let first = push_one(&publisher, keyed(0, "job")).await;
    assert_eq!(push_one(&publisher, keyed(1, "job")).await.id, first.id);
}

pub(crate) async fn each_session_has_its_own_keys(place: &Place) {
    let (publisher, queue, owner) = place.pair(config()).await;
    let other = SessionId::new("another").unwrap();
    let mut anothers = queue.open(&other, owner.token, owner.permit.clone()).await.unwrap();
    anothers.claim().await.unwrap();
    let everyone = publisher.broadcast(&keyed(0, "news")).await.unwrap();
    assert_eq!(everyone.len(), 2);
    assert!(everyone.into_iter().all(|pushed| !pushed.unwrap().is_duplicate));
    let again = publisher.broadcast(&keyed(1, "news")).await.unwrap();
    assert!(again.into_iter().all(|pushed| pushed.unwrap().is_duplicate));
}

pub(crate) async fn a_key_is_forgotten_after_the_window(place: &Place) {
    let window = Duration::from_secs(1);
    let (publisher, _queue, mut owner) = place.pair(config().deduplication_window(window).batch_messages(1000)).await;
    let first = push_one(&publisher, keyed(0, "job")).await;
    // Each push of another key lengthens the life of the keys in Redis, and must not lengthen the memory of this key.
    let (others, publisher) = (AtomicUsize::new(1), &publisher);
    eventually("the end of the window", SOON, || {
        let n = others.fetch_add(1, Ordering::Relaxed);
        async move {
            push_one(publisher, keyed(n, &format!("other-{n}"))).await;
            !push_one(publisher, keyed(0, "job")).await.is_duplicate
        }
    })
    .await;
    owner.settle().await;
    let taken = owner.take().await;
    let of_the_job: Vec<_> = envelopes(&taken).into_iter().filter(|e| e.params().contains("\"n\":0")).collect();
    assert_eq!((of_the_job.len(), of_the_job[0].id), (2, first.id));
    let apart = of_the_job[1].enqueued_at.unwrap().since(of_the_job[0].enqueued_at.unwrap());
    assert!(apart >= window, "{apart:?}");
}

pub(crate) async fn the_newest_keys_are_remembered_and_the_oldest_forgotten(place: &Place) {
    const KEPT: usize = 10;
    let (publisher, _queue, _owner) = place.pair(config().deduplication_keys(KEPT)).await;
    let key = |n: usize| keyed(n, &format!("job-{n}"));
    for n in 0..5 * KEPT {
        assert!(!push_one(&publisher, key(n)).await.is_duplicate);
        let kept = n.saturating_sub(KEPT - 1)..=n;
        for remembered in kept {
            assert!(push_one(&publisher, key(remembered)).await.is_duplicate, "{remembered} of {n}");
        }
    }
    assert!(!push_one(&publisher, key(0)).await.is_duplicate, "more than twice as many are not kept");
}

pub(crate) async fn a_redriven_letter_is_not_stopped_by_its_own_key(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().dead_letters(10)).await;
    let first = push_one(&publisher, keyed(0, "job")).await;
    let taken = owner.take().await;
    let reason = Some(DiscardReason::Rejected("no".to_owned()));
    let outcome = MessageOutcome { position: 0, discarded: reason, receipt: None };
    owner.take_after(&Delivered { outcomes: vec![outcome], ..delivered(&taken, 1) }).await;
    assert!(push_one(&publisher, keyed(1, "job")).await.is_duplicate);
    assert_eq!(publisher.dead_letters().redrive(&session()).await.unwrap().redriven, 1);
    let taken = owner.take().await;
    assert_eq!((numbers(&taken), envelopes(&taken)[0].id), (vec![0], first.id));
}
