//! Delivery of a batch, and its outcome.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::{Sent, Subscription, Then};
use crate::envelope::{Envelope, Undecodable};
use crate::fate::DiscardReason;
use crate::notification::NotificationId;
use crate::subscription::batch::{Item, Mark};
use crate::subscription::delivery::{BatchEnd, Outcome};
use crate::subscription::event::{Action, Note};
use crate::subscription::state::{ExitReason, SubscriberState};

impl Subscription {
    /// Counts what the client said it has: all that is queued up to that message was sent to it. Nothing in between was
    /// discarded, as each discard is acknowledged before anything behind it is handed over.
    pub(super) fn count_received(&mut self) {
        let Some(received) = self.received.take() else { return };
        let Some(last) = self.items.iter().position(|item| item.message_id() == Some(received)) else { return };
        let items: Vec<Item> = self.items.drain(..=last).collect();
        self.note(Note::Received(items.len()));
        for Item { mark, envelope, .. } in items {
            match envelope {
                Ok(envelope) => {
                    self.recent.insert(envelope.id);
                    self.count_delivered(mark, envelope);
                }
                Err(why) => self.discard_unreadable(mark, &why),
            }
        }
    }

    /// Counts a message that was delivered before.
    fn count_delivered(&mut self, mark: Mark, envelope: Envelope) {
        self.arrivals.delivered(envelope.id);
        let receipt = envelope.receipt.then_some(envelope.id);
        self.ack.deliver(mark, envelope.question.map(|question| *question), receipt);
    }

    /// Delivers the batch as far as it goes. Messages that need no session are counted here: unreadable ones, and repeats. Discards
    /// are acknowledged before anything behind them is delivered.
    pub(super) fn deliver_next(&mut self, now: Instant) {
        let mut batch: Vec<Envelope> = Vec::with_capacity(self.items.len());
        let mut ids: HashSet<NotificationId, RandomState> = HashSet::default();
        ids.reserve(self.items.len());
        while let Some(Item { mark, envelope, unreadable }) = self.items.pop_front() {
            let is_repeat = envelope.as_ref().is_ok_and(|envelope| self.recent.contains(&envelope.id));
            match envelope {
                Err(why) if batch.is_empty() => self.discard_unreadable(mark, &why),
                Ok(envelope) if is_repeat && batch.is_empty() => {
                    self.note(Note::Skipped(envelope.id));
                    self.count_delivered(mark, envelope);
                }
                // The same id twice in one batch: the second is skipped once the first is delivered.
                Ok(envelope) if !is_repeat && !self.ack.has_discarded() && ids.insert(envelope.id) => {
                    let (id, question) = (envelope.id, envelope.question.clone());
                    self.sent.push(Sent { mark, id, question, receipt: envelope.receipt.then_some(id) });
                    batch.push(envelope);
                }
                envelope => {
                    self.items.push_front(Item { mark, envelope, unreadable });
                    break;
                }
            }
        }
        let Some(read_at) = self.read_at.filter(|_| !batch.is_empty()) else {
            self.items.clear();
            return self.serve(now);
        };
        self.state = SubscriberState::Delivering;
        self.actions.push_back(Action::Deliver { batch, read_at, permit: Arc::clone(&self.permit) });
    }

    /// Takes the outcome of a delivery, at once or when the renewal under way has ended.
    pub(super) fn delivered(&mut self, outcome: Option<Outcome>, now: Instant, lot: f64) {
        self.outcome = Some(Box::new(outcome));
        if self.operation.is_none() {
            self.outcome_after_renewal(now, lot);
        }
    }

    pub(super) fn outcome_after_renewal(&mut self, now: Instant, lot: f64) {
        let Some(outcome) = self.outcome.take() else { return };
        let Some(outcome) = *outcome else {
            self.sent.clear();
            self.items.clear();
            let reason = ExitReason::Panicked("the session actor is gone".to_owned());
            return if self.lost.take().is_some() {
                self.leave(reason)
            } else {
                self.acknowledge(Then::Exit(reason), now)
            };
        };
        if outcome.accepted > 0 {
            self.note(Note::Delivered(outcome.accepted));
            // Not sooner: a session that takes nothing, or a queue that is read and not written, fails each time anew.
            self.succeeded();
        }
        let then = match self.in_hand.take() {
            Some(in_hand) => self.after_in_hand(in_hand, outcome, lot),
            None => self.after_batch(outcome, lot),
        };
        if let Some(error) = self.lost.take() {
            // Nothing can be acknowledged over this connection. The messages come again, and are skipped.
            self.ack.take();
            self.items.clear();
            return self.back_off(*error, now, lot);
        }
        match then {
            None => self.deliver_next(now),
            Some(Then::Serve) => self.serve(now),
            Some(then) => self.acknowledge(then, now),
        }
    }

    /// Counts the outcome of a batch. Returns what follows, or `None` where the rest of the batch does.
    pub(super) fn after_batch(&mut self, Outcome { accepted, end }: Outcome, lot: f64) -> Option<Then> {
        let mut sent = std::mem::take(&mut self.sent).into_iter();
        for Sent { mark, id, question, receipt } in sent.by_ref().take(accepted) {
            self.recent.insert(id);
            self.arrivals.delivered(id);
            self.ack.deliver(mark, question.map(|question| *question), receipt);
        }
        let then = match end {
            BatchEnd::AllAccepted => return None,
            BatchEnd::Discarded(reasons) => {
                for (Sent { mark, id, question, receipt }, reason) in sent.zip(reasons) {
                    let question = question.map(|question| *question);
                    self.note(Note::Discarded { id: Some(id), question, reason: reason.clone() });
                    self.ack.discard(mark, reason, receipt);
                }
                Then::Serve
            }
            BatchEnd::Failed { envelope, error, pause } => match sent.next() {
                Some(Sent { mark, .. }) => {
                    let replacement = envelope.after_failure(&error);
                    self.note_failed_attempt(&envelope, error, pause);
                    Then::Rewrite { oldest: mark, replacement, pause }
                }
                // An outcome about a message that was not sent: a defect of the session's actor. The queue is read again.
                None => Then::Serve,
            },
            BatchEnd::NotReady(why) => self.not_ready(why, lot),
            BatchEnd::Closed => Then::Exit(ExitReason::Closed),
            BatchEnd::NotPermitted => {
                // In doubt, or out of time: the lease is renewed before all else.
                self.renewed = None;
                Then::Serve
            }
        };
        self.items.clear();
        Some(then)
    }

    /// Counts a message that cannot be read.
    pub(super) fn discard_unreadable(&mut self, mark: Mark, why: &Undecodable) {
        let reason = DiscardReason::Undecodable(why.to_string());
        self.note(Note::Discarded { id: None, question: None, reason: reason.clone() });
        self.ack.discard(mark, reason, None);
    }

    pub(super) fn not_ready(&mut self, why: String, lot: f64) -> Then {
        self.note(Note::NotReady(why));
        Then::AwaitReady(self.next_pause(lot))
    }

    pub(super) fn note_failed_attempt(&mut self, envelope: &Envelope, error: String, pause: Duration) {
        let (id, attempts) = (envelope.id, envelope.attempt.saturating_add(1));
        self.note(Note::AttemptFailed { id, attempts, error, pause });
    }
}
