//! The state [`Delivering`](SubscriberState::Delivering): deliveries, what they leave unconfirmed, and the reads ahead.
//!
//! Deliveries follow each other while earlier ones await their confirmation, as far as the [window](super::Window) goes. Each
//! confirmation is acknowledged with the next read, which passes over what is still unconfirmed. Redis waits for no message behind
//! others, so the queue is looked at now and then while a confirmation takes long. What cannot be done beside that waits until nothing
//! is unconfirmed: a discard, the rewrite after a failed attempt, a stop, a newer stream.

use std::time::{Duration, Instant};

use super::{Subscription, Then};
use crate::retry::Backoff;
use crate::subscription::batch::Taken;
use crate::subscription::delivery::{BatchEnd, HandOverError, Outcome};
use crate::subscription::event::{Note, Operation};
use crate::subscription::state::{ExitReason, SubscriberState};
use crate::subscription::window::Sent;

/// Pauses between looks for messages behind those whose confirmation is awaited. Most confirmations come sooner.
const LOOKS: Backoff = Backoff { initial: Duration::from_millis(50), max: Duration::from_secs(1) };

impl Subscription {
    /// Takes the end of the hand-overs of a delivery. `None` where the session's actor is gone.
    pub(super) fn delivered(&mut self, outcome: Option<Outcome>, now: Instant, lot: f64) {
        self.is_delivering = false;
        match outcome {
            None => {
                self.give_window_up();
                self.finish_with(Then::Exit(ExitReason::Panicked("the session actor is gone".to_owned())));
            }
            // Its delivery was given up meanwhile.
            Some(_) if self.delivery <= self.given_up => {}
            Some(Outcome { accepted, end, confirmed }) => {
                if self.in_hand.is_none() {
                    self.after_batch(accepted, end, lot);
                } else if accepted > 0 {
                    self.awaits_in_hand = true;
                } else {
                    self.conclude_in_hand(end, lot);
                }
                if let Some(answer) = confirmed.filter(|_| accepted > 0) {
                    return self.confirmed(self.delivery, answer, now, lot);
                }
            }
        }
        self.go_on(now, lot);
    }

    /// Takes the session's answer to the request to confirm a delivery, and with it those before.
    pub(super) fn confirmed(&mut self, delivery: u64, answer: Result<(), HandOverError>, now: Instant, lot: f64) {
        // Given up.
        if delivery <= self.given_up {
            return;
        }
        match answer {
            Ok(()) if self.awaits_in_hand => {
                self.progressed(1);
                self.conclude_in_hand(BatchEnd::AllAccepted, lot);
            }
            Ok(()) => {
                let sent: Vec<Sent> = self.window.confirm(delivery).collect();
                if !sent.is_empty() {
                    self.progressed(sent.len());
                }
                sent.into_iter().for_each(|sent| self.count_delivered(sent));
            }
            Err(error) if self.awaits_in_hand => self.conclude_in_hand(unconfirmed(error), lot),
            Err(error) => {
                self.give_window_up();
                let then = match unconfirmed(error) {
                    BatchEnd::NotReady(_) if matches!(self.after_window, Some(Then::AwaitReady(_))) => {
                        return self.go_on(now, lot);
                    }
                    BatchEnd::NotReady(why) => self.not_ready(why, lot),
                    _ => Then::Exit(ExitReason::Closed),
                };
                if !matches!(self.after_window, Some(Then::Exit(_))) {
                    self.after_window = None;
                }
                self.finish_with(then);
            }
        }
        self.go_on(now, lot);
    }

    /// Notes that the session has confirmed notifications.
    fn progressed(&mut self, count: usize) {
        self.note(Note::Delivered(count));
        // Not sooner: a session that takes nothing, or a queue that is read and not written, fails each time anew.
        self.succeeded();
    }

    /// Gives up what is unconfirmed, and the delivery under way. All of it stays in the queue, and comes again.
    fn give_window_up(&mut self) {
        // A delivery under way hands nothing more over: the rest must not get ahead of what comes again.
        self.permit.revoke();
        self.given_up = self.delivery;
        self.window.clear();
        self.sent.clear();
        self.discarded.clear();
    }

    fn conclude_in_hand(&mut self, end: BatchEnd, lot: f64) {
        self.awaits_in_hand = false;
        if let Some(in_hand) = self.in_hand.take() {
            // What was read behind it stays: the next is removed and delivered in its turn.
            self.after_window = Some(self.after_in_hand(in_hand, end, lot));
        }
    }

    /// Delivers nothing more, and does `then` once nothing is unconfirmed. What was to be done before comes first.
    pub(super) fn finish_with(&mut self, then: Then) {
        self.items.clear();
        self.after_window.get_or_insert(then);
    }

    /// Goes on, as far as that is possible before the operation, the delivery or the confirmation that is under way.
    pub(super) fn go_on(&mut self, now: Instant, lot: f64) {
        if self.state != SubscriberState::Delivering || self.operation.is_some() || self.is_delivering {
            return;
        }
        if self.window.is_empty() && !self.awaits_in_hand {
            return self.leave_delivering(now, lot);
        }
        if self.lost.is_some() || self.after_window.is_some() || self.awaits_in_hand {
            return;
        }
        let confirmed = self.ack.count_so_far();
        let next = self.items.front().map(|item| item.mark.length);
        let has_room = self.window.has_room(&self.config, confirmed, (0, 0), next.unwrap_or(0));
        if self.has_changed() {
            self.finish_with(Then::LookAround);
        } else if has_room && next.is_some() {
            self.deliver_next(now);
        } else if confirmed > 0 || has_room && self.has_more {
            self.look_behind();
        } else if has_room && self.timer.is_none() && self.window.behind().is_some() {
            self.timer = Some(now + LOOKS.pause(self.looks, lot));
            self.looks += 1;
        }
    }

    /// Acknowledges what is confirmed, and reads behind what is not.
    pub(super) fn look_behind(&mut self) {
        let Some(behind) = self.window.behind() else { return };
        self.timer = None;
        // What was read and has no room is read again.
        self.items.clear();
        let delivered = self.ack.take();
        self.note_questions(delivered.as_ref());
        self.begin(Operation::Take { delivered, behind: Some(behind) });
    }

    /// Returns the moment of the next look behind what is not confirmed, if one is of use.
    pub(super) fn look_due(&self) -> Option<Instant> {
        let is_free = !self.is_delivering && self.lost.is_none() && self.after_window.is_none();
        self.timer.filter(|_| is_free)
    }

    /// Takes the answer to a read ahead.
    pub(super) fn read_ahead(&mut self, taken: Taken, now: Instant, lot: f64) {
        let is_ours = taken.lease.is_ours();
        self.arrivals.acknowledged(is_ours && !taken.changed);
        let questions = std::mem::take(&mut self.acknowledged_questions);
        if is_ours {
            self.ask(questions);
        } else {
            self.renewed = None;
        }
        if taken.changed {
            self.note(Note::Changed);
        }
        if !is_ours || taken.changed {
            // What is unconfirmed may be queued elsewhere by now, or not at all: the queue is read from its end again.
            self.finish_with(Then::Serve);
        } else if !taken.items.is_empty() {
            self.items = taken.items.into();
            self.arrived(taken.now);
        }
        self.has_more = taken.has_more;
        self.go_on(now, lot);
    }

    /// Does what follows, where nothing is under way and nothing unconfirmed.
    fn leave_delivering(&mut self, now: Instant, lot: f64) {
        let then = self.after_window.take();
        if let Some(error) = self.lost.take() {
            // Nothing can be acknowledged over this connection. The messages come again, and are skipped.
            self.ack.take();
            self.items.clear();
            self.discarded.clear();
            return match then {
                Some(Then::Exit(reason)) => self.leave(reason),
                _ => self.back_off(*error, now, lot),
            };
        }
        for (Sent { mark, id, question, receipt }, reason) in std::mem::take(&mut self.discarded) {
            let question = question.map(|question| *question);
            self.note(Note::Discarded { id: Some(id), question, reason: reason.clone() });
            self.ack.discard(mark, reason, receipt);
        }
        match then {
            None if !self.items.is_empty() => self.deliver_next(now),
            None | Some(Then::Serve) => self.serve(now),
            Some(then) => self.acknowledge(then, now),
        }
    }
}

/// Returns what follows where the session does not confirm: what was handed over was not delivered, and that is no failed attempt.
fn unconfirmed(error: HandOverError) -> BatchEnd {
    match error {
        HandOverError::Closed => BatchEnd::Closed,
        other => BatchEnd::NotReady(other.to_string()),
    }
}
