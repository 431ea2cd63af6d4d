use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::notification::NotificationId;

fn message() -> impl Strategy<Value = Option<MessageId>> {
    proptest::option::of(
        (any::<u128>(), any::<u64>())
            .prop_map(|(id, at)| MessageId { notification: NotificationId(Uuid::from_u128(id)), at }),
    )
}

/// Positions in the form of rmcp, of an event store, of an earlier version, and of a forger.
fn position() -> impl Strategy<Value = String> {
    prop_oneof![
        "[0-9a-f]{16}-[0-9]{1,9}",
        "[0-9a-f-]{36}:common\\|[0-9]{13}-[0-9]",
        "(closed|resumed)-[0-9a-f]{32}-[0-9]{1,3}",
        "[~.e0-9a-f]{1,60}",
        "[^\n\r\0]{1,40}",
    ]
}

proptest! {
    #[test]
    fn an_id_is_read_as_it_was_written(position in proptest::option::of(position()), received in message()) {
        let resumed = EventId { position: position.as_deref(), token: None, received };
        let mut ids = EventIds::behind(Some(resumed));
        for n in 0..3 {
            let id = ids.next();
            let text = id.to_string();
            let read = EventId::parse(&text);
            prop_assert_eq!(read, id);
            prop_assert_eq!(read.token.unwrap().event, n);
            prop_assert!(read.is_typed() && !read.is_early_close());
            prop_assert_eq!((read.position, read.received), (position.as_deref(), received));
            let closed = read.early_close().to_string();
            let closed = EventId::parse(&closed);
            prop_assert!(closed.is_typed() && closed.is_early_close());
            prop_assert_eq!((closed.position, closed.received), (position.as_deref(), received));
        }
    }

    #[test]
    fn an_id_is_appended_as_it_is_displayed(
        position in proptest::option::of(position()),
        received in message(),
        next in prop_oneof![0u64..300, any::<u64>().prop_map(|n| n / 2)],
    ) {
        let mut ids = EventIds::behind(Some(EventId { position: position.as_deref(), token: None, received }));
        for position in [None, Some("e-7")] {
            if let Some(position) = position {
                ids.set_position(position);
            }
            let mut out = String::from("id: ");
            ids.next = next;
            ids.push_next(&mut out);
            prop_assert_eq!(ids.next, next + 1);
            ids.next = next;
            prop_assert_eq!(out, format!("id: {}", ids.next()));
        }
    }

    #[test]
    fn a_forged_id_is_a_position_and_names_no_message(
        id in ".*|[0-9a-f]{0,20}(~[ceECx]?[0-9a-fA-F+]{15,17}\\.?[0-9a-f]{0,17}){0,2}~?[0-9a-f.]{0,50}",
    ) {
        let read = EventId::parse(&id);
        // An id that is read as one of ours is written in the very same way.
        prop_assert_eq!(read.to_string(), id.clone());
        if !read.is_typed() {
            prop_assert_eq!((read.position.unwrap_or_default(), read.received), (id.as_str(), None));
        }
        let _ = read.early_close();
        prop_assert_eq!(Epoch::new().unmark(&id), None);
    }

    #[test]
    fn any_cut_of_an_id_names_no_other_message(received in message(), at in 0usize..120) {
        let mut ids = EventIds::behind(Some(EventId { position: Some("p-1"), token: None, received }));
        let text = ids.next().to_string();
        let cut = EventId::parse(&text[..at.min(text.len())]);
        // A message whose time lacks digits was never queued, so nothing matches it.
        let same = |message: MessageId| received.is_some_and(|whole| whole.notification == message.notification);
        prop_assert!(cut.received.is_none_or(same));
    }
}

#[test]
fn ids_are_unique_across_streams_and_carry_on_what_came_before() {
    let mut seen = HashSet::new();
    let mut last = String::new();
    for _ in 0..50 {
        let mut ids = EventIds::behind(Some(EventId::parse(&last)));
        for n in 0..20 {
            if n == 7 {
                ids.set_position("e-7");
            }
            last = ids.next().to_string();
            assert!(seen.insert(last.clone()), "{last} came twice");
        }
        last = EventId::parse(&last).early_close().to_string();
        assert!(seen.insert(last.clone()), "{last} came twice");
    }
    assert_eq!(EventId::parse(&last).position, Some("e-7"));
}

#[test]
fn a_long_position_and_one_that_breaks_lines_are_not_repeated() {
    for position in ["x".repeat(POSITION_MAX + 1), "a\nid: b".to_owned(), "a\0".to_owned()] {
        let id = EventId::parse(&position);
        assert_eq!(id.position, Some(position.as_str()), "an event store may still know it");
        assert_eq!(EventIds::behind(Some(id)).next().position, None);
        assert_eq!(id.early_close().position, None);
    }
    let mut ids = EventIds::behind(None);
    ids.set_position("a\nb");
    assert_eq!(ids.next().position, None);
    let longest = "x".repeat(POSITION_MAX);
    assert_eq!(EventIds::behind(Some(EventId::parse(&longest))).next().position, Some(longest.as_str()));
}

#[test]
fn only_positions_of_this_process_are_recognised() {
    let (ours, other) = (Epoch::new(), Epoch::new());
    assert_eq!(ours.unmark(&ours.mark("3/7")), Some("3/7"));
    for foreign in [other.mark("3"), "3".to_owned(), String::new()] {
        assert_eq!(ours.unmark(&foreign), None);
    }
}
