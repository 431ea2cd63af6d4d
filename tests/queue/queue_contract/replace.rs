//! Clause 7: a failed attempt is written in place.

use mcp_courier::testing::backend::{LeaseState, Replaced};

use super::place::{Owner, Place, config, delivered, envelopes, numbers, push, session};

pub(crate) async fn a_failed_attempt_stands_where_the_message_stood(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..3).await;
    for attempt in 1..4 {
        let before = owner.take().await;
        let oldest = envelopes(&before)[0].clone();
        let failed = oldest.after_failure(&format!("error {attempt}"));
        let replaced = owner.consumer.replace_oldest(&before.items[0].mark, failed).await.unwrap();
        assert_eq!(replaced, Replaced::Done);
        let after = owner.take().await;
        assert_eq!(numbers(&after), [0, 1, 2]);
        let again = envelopes(&after)[0];
        assert_eq!((again.id, again.expires_at), (oldest.id, oldest.expires_at));
        assert_eq!((again.attempt, again.last_error.clone()), (attempt, Some(format!("error {attempt}"))));
    }
    let taken = owner.take().await;
    assert_eq!(numbers(&owner.take_after(&delivered(&taken, 1)).await), [1, 2]);
}

pub(crate) async fn a_failed_attempt_survives_its_owner(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..2).await;
    let taken = owner.take().await;
    let failed = envelopes(&taken)[0].after_failure("x");
    owner.consumer.replace_oldest(&taken.items[0].mark, failed).await.unwrap();
    drop(owner);
    let mut next = Owner::claiming(&queue).await;
    let taken = next.take().await;
    assert_eq!((numbers(&taken), envelopes(&taken)[0].attempt), (vec![0, 1], 1));
}

pub(crate) async fn a_failed_attempt_is_not_written_over_another_message(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..3).await;
    let taken = owner.take().await;
    let failed = envelopes(&taken)[0].after_failure("x");
    let marks = [0, 1].map(|i| taken.items[i].mark.clone());
    for (i, expected) in [(1, Replaced::Changed), (0, Replaced::Done), (0, Replaced::Changed)] {
        let replaced = owner.consumer.replace_oldest(&marks[i], failed.clone()).await.unwrap();
        assert_eq!(replaced, expected);
    }
    let taken = owner.take().await;
    assert_eq!(numbers(&taken), [0, 1, 2]);
    assert_eq!(envelopes(&taken).iter().map(|e| e.attempt).collect::<Vec<_>>(), [1, 0, 0]);
    owner.take_after(&delivered(&taken, 3)).await;
    let replaced = owner.consumer.replace_oldest(&marks[0], failed).await.unwrap();
    assert_eq!(replaced, Replaced::Changed, "an empty queue has no oldest");
    assert!(owner.take().await.items.is_empty());
}

pub(crate) async fn a_failed_attempt_is_not_written_without_the_lease(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..2).await;
    let taken = owner.take().await;
    let (oldest, failed) = (taken.items[0].mark.clone(), envelopes(&taken)[0].after_failure("x"));
    assert!(queue.release(&session(), owner.token).await.unwrap());
    let absent = owner.consumer.replace_oldest(&oldest, failed.clone()).await.unwrap();
    assert_eq!(absent, Replaced::NotOwner);
    let mut other = Owner::claiming(&queue).await;
    let lost = owner.consumer.replace_oldest(&oldest, failed).await.unwrap();
    assert_eq!(lost, Replaced::NotOwner);
    let taken = other.take().await;
    assert_eq!((taken.lease, envelopes(&taken)[0].attempt), (LeaseState::Held, 0));
}
