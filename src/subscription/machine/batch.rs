//! Delivery of the messages that were read, and the outcome of the delivery.
//!
//! *Three kinds of messages need no session:* unreadable ones, repeats, and those that the client has named with its
//! new stream. They are counted for the next acknowledgement instead of being delivered. An acknowledgement removes a
//! prefix of the queue. So such a message is counted only while it is the oldest; behind unconfirmed messages it waits
//! (`unreadable_messages_and_repeats_behind_unconfirmed_ones_wait_for_them`).
//!
//! *A discard ends a batch*. Nothing behind a discarded message is handed over before the queue has lost that message.
//! Otherwise a client could name a later message when it resumes. The next owner would then count the discarded one as
//! delivered, and no dead letter would be kept. Test:
//! `discards_are_acknowledged_at_their_positions_before_the_rest_is_delivered`, and the simulation without this guard.
//!
//! *The named message* is looked for in the first reads of a new stream, up to one window. A client has at most one
//! window of unacknowledged messages. An id that is not found there is old or forged, and acknowledges nothing
//! (`what_the_client_has_is_looked_for_as_far_as_one_window_goes`,
//! `what_the_client_said_holds_for_the_first_read_only_and_over_broken_connections`).
//!
//! *An id has one place in the window*. A second message of the same id waits until the first is confirmed, and is then
//! a repeat (`the_same_id_twice_in_one_batch_is_delivered_once`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{NextStep, Subscription};
use crate::envelope::{Envelope, Mark, Timestamp, Undecodable};
use crate::outcome::DiscardReason;
use crate::subscription::batch::Item;
use crate::subscription::delivery::BatchEnd;
use crate::subscription::event::{Action, Note, Operation};
use crate::subscription::permit::Permit;
use crate::subscription::state::{ExitReason, SubscriberState};
use crate::subscription::window::{Behind, Sent};

impl Subscription {
    /// Reads further where the message that the client has named may be behind the messages read so far, up to one
    /// window. Returns whether such a read was begun.
    pub(super) fn begin_search_for_received(&mut self) -> bool {
        let Some(received) = self.received else { return false };
        let (count, bytes) = (self.items.len(), self.items.iter().map(|item| item.mark.length).sum::<usize>());
        let is_within = count < self.config.window_messages() && bytes < self.config.window_bytes();
        let is_there = self.items.iter().any(|item| item.message_id() == Some(received));
        let reads_on = self.has_more && is_within && !is_there;
        let last = self.items.back().filter(|_| reads_on).map(|item| item.mark.clone());
        if let Some(last) = last {
            self.begin(Operation::Take { delivered: None, behind: Some(Behind { count, last }) });
        }
        reads_on
    }

    /// Counts the messages up to the one that the client has named, which all were sent to the client. None of them was
    /// discarded: each discard is acknowledged before any later message is handed over.
    pub(super) fn count_received(&mut self) {
        let Some(received) = self.received.take() else { return };
        let Some(last) = self.items.iter().position(|item| item.message_id() == Some(received)) else { return };
        let items: Vec<Item> = self.items.drain(..=last).collect();
        self.note(Note::Received(items.len()));
        for Item { mark, envelope, .. } in items {
            match envelope {
                Ok(envelope) => self.count_delivered(Sent::of(mark, &envelope)),
                Err(why) => self.discard_unreadable(mark, &why),
            }
        }
    }

    /// Counts a message that the client has, for the next acknowledgement.
    pub(super) fn count_delivered(&mut self, Sent { mark, id, question, receipt, .. }: Sent) {
        self.unconfirmed.remove(&id);
        self.recent.insert(id);
        self.arrivals.delivered(id);
        self.ack.deliver(mark, question.map(|question| *question), receipt);
    }

    /// Delivers the messages that were read, as far as the window has room.
    ///
    /// Messages that need no session are counted here in their turn: unreadable ones and repeats. A discard is
    /// acknowledged before any message behind it is delivered.
    pub(super) fn deliver_next(&mut self, now: Instant) {
        // The client of a newer stream has again named the message that it has. The queue is read again for that
        // stream.
        if self.has_changed() && self.window.is_empty() {
            self.items.clear();
            return self.serve(now);
        }
        let mut batch: Vec<Envelope> = Vec::with_capacity(self.items.len());
        self.sent.reserve(self.items.len());
        let mut bytes = 0;
        while let Some(Item { mark, envelope, unreadable }) = self.items.pop_front() {
            let is_repeat = envelope.as_ref().is_ok_and(|envelope| self.recent.contains(&envelope.id));
            let is_oldest = batch.is_empty() && self.window.is_empty();
            match envelope {
                Err(why) if is_oldest => self.discard_unreadable(mark, &why),
                Ok(envelope) if is_repeat && is_oldest => {
                    self.note(Note::Skipped(envelope.id));
                    self.count_delivered(Sent::of(mark, &envelope));
                }
                // This arm takes a message that may be delivered. A second message of an id waits until the first is
                // confirmed, and is then skipped as a repeat.
                Ok(mut envelope)
                    if !is_repeat
                        && !self.ack.has_discarded()
                        && self.window.has_room(
                            &self.config,
                            self.ack.count_so_far(),
                            (batch.len(), bytes),
                            mark.length,
                        )
                        && self.window.reserve(envelope.id) =>
                {
                    bytes += mark.length;
                    self.sent.push(Sent::of(mark, &envelope));
                    envelope.set_generation(self.serving);
                    batch.push(envelope);
                }
                envelope => {
                    self.items.push_front(Item { mark, envelope, unreadable });
                    break;
                }
            }
        }
        let Some(read_at) = self.read_at.filter(|_| !batch.is_empty()) else {
            return if self.window.is_empty() {
                self.items.clear();
                self.serve(now);
            } else {
                self.drain_window_then(NextStep::Serve);
            };
        };
        self.deliver(batch, read_at, Arc::clone(&self.permit));
    }

    /// Begins the next delivery.
    pub(super) fn deliver(&mut self, batch: Vec<Envelope>, read_at: (Timestamp, Instant), permit: Arc<Permit>) {
        self.state = SubscriberState::Delivering;
        self.delivery += 1;
        self.is_delivering = true;
        (self.timer, self.reads_ahead) = (None, 0);
        self.actions.push_back(Action::Deliver { delivery: self.delivery, batch, read_at, permit });
    }

    /// Handles the outcome of the hand-overs of a batch.
    pub(super) fn handle_batch_end(&mut self, accepted: usize, end: BatchEnd, jitter: f64) {
        let mut sent = std::mem::take(&mut self.sent).into_iter();
        if accepted > 0 {
            let ids = sent.as_slice().iter().take(accepted).map(|sent| sent.id);
            let repeated = ids.filter(|id| self.unconfirmed.remove(id)).count();
            self.window.add(self.delivery, sent.by_ref().take(accepted));
            if repeated > 0 {
                self.note(Note::Repeated(repeated));
            }
        }
        self.window.release(sent.as_slice().iter());
        let then = match end {
            BatchEnd::AllAccepted => return,
            BatchEnd::Discarded(reasons) => {
                self.discarded = sent.zip(reasons).collect();
                NextStep::Serve
            }
            BatchEnd::Failed { envelope, error, pause } => match sent.next() {
                Some(Sent { mark, .. }) => {
                    let replacement = envelope.after_failure(&error);
                    self.note_failed_attempt(&envelope, error, pause);
                    NextStep::Rewrite { oldest: mark, replacement, pause }
                }
                // The outcome is about a message that was not sent, which is a defect of the session's actor. The queue
                // is read again.
                None => NextStep::Serve,
            },
            BatchEnd::NotReady(why) => self.pause_until_ready(why, jitter),
            BatchEnd::Closed => NextStep::Exit(ExitReason::Closed),
            BatchEnd::NotPermitted => {
                // The permit is suspended or has run out, so the lease is renewed before anything else.
                self.renewed = None;
                NextStep::Serve
            }
        };
        self.drain_window_then(then);
    }

    /// Counts a message that cannot be read as discarded.
    pub(super) fn discard_unreadable(&mut self, mark: Mark, why: &Undecodable) {
        let reason = DiscardReason::Undecodable(why.to_string());
        self.note(Note::Discarded { id: None, question: None, reason: reason.clone() });
        self.ack.discard(mark, reason, None);
    }

    /// Notes that the session is not ready, and returns the pause to make.
    pub(super) fn pause_until_ready(&mut self, why: String, jitter: f64) -> NextStep {
        self.note(Note::NotReady(why));
        NextStep::AwaitReady(self.next_pause(jitter))
    }

    pub(super) fn note_failed_attempt(&mut self, envelope: &Envelope, error: String, pause: Duration) {
        let (id, attempts) = (envelope.id, envelope.attempt.saturating_add(1));
        self.note(Note::AttemptFailed { id, attempts, error, pause });
    }
}
