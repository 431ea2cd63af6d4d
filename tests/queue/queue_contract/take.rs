//! Clauses 3, 4, 10 and 12: looking, acknowledging, bounds of a batch, and what cannot be read.

use mcp_courier::testing::backend::{Delivered, LeaseState, Mark, Replaced};
use mcp_courier::testing::envelope::Undecodable;
use serde_json::json;

use super::place::{Owner, Place, config, delivered, note, numbers, push, session};

pub(crate) async fn looking_takes_nothing_away(place: &Place) {
    let (publisher, queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..3).await;
    let first = owner.take().await;
    assert_eq!((first.lease, first.changed), (LeaseState::Held, false));
    let second = owner.take().await;
    let marks =
        |taken: &mcp_courier::testing::backend::Taken| taken.items.iter().map(|i| i.mark.clone()).collect::<Vec<_>>();
    assert_eq!(marks(&first), marks(&second));
    let mut next = Owner::claiming(&queue).await;
    assert_eq!(marks(&first), marks(&next.take().await));
}

pub(crate) async fn an_acknowledgement_removes_what_it_names_and_nothing_else(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..5).await;
    let taken = owner.take().await;
    let rest = owner.take_after(&delivered(&taken, 2)).await;
    assert_eq!((numbers(&rest), rest.changed), (vec![2, 3, 4], false));
    let rest = owner.take_after(&delivered(&rest, 3)).await;
    assert_eq!((numbers(&rest), rest.changed), (vec![], false));
}

pub(crate) async fn what_is_pushed_meanwhile_stands_behind_what_is_acknowledged(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..3).await;
    let taken = owner.take().await;
    push(&publisher, 3..5).await;
    let rest = owner.take_after(&delivered(&taken, 3)).await;
    assert_eq!((numbers(&rest), rest.changed), (vec![3, 4], false));
}

pub(crate) async fn an_acknowledgement_whose_answer_was_lost_can_be_repeated(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..6).await;
    let taken = owner.take().await;
    let done = delivered(&taken, 2);
    owner.take_after(&done).await;
    let again = owner.take_after(&done).await;
    assert_eq!((numbers(&again), again.changed), (vec![2, 3, 4, 5], true));
}

pub(crate) async fn a_queue_that_was_emptied_and_filled_again_is_not_acknowledged(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..3).await;
    let taken = owner.take().await;
    owner.take_after(&delivered(&taken, 3)).await;
    let empty = owner.take_after(&delivered(&taken, 3)).await;
    assert_eq!((numbers(&empty), empty.changed), (vec![], true));
    push(&publisher, 3..6).await;
    let fresh = owner.take_after(&delivered(&taken, 3)).await;
    assert_eq!((numbers(&fresh), fresh.changed), (vec![3, 4, 5], true));
}

pub(crate) async fn a_message_that_only_ends_alike_is_not_acknowledged(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, [0]).await;
    let [short, long] = ["a", "aa"].map(|head| format!("{head}{}", "x".repeat(Mark::BYTES)).into_bytes());
    for message in [&short, &long] {
        let oldest = owner.take().await.items[0].mark.clone();
        assert_eq!(owner.consumer.replace_oldest(&oldest, message.clone()).await.unwrap(), Replaced::Done);
    }
    let alike = Delivered { count: 1, last: Mark::of(&short), questions: Vec::new(), outcomes: Vec::new() };
    let taken = owner.take_after(&alike).await;
    assert_eq!((taken.items.len(), taken.changed), (1, true));
    let replaced = owner.consumer.replace_oldest(&alike.last, short).await.unwrap();
    assert_eq!(replaced, Replaced::Changed);
    assert_eq!(owner.take().await.items[0].mark, Mark::of(&long));
}

pub(crate) async fn an_acknowledgement_of_more_than_there_is_removes_nothing(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..3).await;
    let taken = owner.take().await;
    owner.take_after(&delivered(&taken, 1)).await;
    let rest = owner.take_after(&delivered(&taken, 3)).await;
    assert_eq!((numbers(&rest), rest.changed), (vec![1, 2], true));
}

pub(crate) async fn an_acknowledgement_of_none_removes_nothing(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    push(&publisher, 0..2).await;
    let none = Delivered { count: 0, last: Mark::of(b"whatever"), questions: Vec::new(), outcomes: Vec::new() };
    let taken = owner.take_after(&none).await;
    assert_eq!((numbers(&taken), taken.changed), (vec![0, 1], false));
}

pub(crate) async fn a_batch_is_bounded_in_messages(place: &Place) {
    let publisher = place.publisher(config()).await;
    push(&publisher, 0..33).await;
    for bound in [1, 9, 10, 11, 20, 32, 33, 34, 1000] {
        let mut owner = Owner::claiming(&place.queue(config().batch_messages(bound)).await).await;
        assert_eq!(numbers(&owner.take().await), (0..bound.min(33)).collect::<Vec<_>>(), "{bound}");
    }
}

pub(crate) async fn a_batch_is_bounded_in_bytes(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    for n in 0..30 {
        let padded = note(n).with_meta(json!({"x": "x".repeat(n * 10)})).unwrap();
        publisher.push(&session(), padded).await.unwrap();
    }
    let sizes: Vec<usize> = owner.take().await.items.iter().map(|item| item.mark.length).collect();
    for fits in [1, 5, 10, 12, 30] {
        let exactly = sizes[..fits].iter().sum();
        let mut owner = Owner::claiming(&place.queue(config().batch_bytes(exactly)).await).await;
        assert_eq!(owner.take().await.items.len(), fits);
        let mut owner = Owner::claiming(&place.queue(config().batch_bytes(exactly - 1)).await).await;
        assert_eq!(owner.take().await.items.len(), (fits - 1).max(1));
    }
}

pub(crate) async fn one_message_is_given_however_large(place: &Place) {
    let (publisher, _queue, mut owner) = place.pair(config().batch_bytes(1)).await;
    push(&publisher, 0..3).await;
    let mut taken = owner.take().await;
    for n in 0..3 {
        assert_eq!(numbers(&taken), [n]);
        taken = owner.take_after(&delivered(&taken, 1)).await;
    }
    assert!(taken.items.is_empty());
}

pub(crate) async fn what_cannot_be_decoded_is_an_item_like_others(place: &Place) {
    let long = [b"\xff\x00{\"id".as_slice(), &[0xfe; 5000]].concat();
    let foreign = br#"{"notification":{"method":"tools/call"}}"#;
    let strange: [&[u8]; 5] = [b"nonsense", b"", b"\xff\x00\r\n", &long, foreign];
    let (publisher, _queue, mut owner) = place.pair(config()).await;
    for strange in strange {
        push(&publisher, 0..3).await;
        let oldest = owner.take().await.items[0].mark.clone();
        let replaced = owner.consumer.replace_oldest(&oldest, strange.to_vec()).await.unwrap();
        assert_eq!(replaced, Replaced::Done);
        let taken = owner.take().await;
        assert_eq!(taken.items.len(), 3);
        assert!(taken.items[0].mark.matches(strange));
        match (taken.items[0].envelope.as_ref().unwrap_err(), strange == foreign) {
            (Undecodable::Json(_), false) | (Undecodable::Notification(_), true) => {}
            (other, _) => panic!("{other}"),
        }
        let rest = owner.take_after(&delivered(&taken, 1)).await;
        assert_eq!((numbers(&rest), rest.changed), (vec![1, 2], false));
        owner.take_after(&delivered(&rest, 2)).await;
    }
}
