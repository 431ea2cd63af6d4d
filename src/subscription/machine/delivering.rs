//! State [`Delivering`](SubscriberState::Delivering): deliveries, their unconfirmed messages, and the reads behind
//! those messages.
//!
//! Deliveries follow each other while earlier ones await their confirmation, as far as the [window](super::Window) has
//! room. The next read acknowledges the confirmed messages, and passes over those that are still unconfirmed.
//!
//! Redis cannot wait for a message behind others. So the queue is read from time to time while a confirmation takes
//! long.
//!
//! Some steps cannot happen beside unconfirmed messages: a discard, the rewrite after a failed attempt, a stop, a newer
//! stream. They wait in `after_window` until nothing is unconfirmed.
//!
//! *Order*. Once a message is unconfirmed, nothing behind it may be acknowledged or rewritten. A confirmation counts
//! all messages of its delivery and of the earlier ones. A missing confirmation gives up the whole window: the permit
//! is revoked, so the running delivery hands nothing more over, and all messages are read again. Without the revocation
//! a later message would overtake the earlier ones (`what_is_not_confirmed_comes_again_with_all_behind_it`).
//!
//! *Late answers*. Deliveries are numbered. `abandoned` is the newest that was abandoned, and an answer about that one
//! or an earlier one is ignored. Its messages count only when they are delivered anew
//! (`a_delivery_that_was_given_up_confirms_nothing_by_its_outcome`).
//!
//! *Reads behind*. Such a read passes over the unconfirmed messages by their number, and checks the mark of the newest
//! of them. A queue that was flushed, or that another owner has changed, answers `changed` and returns nothing
//! (`a_queue_that_changed_under_unconfirmed_messages_is_read_anew_once_they_are_confirmed`). Messages with derived ids
//! allow no such read, because only their owner tells equal ones apart
//! (`nothing_is_read_behind_messages_that_their_owner_alone_tells_apart`).

use std::time::{Duration, Instant};

use super::{NextStep, Subscription};
use crate::envelope::Timestamp;
use crate::retry::Backoff;
use crate::subscription::batch::Taken;
use crate::subscription::delivery::{BatchEnd, DeliveryOutcome, HandOverError};
use crate::subscription::event::{Note, Operation};
use crate::subscription::state::{ExitReason, SubscriberState};
use crate::subscription::window::Sent;

/// Pauses between reads behind unconfirmed messages. Most confirmations come sooner than the first of these reads.
const READ_AHEAD_PAUSES: Backoff = Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(1) };

impl Subscription {
    /// Handles the end of the hand-overs of a delivery. `outcome` is `None` where the session's actor is gone.
    pub(super) fn handle_delivered(&mut self, outcome: Option<DeliveryOutcome>, now: Instant, jitter: f64) {
        self.is_delivering = false;
        match outcome {
            None => {
                self.abandon_window();
                self.drain_window_then(NextStep::Exit(ExitReason::Panicked("the session actor is gone".to_owned())));
            }
            // This delivery was given up meanwhile. Its messages are delivered again, or for the first time.
            Some(DeliveryOutcome { accepted, .. }) if self.delivery <= self.abandoned => {
                let given_up = std::mem::take(&mut self.given_up);
                self.unconfirmed.extend(given_up.into_iter().take(accepted));
            }
            Some(DeliveryOutcome { accepted, end, confirmed }) => {
                if self.removed.is_none() {
                    self.handle_batch_end(accepted, end, jitter);
                } else if accepted > 0 {
                    self.awaits_removed = true;
                } else {
                    self.end_removed_delivery(end, jitter);
                }
                if let Some(answer) = confirmed.filter(|_| accepted > 0) {
                    return self.handle_confirmed(self.delivery, answer, now, jitter);
                }
            }
        }
        self.continue_delivery(now, jitter);
    }

    /// Handles the session's answer to the request to confirm a delivery. `Ok` also confirms all earlier deliveries.
    pub(super) fn handle_confirmed(
        &mut self,
        delivery: u64,
        answer: Result<(), HandOverError>,
        now: Instant,
        jitter: f64,
    ) {
        // This delivery was given up.
        if delivery <= self.abandoned {
            return;
        }
        match answer {
            Ok(()) if self.awaits_removed => {
                let pushed_at = self.removed.as_ref().and_then(|removed| removed.envelope.enqueued_at);
                self.count_confirmed(1, [pushed_at].into_iter(), now);
                self.end_removed_delivery(BatchEnd::AllAccepted, jitter);
            }
            Ok(()) => {
                let sent: Vec<Sent> = self.window.confirm(delivery).collect();
                if !sent.is_empty() {
                    self.count_confirmed(sent.len(), sent.iter().map(|sent| sent.pushed_at), now);
                }
                sent.into_iter().for_each(|sent| self.count_delivered(sent));
            }
            Err(error) if self.awaits_removed => self.end_removed_delivery(unconfirmed(error), jitter),
            Err(error) => {
                self.abandon_window();
                let then = match unconfirmed(error) {
                    BatchEnd::NotReady(_) if matches!(self.after_window, Some(NextStep::AwaitReady(_))) => {
                        return self.continue_delivery(now, jitter);
                    }
                    BatchEnd::NotReady(why) => self.pause_until_ready(why, jitter),
                    _ => NextStep::Exit(ExitReason::Closed),
                };
                if !matches!(self.after_window, Some(NextStep::Exit(_))) {
                    self.after_window = None;
                }
                self.drain_window_then(then);
            }
        }
        self.continue_delivery(now, jitter);
    }

    /// Counts notifications that the session has confirmed, with the times of their pushes.
    fn count_confirmed(&mut self, count: usize, pushed_at: impl Iterator<Item = Option<Timestamp>>, now: Instant) {
        let since_push = match self.read_at {
            Some((clock, read)) if cfg!(feature = "metrics") => {
                let clock = clock.plus(now.saturating_duration_since(read));
                pushed_at.flatten().map(|pushed| clock.since(pushed)).collect()
            }
            _ => Vec::new(),
        };
        self.note(Note::Delivered { count, since_push });
        // The backoff ends at a confirmation and not sooner. A session that accepts nothing, or a queue that can be
        // read and not written, would otherwise be tried without a growing pause.
        self.end_backoff();
    }

    /// Gives up the unconfirmed messages and the running delivery. All of them stay in the queue and are delivered
    /// again.
    fn abandon_window(&mut self) {
        // The running delivery must hand nothing more over, because its later messages would overtake the earlier ones
        // that are delivered again.
        self.permit.revoke();
        self.abandoned = self.delivery;
        // Messages of a queue that was flushed are never delivered again. They must not pile up.
        if self.unconfirmed.len() > self.config.window_messages() {
            self.unconfirmed.clear();
        }
        self.unconfirmed.extend(self.window.messages().map(|sent| sent.id));
        self.given_up = self.sent.drain(..).map(|sent| sent.id).collect();
        self.window.clear();
        self.discarded.clear();
    }

    /// Ends the delivery of the notification in `removed`.
    fn end_removed_delivery(&mut self, end: BatchEnd, jitter: f64) {
        self.awaits_removed = false;
        if let Some(removed) = self.removed.take() {
            // The messages that were read behind this one are kept. The next of them is removed and delivered in its
            // turn.
            self.after_window = Some(self.conclude_removed_delivery(removed, end, jitter));
        }
    }

    /// Delivers nothing more, and does `then` once nothing is unconfirmed. A step that waits already takes precedence.
    pub(super) fn drain_window_then(&mut self, then: NextStep) {
        self.items.clear();
        self.after_window.get_or_insert(then);
    }

    /// Takes the next step in this state, unless an operation or a delivery runs, or a confirmation must come first.
    ///
    /// Why each condition precedes the next:
    /// 1. A running operation or delivery calls this function again at its end.
    /// 2. An empty window ends the state. This precedes 3, because `leave_delivering` takes the step that waits.
    /// 3. A lost connection, a step that waits, and a removed message allow nothing new: only confirmations come.
    /// 4. A changed presence precedes a delivery, which would go to a stream that is no longer the newest.
    /// 5. Messages that were read precede a read, because the read drops them and fetches them again.
    /// 6. An acknowledgement makes room, so it needs none. A read alone is of use only where its messages have room.
    /// 7. The last read found nothing more, so the next one waits for the timer.
    pub(super) fn continue_delivery(&mut self, now: Instant, jitter: f64) {
        if self.state != SubscriberState::Delivering || self.operation.is_some() || self.is_delivering {
            return;
        }
        if self.window.is_empty() && !self.awaits_removed {
            return self.leave_delivering(now, jitter);
        }
        if self.lost.is_some() || self.after_window.is_some() || self.awaits_removed {
            return;
        }
        let confirmed = self.ack.count_so_far();
        let next = self.items.front().map(|item| item.mark.length);
        let has_room = self.window.has_room(&self.config, confirmed, (0, 0), next.unwrap_or(0));
        if self.has_changed() {
            self.drain_window_then(NextStep::ReactToPresence);
        } else if has_room && next.is_some() {
            self.deliver_next(now);
        } else if confirmed > 0 || has_room && self.has_more {
            self.begin_read_ahead();
        } else if has_room && self.timer.is_none() && self.window.behind().is_some() {
            self.timer = Some(now + READ_AHEAD_PAUSES.pause(self.reads_ahead, jitter));
            self.reads_ahead += 1;
        }
    }

    /// Acknowledges the confirmed messages, and reads behind the unconfirmed ones.
    pub(super) fn begin_read_ahead(&mut self) {
        let Some(behind) = self.window.behind() else { return };
        self.timer = None;
        // Messages that were read and had no room are read again.
        self.items.clear();
        let delivered = self.ack.take();
        self.keep_questions(delivered.as_ref());
        self.begin(Operation::Take { delivered, behind: Some(behind) });
    }

    /// Returns the moment of the next read behind unconfirmed messages, where such a read is of use.
    pub(super) fn read_ahead_due(&self) -> Option<Instant> {
        let is_free = !self.is_delivering && self.lost.is_none() && self.after_window.is_none();
        self.timer.filter(|_| is_free)
    }

    /// Handles the answer to a read behind unconfirmed messages.
    pub(super) fn handle_read_ahead(&mut self, taken: Taken, now: Instant, jitter: f64) {
        let is_held = taken.lease.is_held();
        self.arrivals.acknowledged(is_held && !taken.changed);
        let questions = std::mem::take(&mut self.acknowledged_questions);
        if is_held {
            self.ask(questions);
        } else {
            self.renewed = None;
        }
        if taken.changed {
            self.note(Note::Changed);
        }
        if !is_held || taken.changed {
            // The unconfirmed messages may be delivered by another owner now, or may have left the queue. The queue is
            // read again from its tail.
            self.drain_window_then(NextStep::Serve);
        } else if !taken.items.is_empty() {
            self.items = taken.items.into();
            self.complete_items(taken.now);
        }
        self.has_more = taken.has_more;
        self.continue_delivery(now, jitter);
    }

    /// Leaves the state: no operation and no delivery runs, and nothing is unconfirmed.
    fn leave_delivering(&mut self, now: Instant, jitter: f64) {
        let then = self.after_window.take();
        if let Some(error) = self.lost.take() {
            // Nothing can be acknowledged over a lost connection. The messages are read again, and skipped by their
            // ids.
            self.ack.take();
            self.items.clear();
            self.discarded.clear();
            return match then {
                Some(NextStep::Exit(reason)) => self.begin_exit(reason),
                _ => self.back_off(*error, now, jitter),
            };
        }
        for (Sent { mark, id, question, receipt, .. }, reason) in std::mem::take(&mut self.discarded) {
            self.note(Note::Discarded { id: Some(id), question, reason: reason.clone() });
            self.ack.discard(mark, reason, receipt);
        }
        match then {
            None if !self.items.is_empty() => self.deliver_next(now),
            None | Some(NextStep::Serve) => self.serve(now),
            Some(then) => self.acknowledge(then, now),
        }
    }
}

/// Returns the end of a batch that the session does not confirm. The notifications were not delivered, and this does
/// not count as a failed attempt.
fn unconfirmed(error: HandOverError) -> BatchEnd {
    match error {
        HandOverError::Closed => BatchEnd::Closed,
        other => BatchEnd::NotReady(other.to_string()),
    }
}
