//! [`Window`]: messages that were handed over and are not confirmed.
//!
//! A session confirms a batch with a delay of at least one round trip to the client. So further batches are handed over
//! meanwhile, up to the bounds of the window. A crash delivers the whole window again, which is why it has bounds.
//!
//! *Invariant*. `sent` is a contiguous part of the queue, which begins at the oldest message that is not counted for an
//! acknowledgement. `deliveries`, `bytes` and `derived` always describe exactly `sent`
//! (`whatever_is_added_and_confirmed_the_sums_are_right`). A gap would let an acknowledgement remove a message that
//! nobody received.
//!
//! *Bounds*. There is always room for one message, or a message that is larger than the window would block its queue
//! (`there_is_room_within_both_bounds_and_always_for_a_batch`).

use std::collections::{HashSet, VecDeque};

use foldhash::fast::RandomState;

use crate::config::Config;
use crate::envelope::Envelope;
use crate::envelope::{Mark, Timestamp};
use crate::notification::NotificationId;
use crate::question::Question;

/// Message of a delivery, with the data that its acknowledgement needs.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) mark: Mark,
    pub(super) id: NotificationId,
    pub(super) question: Option<Box<Question>>,
    pub(super) receipt: Option<NotificationId>,
    /// Time of the push, by the queue's clock as far as is known.
    pub(super) pushed_at: Option<Timestamp>,
}

impl Sent {
    pub(super) fn of(mark: Mark, envelope: &Envelope) -> Self {
        let (id, question) = (envelope.id, envelope.question.clone());
        Self { mark, id, question, receipt: envelope.receipt.then_some(id), pushed_at: envelope.enqueued_at }
    }
}

/// Oldest messages of a queue, over which a read passes. They are handed over, and stay in the queue until they are
/// confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// Number of the messages, at least 1.
    pub count: usize,
    /// Mark of the newest of these messages. Where the queue has another message at that position, nothing is read.
    pub last: Mark,
}

/// Messages of several deliveries, the oldest first. The confirmation of a delivery also confirms all earlier ones.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// Messages that were handed over and are not confirmed, the oldest first.
    sent: VecDeque<Sent>,
    /// Ids of the messages in `sent`, and of those that the running delivery has. A second message with such an id
    /// waits.
    ids: HashSet<NotificationId, RandomState>,
    /// Numbers of the deliveries in order, each with its number of messages in `sent`.
    deliveries: VecDeque<(u64, usize)>,
    /// Number of bytes of the messages in `sent`.
    bytes: usize,
    /// Number of messages in `sent` whose ids are derived from their contents.
    derived: usize,
}

impl Window {
    /// Reserves a place for a message that is about to be handed over. Returns `false` where a message of this id has a
    /// place already.
    pub(super) fn reserve(&mut self, id: NotificationId) -> bool {
        self.ids.insert(id)
    }

    /// Frees the places of messages that were not handed over.
    pub(super) fn release<'a>(&mut self, unsent: impl Iterator<Item = &'a Sent>) {
        for Sent { id, .. } in unsent {
            self.ids.remove(id);
        }
    }

    /// Adds the messages of a delivery that were handed over. Their places were reserved before. The delivery is newer
    /// than all others.
    pub(super) fn add(&mut self, delivery: u64, sent: impl Iterator<Item = Sent>) {
        let before = self.sent.len();
        for message in sent {
            self.bytes += message.mark.length;
            self.derived += usize::from(message.id.is_derived());
            self.sent.push_back(message);
        }
        self.deliveries.push_back((delivery, self.sent.len() - before));
    }

    /// Removes and returns the messages of this delivery and of all earlier ones.
    pub(super) fn confirm(&mut self, delivery: u64) -> impl Iterator<Item = Sent> {
        let mut count = 0;
        while let Some((_, messages)) = self.deliveries.front().filter(|(number, _)| *number <= delivery) {
            count += messages;
            self.deliveries.pop_front();
        }
        for message in self.sent.iter().take(count) {
            self.bytes -= message.mark.length;
            self.derived -= usize::from(message.id.is_derived());
            self.ids.remove(&message.id);
        }
        self.sent.drain(..count)
    }

    /// Returns the messages, the oldest first.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Sent> {
        self.sent.iter()
    }

    /// Empties the window. Its messages stay in the queue and are delivered again.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Returns whether a message of `bytes` has room in the window.
    ///
    /// `more` is the number and the size of messages that are about to be handed over before this one. `confirmed`
    /// messages are not acknowledged yet, so they too would be delivered again after a crash.
    ///
    /// There are two bounds, of the window and of a batch, each in messages and in bytes. The window's bound counts
    /// `confirmed`, `sent`, `more` and this message. The bytes of `confirmed` messages are not counted. The exception
    /// is a window that is empty otherwise: there the bound of a batch suffices, and the first message needs no room.
    pub(super) fn has_room(&self, config: &Config, confirmed: usize, more: (usize, usize), bytes: usize) -> bool {
        let is_within = |messages: usize, most: usize, most_bytes: usize| {
            messages < most && self.bytes + more.1 + bytes <= most_bytes
        };
        let is_alone = self.sent.is_empty() && confirmed == 0;
        is_within(confirmed + self.sent.len() + more.0, config.window_messages(), config.window_bytes())
            || is_alone && (more.0 == 0 || is_within(more.0, config.batch_messages(), config.batch_bytes()))
    }

    /// Returns the messages over which the next read passes. Returns `None` where no read may happen behind them: equal
    /// messages with derived ids could be mistaken for each other.
    pub(super) fn behind(&self) -> Option<Behind> {
        let last = self.sent.back().filter(|_| self.derived == 0)?;
        Some(Behind { count: self.sent.len(), last: last.mark.clone() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn sent(n: u128) -> Sent {
        let mark = Mark::of(n.to_string().as_bytes());
        Sent { mark, id: NotificationId(Uuid::from_u128(n)), question: None, receipt: None, pushed_at: None }
    }

    fn of(messages: usize, bytes: usize) -> Config {
        Config::builder().window_messages(messages).window_bytes(bytes).build().unwrap()
    }

    /// Hands messages over in one delivery.
    fn add(window: &mut Window, delivery: u64, messages: impl IntoIterator<Item = Sent>) {
        let messages: Vec<Sent> = messages.into_iter().collect();
        assert!(messages.iter().all(|sent| window.reserve(sent.id)));
        window.add(delivery, messages.into_iter());
    }

    #[test]
    fn a_confirmation_is_of_all_deliveries_up_to_its_own() {
        let mut window = Window::default();
        add(&mut window, 1, [10, 11].into_iter().map(sent));
        add(&mut window, 2, []);
        add(&mut window, 3, [30].into_iter().map(sent));
        add(&mut window, 4, [40].into_iter().map(sent));
        let ids = |sent: Sent| sent.id.0.as_u128();
        assert_eq!(window.confirm(0).count(), 0);
        assert_eq!(window.confirm(3).map(ids).collect::<Vec<_>>(), [10, 11, 30]);
        assert!(window.reserve(sent(30).id) && !window.reserve(sent(40).id), "a place is taken until it is given up");
        window.release([sent(30)].iter());
        assert_eq!(window.behind(), Some(Behind { count: 1, last: sent(40).mark }));
        assert_eq!(window.confirm(9).map(ids).collect::<Vec<_>>(), [40]);
        assert!(window.is_empty() && window.behind().is_none());
    }

    #[test]
    fn there_is_room_within_both_bounds_and_always_for_a_batch() {
        let mut window = Window::default();
        assert!(window.has_room(&of(1, 1), 0, (0, 0), usize::MAX / 2), "one message always goes out");
        assert!(window.has_room(&of(1, 1), 0, (99, 1000), 1000) && !window.has_room(&of(1, 1), 0, (100, 1000), 1000));
        assert!(window.has_room(&of(3, 1000), 1, (1, 2), 2) && !window.has_room(&of(3, 1000), 2, (1, 2), 2));
        add(&mut window, 1, [10, 11].into_iter().map(sent));
        assert!(window.has_room(&of(4, 100), 0, (1, 2), 2) && !window.has_room(&of(4, 100), 0, (2, 4), 2));
        assert!(!window.has_room(&of(4, 100), 1, (1, 2), 2));
        assert!(window.has_room(&of(9, 8), 0, (1, 2), 2) && !window.has_room(&of(9, 7), 0, (1, 2), 2));
    }

    #[test]
    fn nothing_is_read_behind_messages_whose_ids_are_derived() {
        let mut window = Window::default();
        add(&mut window, 1, [Sent { id: NotificationId::derived(b"x"), ..sent(1) }]);
        add(&mut window, 2, [sent(2)]);
        assert_eq!(window.behind(), None);
        assert_eq!(window.confirm(1).count(), 1);
        assert_eq!(window.behind().map(|behind| behind.count), Some(1));
    }

    proptest! {
        #[test]
        fn whatever_is_added_and_confirmed_the_sums_are_right(steps in prop::collection::vec((0..5_usize, 0..3_u64), 0..30)) {
            let (mut window, mut number, mut next, mut model) = (Window::default(), 0, 0, VecDeque::new());
            for (count, confirmed) in steps {
                number += 1;
                add(&mut window, number, (0..count).map(|i| sent(next + i as u128)));
                model.push_back((number, count));
                next += count as u128;
                let up_to = number.saturating_sub(confirmed);
                let mut wanted = 0;
                while model.front().is_some_and(|(number, _)| *number <= up_to) {
                    wanted += model.pop_front().unwrap().1;
                }
                prop_assert_eq!(window.confirm(up_to).count(), wanted);
                let left: usize = model.iter().map(|(_, count)| count).sum();
                prop_assert_eq!((window.sent.len(), window.ids.len(), window.is_empty()), (left, left, model.is_empty()));
                prop_assert_eq!(window.bytes, window.sent.iter().map(|sent| sent.mark.length).sum::<usize>());
            }
        }
    }
}
