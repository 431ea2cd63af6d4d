//! Clause 22: a push replaces only what nobody can have read.

use std::time::Duration;

use mcp_courier::testing::backend::LeaseState;
use mcp_courier::{DiscardReason, Notification, PushRefusal, Receipt};

use super::place::{Owner, Place, config, delivered, note, numbers, push_one, session};

fn keyed(n: usize, key: &str) -> Notification {
    note(n).with_collapse_key(key).unwrap()
}

pub(crate) async fn while_nobody_owns_a_session_the_newest_replaces_the_older_and_the_others_keep_their_order(
    place: &Place,
) {
    let (publisher, queue) = (place.publisher(config()).await, place.queue(config()).await);
    let expected = [
        (note(0), 1, false),
        (keyed(1, "a"), 2, false),
        (note(2), 3, false),
        (keyed(3, "b"), 4, false),
        (keyed(4, "a"), 4, true),
        (note(5), 5, false),
        (keyed(6, "a"), 5, true),
        (keyed(7, "b"), 5, true),
    ];
    for (notification, waiting, collapsed) in expected {
        let pushed = push_one(&publisher, notification).await;
        assert_eq!((pushed.waiting, pushed.collapsed), (waiting, collapsed));
    }
    let mut owner = Owner::claiming(&queue).await;
    let taken = owner.take().await;
    assert_eq!(numbers(&taken), [0, 2, 5, 6, 7]);
    assert!(owner.take_after(&delivered(&taken, 5)).await.items.is_empty());
}

pub(crate) async fn what_was_pushed_under_an_owner_is_never_replaced(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    push_one(&publisher, keyed(0, "a")).await;
    assert!(!push_one(&publisher, keyed(1, "a")).await.collapsed);
    assert_eq!(numbers(&owner.take().await), [0, 1]);
    assert!(queue.release(&session(), owner.token).await.unwrap());
    // The owner has read both, and its client may name either.
    assert!(!push_one(&publisher, keyed(2, "a")).await.collapsed);
    assert!(push_one(&publisher, keyed(3, "a")).await.collapsed);
    let mut next = Owner::claiming(&queue).await;
    assert_eq!(numbers(&next.take().await), [0, 1, 3]);
}

pub(crate) async fn what_waits_when_an_owner_comes_is_never_replaced_however_it_comes(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    let mut n = 0;
    for way in ["claim", "renewal", "take", "take with outcomes", "claim_if_absent"] {
        assert!(queue.release(&session(), owner.token).await.unwrap(), "{way}");
        let waits = push_one(&publisher, keyed(n, "a")).await.waiting;
        match way {
            "claim" => assert!(!owner.consumer.claim().await.unwrap()),
            "renewal" => assert_eq!(owner.consumer.renew().await.unwrap(), LeaseState::Reclaimed),
            "take" => assert_eq!(owner.take().await.lease, LeaseState::Reclaimed),
            "take with outcomes" => {
                let taken = owner.take().await;
                assert!(queue.release(&session(), owner.token).await.unwrap());
                push_one(&publisher, keyed(n + 1, "b")).await;
                let outcomes = vec![mcp_courier::testing::backend::MessageOutcome {
                    position: 0,
                    discarded: Some(DiscardReason::Expired),
                    receipt: None,
                }];
                let delivered = mcp_courier::testing::backend::Delivered { outcomes, ..delivered(&taken, 1) };
                assert_eq!(owner.take_after(&delivered).await.lease, LeaseState::Reclaimed);
                assert!(queue.release(&session(), owner.token).await.unwrap());
                assert!(!push_one(&publisher, keyed(n + 2, "b")).await.collapsed, "{way}");
                owner.consumer.claim().await.unwrap();
            }
            _ => assert!(queue.claim_if_absent(&session(), owner.token).await.unwrap().is_held()),
        }
        assert!(queue.release(&session(), owner.token).await.unwrap(), "{way}");
        let pushed = push_one(&publisher, keyed(n + 3, "a")).await;
        assert!(!pushed.collapsed && pushed.waiting > waits, "{way}: {pushed:?}");
        owner.consumer.claim().await.unwrap();
        n += 4;
    }
}

pub(crate) async fn the_receipt_of_a_replaced_one_says_so(place: &Place) {
    let publisher = place.publisher(config().dead_letters(10)).await;
    let first = push_one(&publisher, keyed(0, "a").with_receipt()).await;
    let second = push_one(&publisher, keyed(1, "a").with_receipt()).await;
    assert!(second.collapsed);
    let receipt = publisher.receipt(&session(), first.id).await.unwrap();
    assert!(matches!(receipt, Receipt::Discarded { reason: DiscardReason::Collapsed, .. }), "{receipt:?}");
    assert!(matches!(publisher.receipt(&session(), second.id).await.unwrap(), Receipt::Queued { .. }));
    let letters = publisher.dead_letters().list(&session(), 0, 10).await.unwrap();
    assert!(letters.is_empty(), "it is replaced, and no dead letter");
}

pub(crate) async fn what_lives_longer_is_not_replaced(place: &Place) {
    let (publisher, queue) = (place.publisher(config()).await, place.queue(config()).await);
    let living = |n, seconds| keyed(n, "a").with_time_to_live(Duration::from_secs(seconds)).unwrap();
    for (n, seconds, collapsed) in [(0, 100, false), (1, 50, false), (2, 50, true), (3, 100, true)] {
        assert_eq!(push_one(&publisher, living(n, seconds)).await.collapsed, collapsed, "{n}");
    }
    assert_eq!(numbers(&Owner::claiming(&queue).await.take().await), [0, 3]);
}

pub(crate) async fn what_is_pushed_again_replaces_nothing(place: &Place) {
    let (publisher, queue) = (place.publisher(config()).await, place.queue(config()).await);
    let small = place.publisher(config().message_max_bytes(512)).await;
    let large = keyed(0, "a").with_meta(serde_json::json!({"x": "x".repeat(512)})).unwrap();
    let refused = *small.push(&session(), large).await.unwrap_err().notification;
    push_one(&publisher, keyed(1, "a")).await;
    // An owner skips what it delivered under this id, so that nothing newer may go for its sake.
    assert!(!push_one(&publisher, refused).await.collapsed);
    assert!(push_one(&publisher, keyed(2, "a")).await.collapsed);
    assert_eq!(numbers(&Owner::claiming(&queue).await.take().await), [0, 2]);
}

pub(crate) async fn a_push_that_is_refused_replaces_nothing(place: &Place) {
    let bounds = || config().queue_max_messages(2);
    let (publisher, queue) = (place.publisher(bounds()).await, place.queue(bounds()).await);
    push_one(&publisher, keyed(0, "a")).await;
    push_one(&publisher, note(1)).await;
    let refused = publisher.push(&session(), keyed(2, "a")).await.unwrap_err();
    assert!(matches!(refused.reason, PushRefusal::QueueFull(_)), "{}", refused.reason);
    assert_eq!(numbers(&Owner::claiming(&queue).await.take().await), [0, 1]);
}

pub(crate) async fn in_one_call_the_last_of_each_key_is_left(place: &Place) {
    let bounds = || config().batch_messages(1000);
    let (publisher, queue) = (place.publisher(bounds()).await, place.queue(bounds()).await);
    let notification = |n: usize| match n % 100 {
        0 => note(n),
        _ => keyed(n, ["a", "b"][n % 2]).with_receipt(),
    };
    let pushed = publisher.push_many((0..1000).map(|n| (session(), notification(n)))).await;
    let pushed: Vec<_> = pushed.into_iter().map(Result::unwrap).collect();
    assert_eq!(pushed.iter().filter(|pushed| !pushed.collapsed).count(), 10 + 2);
    assert_eq!(pushed.last().unwrap().waiting, 12);
    let expected: Vec<usize> = (0..10).map(|n| n * 100).chain([998, 999]).collect();
    assert_eq!(numbers(&Owner::claiming(&queue).await.take().await), expected);
}

pub(crate) async fn kinds_collapse_by_default_and_not_where_that_is_off(place: &Place) {
    let publisher = place.publisher(config()).await;
    let progress = |token: &str| Notification::progress(token, 1.0, None, None).unwrap();
    let other = mcp_courier::LoggingLevel::Info;
    for _ in 0..3 {
        for notification in [
            progress("a"),
            progress("b"),
            Notification::resource_updated("file:///a"),
            Notification::tools_list_changed(),
            Notification::prompts_list_changed(),
            Notification::message(other, None, serde_json::json!("kept")),
            Notification::tools_list_changed().without_collapse(),
        ] {
            push_one(&publisher, notification).await;
        }
    }
    assert_eq!(push_one(&publisher, progress("a")).await.waiting, 5 + 3 + 3);
    let all = place.publisher(config().collapse(false)).await;
    assert!(!push_one(&all, progress("a")).await.collapsed);
    push_one(&all, keyed(0, "explicit")).await;
    assert!(push_one(&all, keyed(1, "explicit")).await.collapsed);
}

pub(crate) async fn what_is_too_large_or_under_too_many_keys_is_queued_as_all_others(place: &Place) {
    let publisher = place.publisher(config()).await;
    let large = |n| keyed(n, "large").with_meta(serde_json::json!({"x": "x".repeat(4096)})).unwrap();
    for n in 0..2 {
        assert!(!push_one(&publisher, large(n)).await.collapsed);
    }
    for pushed in publisher.push_many((0..1001).map(|n| (session(), keyed(n, &format!("key-{n}"))))).await {
        assert!(!pushed.unwrap().collapsed);
    }
    for (key, collapsed) in [("key-0", true), ("key-999", true), ("key-1000", false)] {
        assert_eq!(push_one(&publisher, keyed(7, key)).await.collapsed, collapsed, "{key}");
    }
}

pub(crate) async fn a_duplicate_replaces_nothing(place: &Place) {
    let (publisher, queue) = (place.publisher(config()).await, place.queue(config()).await);
    let step = |n: usize| keyed(n, "job").with_deduplication_key(format!("step-{n}")).unwrap();
    for n in 0..3 {
        push_one(&publisher, step(n)).await;
    }
    // A worker that begins again: what is there already is newer.
    let again = push_one(&publisher, step(1)).await;
    assert!(again.is_duplicate && !again.collapsed);
    assert_eq!(numbers(&Owner::claiming(&queue).await.take().await), [2]);
}
