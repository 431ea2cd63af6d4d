//! The service of an owner: read, deliver, acknowledge by the outcome, wait, and keep the lease all the while.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Subscription, Then};
use crate::config::Delivery;
use crate::envelope::Timestamp;
use crate::question::Question;
use crate::subscription::ack::Delivered;
use crate::subscription::batch::{LeaseState, Replaced, Taken};
use crate::subscription::event::{Action, Event, Note, Operation, OperationKind};
use crate::subscription::state::SubscriberState;

/// Shortest time of one wait: each costs a round trip.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

impl Subscription {
    pub(super) fn begin_service(&mut self, now: Instant) {
        self.can_renew = true;
        self.is_to_read_questions = self.is_at_least_once();
        // Requests over an earlier connection may have been executed or not. Its messages are read again, and repeats skipped: an
        // acknowledgement of then could remove equal messages of now.
        self.arrivals.acknowledged(false);
        self.ack.take();
        self.items.clear();
        self.serve(now);
    }

    pub(super) fn is_at_least_once(&self) -> bool {
        self.config.delivery() == Delivery::AtLeastOnce
    }

    /// Goes on with the service, where nothing is under way.
    pub(super) fn serve(&mut self, now: Instant) {
        if self.has_changed() {
            self.acknowledge(Then::LookAround, now);
        } else if self.renewal_due().is_none_or(|at| at <= now) {
            self.state = SubscriberState::Reading;
            self.renew(now);
        } else if self.in_hand.is_some() {
            self.deliver_in_hand();
        } else if let Some(item) = self.items.pop_front() {
            self.remove(item, now);
        } else {
            self.acknowledge(Then::Serve, now);
        }
    }

    /// Acknowledges what was counted, then does `then`. The queue is read also where nothing was counted, if the service goes on.
    pub(super) fn acknowledge(&mut self, then: Then, now: Instant) {
        let delivered = self.ack.take();
        if delivered.is_none() && !matches!(then, Then::Serve) {
            return self.follow(then, now);
        }
        self.take(delivered, then);
    }

    pub(super) fn take(&mut self, delivered: Option<Delivered>, then: Then) {
        self.state = SubscriberState::Reading;
        self.note_questions(delivered.as_ref());
        self.then = then;
        self.begin(Operation::Take { delivered, behind: None });
    }

    /// Keeps the questions of an acknowledgement until it is answered.
    pub(super) fn note_questions(&mut self, delivered: Option<&Delivered>) {
        self.acknowledged_questions = delivered.map(|d| d.questions.clone()).unwrap_or_default();
    }

    pub(super) fn answered_in_service(&mut self, operation: OperationKind, answer: Event, now: Instant, lot: f64) {
        if let Event::Taken(taken) = &answer {
            // Not later: reading the open questions may take long, and the queue's clock goes on meanwhile.
            self.read_at = Some((taken.now, now));
        }
        match (self.state, answer) {
            (SubscriberState::Delivering, Event::Renewed(lease)) => {
                // Where the lease is lost the permit says so, and the delivery ends by that.
                self.can_renew = lease.is_ours();
                self.go_on(now, lot);
            }
            (SubscriberState::Delivering, Event::Taken(taken)) => self.read_ahead(taken, now, lot),
            (SubscriberState::BackingOff, Event::Renewed(lease)) => {
                self.can_renew = lease.is_ours();
                if self.has_changed() {
                    self.resume(now);
                }
            }
            (_, Event::Renewed(lease)) if lease.is_ours() => self.serve(now),
            (_, Event::Renewed(_)) => {
                // Nothing is removed, but receipts of delivered notifications can still tell the truth.
                match self.ack.take().filter(|delivered| !delivered.fates.is_empty()) {
                    Some(delivered) => self.take(Some(delivered), Then::StandBy),
                    None => self.stand_by(now),
                }
            }
            (SubscriberState::Waiting, Event::Taken(taken)) => {
                self.succeeded();
                self.read(taken, operation, now, lot);
            }
            (_, Event::Taken(taken)) => self.acknowledged(taken, now, lot),
            (_, Event::Questions(questions)) => {
                if let Some(taken) = self.taken.take() {
                    self.ask(questions);
                    self.read(*taken, operation, now, lot);
                }
            }
            (_, Event::Rewritten(Replaced::Done)) => {
                let then = std::mem::take(&mut self.then);
                self.follow(then, now);
            }
            _ => self.serve(now),
        }
    }

    /// Takes the answer to an acknowledgement.
    pub(super) fn acknowledged(&mut self, taken: Taken, now: Instant, lot: f64) {
        let then = std::mem::take(&mut self.then);
        let is_done = taken.lease.is_ours() && !taken.changed;
        let questions = std::mem::take(&mut self.acknowledged_questions);
        if let Then::Deliver(in_hand) = &then {
            self.arrivals.delivered(in_hand.envelope.id);
        }
        self.arrivals.acknowledged(is_done);
        match then {
            Then::Serve if taken.lease.is_ours() => {
                // The questions are open questions of the queue now: should this process die, another asks them.
                self.ask(questions);
                if std::mem::take(&mut self.is_to_read_questions) {
                    self.taken = Some(Box::new(taken));
                    self.begin(Operation::ReadQuestions);
                } else {
                    self.read(taken, OperationKind::Take, now, lot);
                }
            }
            Then::Rewrite { .. } | Then::Deliver(_) if is_done => {
                self.ask(questions);
                if !self.is_at_least_once() {
                    self.keep_next(taken);
                }
                self.follow(then, now);
            }
            Then::Rewrite { .. } | Then::Deliver(_) if taken.lease.is_ours() => {
                self.ask(questions);
                self.serve(now);
            }
            Then::Serve | Then::Rewrite { .. } | Then::Deliver(_) => self.not_ours(taken.lease, now, lot),
            other => self.follow(other, now),
        }
    }

    /// Does what follows an acknowledgement that was done, or for which there was nothing to acknowledge.
    pub(super) fn follow(&mut self, then: Then, now: Instant) {
        match then {
            Then::Serve => self.serve(now),
            Then::LookAround => self.look_around(),
            Then::StandBy => self.stand_by(now),
            Then::AwaitReady(pause) => {
                self.close();
                self.pause(SubscriberState::BackingOff, now + pause, now);
            }
            Then::Pause(pause) => self.pause(SubscriberState::BackingOff, now + pause, now),
            Then::Exit(reason) => self.leave(reason),
            Then::Rewrite { oldest, replacement, pause } => {
                self.state = SubscriberState::Rewriting;
                self.then = Then::Pause(pause);
                self.begin(Operation::Rewrite { oldest, replacement });
            }
            Then::Deliver(in_hand) => {
                self.in_hand = Some(in_hand);
                self.deliver_in_hand();
            }
        }
    }

    pub(super) fn not_ours(&mut self, lease: LeaseState, now: Instant, lot: f64) {
        match lease {
            LeaseState::Lost => self.stand_by(now),
            // A wait must not reclaim an absent lease, as it may run after its owner has gone. A new connection does.
            _ => self.doubt(now, lot),
        }
    }

    /// Goes on by what was read, by a wait or otherwise.
    pub(super) fn read(&mut self, taken: Taken, operation: OperationKind, now: Instant, lot: f64) {
        if !taken.lease.is_ours() {
            return self.not_ours(taken.lease, now, lot);
        }
        if taken.changed {
            self.note(Note::Changed);
            // Found while the message was looked for that the client said it has: what was read is there no more.
            if !self.items.is_empty() {
                (self.items, self.received) = (VecDeque::new(), None);
                return self.serve(now);
            }
        }
        self.has_more = taken.has_more;
        self.items.extend(taken.items);
        if self.looks_for_received() {
            return;
        }
        self.arrived(taken.now);
        self.count_received();
        if !self.items.is_empty() {
            if self.is_at_least_once() {
                self.deliver_next(now);
            } else {
                self.items.truncate(1);
                self.serve(now);
            }
        } else if self.ack.count_so_far() > 0 || operation == OperationKind::Wait || self.has_changed() {
            self.serve(now);
        } else {
            self.state = SubscriberState::Waiting;
            // Nor does it for the messages of the largest batch.
            (self.items, self.sent) = Default::default();
            self.waiting_since = Some(now);
            let left = self.renewal_due().map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
            self.begin(Operation::Wait(left.max(SHORTEST_WAIT)));
        }
    }

    /// Gives the messages that were read, up to `now`, the ids and the times that they lack.
    pub(super) fn arrived(&mut self, now: Timestamp) {
        if let Some(off) = self.arrivals.seen(self.items.make_contiguous(), now) {
            self.note(Note::WrongClock(off));
        }
    }

    pub(super) fn ask(&mut self, questions: Vec<Question>) {
        if let Some(read_at) = self.read_at.filter(|_| !questions.is_empty()) {
            self.actions.push_back(Action::Ask { questions, read_at });
        }
    }

    /// The lease may have changed, or the connection is lost.
    pub(super) fn doubted(&mut self, now: Instant, lot: f64) {
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if waited > self.config.backoff_max() {
            self.succeeded();
        }
        self.doubt(now, lot);
    }
}
