//! Clause 8: waiting.

use std::time::{Duration, Instant};

use mcp_courier::testing::backend::LeaseState;
use mcp_courier_testing::eventually::SOON;

use super::place::{Owner, Place, config, delivered, numbers, push};

const LONG: Duration = Duration::from_secs(60);

pub(crate) async fn a_wait_ends_at_the_next_push_and_takes_nothing_away(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    let (taken, ()) = tokio::join!(owner.wait(LONG), async {
        place.until_waiting(1).await;
        push(&publisher, 0..3).await;
    });
    assert_eq!((taken.lease, numbers(&taken)), (LeaseState::Held, vec![0, 1, 2]));
    assert_eq!(numbers(&owner.take().await), [0, 1, 2]);
}

pub(crate) async fn a_wait_ends_at_once_where_something_is_queued(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..2).await;
    for _ in 0..3 {
        assert_eq!(numbers(&owner.wait(LONG).await), [0, 1]);
    }
    let taken = owner.take().await;
    let rest = owner.take_after(&delivered(&taken, 1)).await;
    assert_eq!((numbers(&rest), rest.changed), (vec![1], false), "a wait is no change");
    assert_eq!(numbers(&owner.wait(LONG).await), [1]);
}

pub(crate) async fn a_wait_ends_after_its_time(place: &Place) {
    let (_publisher, _queue, mut owner) = place.pair(config()).await;
    for block in [0, 10, 50_000, 50_500].map(Duration::from_micros) {
        let begun = Instant::now();
        let taken = owner.wait(block).await;
        assert_eq!((taken.lease, taken.items.len()), (LeaseState::Held, 0));
        assert!(begun.elapsed() >= block.saturating_sub(Duration::from_millis(5)), "{block:?}");
        assert!(begun.elapsed() < SOON, "{block:?}");
    }
}

pub(crate) async fn a_wait_does_not_disturb_order(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().batch_messages(3)).await;
    let mut seen = Vec::new();
    let pushing = async {
        for n in 0..60 {
            push(&publisher, [2 * n, 2 * n + 1]).await;
        }
    };
    let taking = async {
        let mut taken = owner.wait(LONG).await;
        while seen.len() < 120 {
            seen.extend(numbers(&taken));
            taken = owner.take_after(&delivered(&taken, taken.items.len())).await;
            assert!(!taken.changed);
            if taken.items.is_empty() && seen.len() < 120 {
                taken = owner.wait(LONG).await;
            }
        }
    };
    tokio::join!(pushing, taking);
    assert_eq!(seen, (0..120).collect::<Vec<_>>());
}

pub(crate) async fn all_who_wait_are_woken(place: &Place) {
    let (publisher, queue, mut old) = place.pair(config()).await;
    let mut new = Owner::claiming(&queue).await;
    let (of_old, of_new, ()) = tokio::join!(old.wait(LONG), new.wait(LONG), async {
        place.until_waiting(2).await;
        push(&publisher, [0]).await;
    });
    assert_eq!((of_old.lease, of_old.items.len()), (LeaseState::Lost, 0));
    assert_eq!((of_new.lease, numbers(&of_new)), (LeaseState::Held, vec![0]));
}

pub(crate) async fn a_wait_that_was_dropped_loses_nothing(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    for round in 0..20 {
        tokio::select! {
            _ = owner.wait(LONG) => panic!("nothing was pushed"),
            () = place.until_waiting(1) => {}
        }
        // The connection may be gone before the push or after it.
        if round % 2 == 0 {
            owner.consumer = queue.open(&super::place::session(), owner.token, owner.permit.clone()).await.unwrap();
            push(&publisher, 0..3).await;
        } else {
            push(&publisher, 0..3).await;
            owner.consumer = queue.open(&super::place::session(), owner.token, owner.permit.clone()).await.unwrap();
        }
        let taken = owner.wait(LONG).await;
        assert_eq!((taken.lease, numbers(&taken)), (LeaseState::Held, vec![0, 1, 2]));
        assert!(!owner.take_after(&delivered(&taken, 3)).await.changed);
    }
}
