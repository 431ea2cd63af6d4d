//! Delivery at most once: the acknowledgement comes before the delivery, in batches of one.

use std::sync::Arc;
use std::time::Instant;

use super::{InHand, Subscription, Then};
use crate::envelope::Envelope;
use crate::fate::DiscardReason;
use crate::subscription::ack::Fate;
use crate::subscription::batch::{Item, Taken};
use crate::subscription::delivery::BatchEnd;
use crate::subscription::event::{Action, Note};
use crate::subscription::permit::Permit;
use crate::subscription::state::ExitReason;

impl Subscription {
    /// Keeps the oldest message that was read, to be removed next.
    pub(super) fn keep_next(&mut self, taken: Taken) {
        self.items = taken.items.into();
        self.arrived(taken.now);
        self.items.truncate(1);
    }

    /// Removes a message from the queue, and delivers it once that is known to be done.
    pub(super) fn remove(&mut self, Item { mark, envelope, .. }: Item, now: Instant) {
        let (envelope, read_at) = match (envelope, self.read_at) {
            (Ok(envelope), Some(read_at)) => (envelope, read_at),
            (Ok(_), None) => return self.acknowledge(Then::Serve, now),
            (Err(why), _) => {
                self.discard_unreadable(mark, &why);
                return self.acknowledge(Then::Serve, now);
            }
        };
        self.ack.deliver(mark, None, None);
        self.acknowledge(Then::Deliver(Box::new(InHand { envelope, read_at })), now);
    }

    pub(super) fn deliver_in_hand(&mut self) {
        let Some(InHand { envelope, read_at }) = self.in_hand.as_deref() else { return };
        let (mut envelope, read_at) = (envelope.clone(), *read_at);
        envelope.set_opened(self.serving);
        // No lease guards a notification that is in no queue any more.
        self.deliver(vec![envelope], read_at, Arc::new(Permit::unlimited()));
    }

    /// Does what the end of the delivery of the notification in hand demands. Returns what follows.
    pub(super) fn after_in_hand(&mut self, mut in_hand: Box<InHand>, end: BatchEnd, lot: f64) -> Then {
        match end {
            BatchEnd::AllAccepted => {
                if in_hand.envelope.receipt {
                    self.record(None, &in_hand.envelope);
                }
                if let Some(question) = in_hand.envelope.question {
                    self.actions.push_back(Action::Ask { questions: vec![*question], read_at: in_hand.read_at });
                }
            }
            BatchEnd::Discarded(reasons) => {
                for reason in reasons {
                    self.discard_in_hand(in_hand.envelope.clone(), reason);
                }
            }
            BatchEnd::Failed { error, pause, .. } => {
                self.note_failed_attempt(&in_hand.envelope, error, pause);
                in_hand.envelope.count_attempt();
                self.in_hand = Some(in_hand);
                return Then::Pause(pause);
            }
            BatchEnd::NotReady(why) => {
                self.in_hand = Some(in_hand);
                return self.not_ready(why, lot);
            }
            BatchEnd::Closed => {
                self.in_hand = Some(in_hand);
                return Then::Exit(ExitReason::Closed);
            }
            BatchEnd::NotPermitted => self.in_hand = Some(in_hand),
        }
        Then::Serve
    }

    pub(super) fn discard_in_hand(&mut self, envelope: Envelope, reason: DiscardReason) {
        self.record(Some(reason.clone()), &envelope);
        let (id, question) = (Some(envelope.id), envelope.question.map(|question| *question));
        self.note(Note::Discarded { id, question, reason });
    }

    pub(super) fn record(&mut self, discarded: Option<DiscardReason>, envelope: &Envelope) {
        let fate = Fate { position: 0, discarded, receipt: envelope.receipt.then_some(envelope.id) };
        self.actions.push_back(Action::Record { fate, raw: envelope.raw().to_vec() });
    }

    /// Discards what is in hand of a parked subscriber, where its time to live is over and its client still away.
    pub(super) fn expire_in_hand(&mut self, now: Instant) {
        if self.in_hand.as_ref().is_some_and(|in_hand| self.expiry(in_hand) <= now)
            && let Some(in_hand) = self.in_hand.take()
        {
            self.discard_in_hand(in_hand.envelope, DiscardReason::Expired);
        }
    }

    /// Returns the moment at which the notification in hand expires, if there is one.
    pub(super) fn in_hand_expiry(&self) -> Option<Instant> {
        self.in_hand.as_ref().map(|in_hand| self.expiry(in_hand))
    }

    /// Returns the moment at which a notification in hand expires. One without a time of its own is kept for as long as
    /// those that this crate pushes.
    pub(super) fn expiry(&self, InHand { envelope, read_at: (clock, read) }: &InHand) -> Instant {
        *read + envelope.expires_at.map_or(self.config.time_to_live(), |at| at.since(*clock))
    }
}
