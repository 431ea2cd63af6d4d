//! [`Ack`]: positions of the messages of a batch, counted from the oldest message.
//!
//! An acknowledgement removes a prefix of the queue. [`Ack`] therefore counts messages only in their order. Each call
//! counts the next message, and no call could leave a gap.

use crate::envelope::Mark;
use crate::notification::NotificationId;
use crate::outcome::DiscardReason;
use crate::question::Question;

/// Acknowledgement of the `count` oldest messages of a queue, the newest of which has the mark `last`.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivered {
    /// Number of messages to remove.
    pub count: usize,
    /// Mark of the newest message to remove. Where the queue has another message at that position, nothing is removed.
    pub last: Mark,
    /// Questions that the messages brought. They become open questions of the queue in the same step as the removal.
    pub questions: Vec<Question>,
    /// Outcomes of the discarded messages, and of those whose producer asked for a receipt; the oldest first.
    pub outcomes: Vec<MessageOutcome>,
}

/// Outcome of one message of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageOutcome {
    /// Position of the message: 0 is the oldest.
    pub position: usize,
    /// Reason for which the message was discarded; `None` where it was delivered.
    pub discarded: Option<DiscardReason>,
    /// Id of the message, where its producer asked for a receipt.
    pub receipt: Option<NotificationId>,
}

/// Counter of a batch's messages as they are delivered, skipped or discarded, the oldest first. `None` while no message
/// is counted.
#[derive(Debug, Default)]
pub(crate) struct Ack(Option<Box<Delivered>>);

impl Ack {
    /// Counts the next message as delivered, by this delivery or an earlier one.
    pub(crate) fn deliver(&mut self, mark: Mark, question: Option<Question>, receipt: Option<NotificationId>) {
        let position = self.count(mark);
        self.add(question, receipt.map(|id| MessageOutcome { position, discarded: None, receipt: Some(id) }));
    }

    /// Counts the next message as discarded.
    pub(crate) fn discard(&mut self, mark: Mark, reason: DiscardReason, receipt: Option<NotificationId>) {
        let position = self.count(mark);
        self.add(None, Some(MessageOutcome { position, discarded: Some(reason), receipt }));
    }

    /// Returns whether a discarded message was counted.
    pub(super) fn has_discarded(&self) -> bool {
        self.0.as_ref().is_some_and(|delivered| delivered.outcomes.iter().any(|outcome| outcome.discarded.is_some()))
    }

    /// Returns the number of messages that were counted.
    pub(super) fn count_so_far(&self) -> usize {
        self.0.as_ref().map_or(0, |delivered| delivered.count)
    }

    /// Returns the acknowledgement of all counted messages and begins a new count. Returns `None` where no message was
    /// counted.
    pub(crate) fn take(&mut self) -> Option<Delivered> {
        self.0.take().map(|delivered| *delivered)
    }

    /// Counts the next message, and returns its position.
    fn count(&mut self, mark: Mark) -> usize {
        match &mut self.0 {
            None => {
                let delivered = Delivered { count: 1, last: mark, questions: Vec::new(), outcomes: Vec::new() };
                self.0 = Some(Box::new(delivered));
                0
            }
            Some(delivered) => {
                delivered.last = mark;
                delivered.count += 1;
                delivered.count - 1
            }
        }
    }

    /// Adds a question and a outcome of the message that was just counted.
    fn add(&mut self, question: Option<Question>, outcome: Option<MessageOutcome>) {
        // Most messages bring neither a question nor a outcome to keep.
        if let Some(delivered) = self.0.as_mut().filter(|_| question.is_some() || outcome.is_some()) {
            delivered.questions.extend(question);
            delivered.outcomes.extend(outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(n: usize) -> Mark {
        Mark::of(n.to_string().as_bytes())
    }

    #[test]
    fn positions_count_from_the_oldest_and_the_mark_is_the_newest() {
        let id = NotificationId::derived(b"a");
        let mut ack = Ack::default();
        ack.deliver(mark(0), None, None);
        ack.discard(mark(1), DiscardReason::Expired, None);
        ack.deliver(mark(2), None, Some(id));
        ack.discard(mark(3), DiscardReason::Superseded, Some(id));
        let outcome = |position, discarded, receipt| MessageOutcome { position, discarded, receipt };
        let outcomes = vec![
            outcome(1, Some(DiscardReason::Expired), None),
            outcome(2, None, Some(id)),
            outcome(3, Some(DiscardReason::Superseded), Some(id)),
        ];
        assert_eq!(ack.take(), Some(Delivered { count: 4, last: mark(3), questions: Vec::new(), outcomes }));
        assert_eq!(ack.take(), None, "it begins anew");
    }
}
