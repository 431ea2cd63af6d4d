//! [`Grouped`]: messages of one push, grouped by session.

use std::collections::HashMap;
use std::ops::Range;

use crate::backend::Outgoing;
use crate::session_id::SessionId;

/// Messages of a batch, session by session in the order given, with a note of those that still wait for their call.
#[derive(Debug)]
pub(super) struct Grouped<'a> {
    batch: &'a [Outgoing],
    /// Places in the batch. Places of one session stand together.
    order: Vec<usize>,
    groups: Vec<Group>,
}

/// Messages of one session, by their places in the order.
#[derive(Debug, Clone)]
struct Group {
    /// Places in `order` of all messages of the session.
    all: Range<usize>,
    /// Place in `order` of the first message that still waits.
    next: usize,
}

impl<'a> Grouped<'a> {
    /// Groups a batch. Sessions are numbered in the order of their first messages.
    pub(super) fn new(batch: &'a [Outgoing]) -> Self {
        let (mut numbers, mut lengths) = (HashMap::with_capacity(batch.len()), Vec::new());
        let group_of: Vec<usize> = batch
            .iter()
            .map(|outgoing| {
                let number = *numbers.entry(&outgoing.session).or_insert(lengths.len());
                if number == lengths.len() {
                    lengths.push(0);
                }
                lengths[number] += 1;
                number
            })
            .collect();
        let mut end = 0;
        let mut groups: Vec<Group> = lengths
            .into_iter()
            .map(|length: usize| {
                let first = end;
                end += length;
                Group { all: first..end, next: first }
            })
            .collect();
        let mut order = vec![0; batch.len()];
        for (place, group) in group_of.into_iter().enumerate() {
            let group = &mut groups[group];
            order[group.next] = place;
            group.next += 1;
        }
        for group in &mut groups {
            group.next = group.all.start;
        }
        Self { batch, order, groups }
    }

    /// Returns the number of sessions.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn session(&self, group: usize) -> &'a SessionId {
        &self.batch[self.order[self.groups[group].all.start]].session
    }

    /// Returns the places in the batch of all messages of a session.
    pub(super) fn all(&self, group: usize) -> &[usize] {
        &self.order[self.groups[group].all.clone()]
    }

    /// Returns the places in the batch of the messages that still wait.
    pub(super) fn rest(&self, group: usize) -> &[usize] {
        let Group { all, next } = &self.groups[group];
        &self.order[*next..all.end]
    }

    /// Takes the next `count` messages of a session.
    pub(super) fn take(&mut self, group: usize, count: usize) -> Call {
        let next = &mut self.groups[group].next;
        *next += count;
        Call { group, messages: *next - count..*next }
    }

    /// Takes all messages of a session that still wait, and returns their places in the batch.
    pub(super) fn take_rest(&mut self, group: usize) -> &[usize] {
        let Group { all, next } = &mut self.groups[group];
        let rest = std::mem::replace(next, all.end)..all.end;
        &self.order[rest]
    }

    /// Returns the places in the batch of the messages of a call.
    pub(super) fn places(&self, call: &Call) -> &[usize] {
        &self.order[call.messages.clone()]
    }
}

/// Messages that go into one call of the script.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) group: usize,
    /// Places in `order` of the messages of this call.
    messages: Range<usize>,
}

impl Call {
    /// Returns the number of messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::envelope::Draft;
    use crate::notification::{Notification, NotificationId};

    #[test]
    fn each_session_has_its_own_in_order_until_they_are_taken() {
        let draft =
            Draft::new(&Notification::tools_list_changed(), NotificationId::derived(b"x"), Duration::from_secs(1));
        let batch: Vec<Outgoing> = ["a", "b", "a", "c", "a", "b"]
            .map(|id| Outgoing { session: SessionId::new(id).unwrap(), draft: draft.clone() })
            .into();
        let mut grouped = Grouped::new(&batch);
        assert_eq!(grouped.len(), 3);
        assert_eq!([0, 1, 2].map(|group| grouped.session(group).as_str()), ["a", "b", "c"]);
        let first = grouped.take(0, 2);
        assert_eq!((first.len(), grouped.places(&first)), (2, [0, 2].as_slice()));
        assert_eq!([0, 1, 2].map(|group| grouped.rest(group).to_vec()), [vec![4], vec![1, 5], vec![3]]);
        assert_eq!(grouped.take_rest(1), [1, 5]);
        assert_eq!((grouped.rest(1), grouped.all(1), grouped.all(0)), (&[][..], &[1, 5][..], &[0, 2, 4][..]));
    }

    #[test]
    fn nothing_has_no_groups() {
        assert_eq!(Grouped::new(&[]).len(), 0);
    }
}
