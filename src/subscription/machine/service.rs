//! Service of an owner: read, deliver, acknowledge the outcome, and wait, while the lease is renewed at each heartbeat.
//!
//! A read also carries the acknowledgement of the messages that were confirmed before, if there are any. An
//! acknowledgement whose answer is lost has an unknown outcome. The machine does not send it again. It reads the queue
//! over a new connection, and acknowledges messages that it has delivered before without delivering them again.
//!
//! *Callers*. `life` begins the service once the lease is claimed or renewed over a new connection. `delivering`
//! continues it when nothing is unconfirmed any more.
//!
//! *Order of the steps*. A stop or a changed presence comes first, but only after the counted messages were
//! acknowledged: otherwise the next owner would deliver them again. A due renewal precedes the next read. The step
//! after a renewal is never another renewal, or a slow Redis would starve the reads
//! (`renewals_that_take_a_heartbeat_alternate_with_reads`).
//!
//! *Counts do not outlive their connection*. A new connection drops the counted acknowledgement and reads again. Its
//! messages may have been removed already, and other messages may stand in their places
//! (`what_was_counted_is_not_acknowledged_over_another_connection`).
//!
//! *Questions follow the acknowledgement*. Only its success makes them open questions of the queue. A question that was
//! asked before could be asked by two owners, or be lost with this process
//! (`questions_and_receipts_go_with_the_acknowledgement_and_are_asked_after_it`,
//! `questions_whose_acknowledgement_finds_another_owner_are_not_asked`).
//!
//! *An owner that lost its lease still acknowledges once*, where receipts of delivered notifications are to be settled.
//! The script removes nothing then (`a_lease_lost_during_a_delivery_is_not_renewed_and_receipts_tell_the_truth`).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{NextStep, Subscription};
use crate::config::Delivery;
use crate::envelope::Timestamp;
use crate::question::Question;
use crate::subscription::ack::Delivered;
use crate::subscription::batch::{LeaseState, Replaced, Taken};
use crate::subscription::event::{Action, Event, Note, Operation, OperationKind};
use crate::subscription::state::SubscriberState;

/// Shortest time of one wait, because each wait costs a round trip.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);

impl Subscription {
    /// Begins the service over a new connection.
    pub(super) fn begin_service(&mut self, now: Instant) {
        self.can_renew = true;
        self.is_to_read_questions = self.is_at_least_once();
        // Requests over an earlier connection may or may not have been executed. Their messages are read again, and
        // repeats are skipped. A retried acknowledgement could remove other, equal messages.
        self.arrivals.acknowledged(false);
        self.ack.take();
        self.items.clear();
        self.serve_renewed(now);
    }

    pub(super) fn is_at_least_once(&self) -> bool {
        self.config.delivery() == Delivery::AtLeastOnce
    }

    /// Takes the next step of the service, which is a renewal where one is due. Nothing runs and nothing is unconfirmed
    /// at this point.
    pub(super) fn serve(&mut self, now: Instant) {
        if !self.has_changed() && self.renewal_due().is_none_or(|at| at <= now) {
            self.state = SubscriberState::Reading;
            self.renew(now);
        } else {
            self.serve_renewed(now);
        }
    }

    /// Takes the next step of the service after a renewal. That step is never a further renewal. A renewal counts from
    /// the moment when it was sent, so after a slow answer the next renewal is due at once. The subscriber would only
    /// renew, and never read.
    fn serve_renewed(&mut self, now: Instant) {
        if self.has_changed() {
            self.acknowledge(NextStep::ReactToPresence, now);
        } else if self.removed.is_some() {
            self.deliver_removed();
        } else if let Some(item) = self.items.pop_front() {
            self.remove(item, now);
        } else {
            self.acknowledge(NextStep::Serve, now);
        }
    }

    /// Acknowledges the counted messages, then does `then`. Where nothing is counted, the queue is still read if the
    /// service continues.
    pub(super) fn acknowledge(&mut self, then: NextStep, now: Instant) {
        let delivered = self.ack.take();
        if delivered.is_none() && !matches!(then, NextStep::Serve) {
            return self.take_step(then, now);
        }
        self.take(delivered, then);
    }

    /// Sends an acknowledgement with a read of the queue, and does `then` after the answer.
    pub(super) fn take(&mut self, delivered: Option<Delivered>, then: NextStep) {
        self.state = SubscriberState::Reading;
        self.keep_questions(delivered.as_ref());
        self.next_step = then;
        self.begin(Operation::Take { delivered, behind: None });
    }

    /// Keeps the questions of an acknowledgement until its answer comes.
    pub(super) fn keep_questions(&mut self, delivered: Option<&Delivered>) {
        self.acknowledged_questions = delivered.map(|d| d.questions.clone()).unwrap_or_default();
    }

    /// Handles an answer of the queue in the states of an owner.
    pub(super) fn handle_service_answer(&mut self, operation: OperationKind, answer: Event, now: Instant, jitter: f64) {
        if let Event::Taken(taken) = &answer {
            // The two clocks are paired now and not after the open questions were read, because that read may take
            // long.
            self.read_at = Some((taken.now, now));
        }
        match (self.state, answer) {
            (SubscriberState::Delivering, Event::Renewed(lease)) => {
                // Where the lease is lost the permit no longer holds, and the delivery ends for that reason.
                self.can_renew = lease.is_held();
                self.continue_delivery(now, jitter);
            }
            (SubscriberState::Delivering, Event::Taken(taken)) => self.handle_read_ahead(taken, now, jitter),
            (SubscriberState::BackingOff, Event::Renewed(lease)) => {
                self.can_renew = lease.is_held();
                if self.has_changed() {
                    self.resume(now);
                }
            }
            (_, Event::Renewed(lease)) if lease.is_held() => self.serve_renewed(now),
            (_, Event::Renewed(_)) => {
                // This acknowledgement can remove nothing, but it settles the receipts of delivered notifications.
                match self.ack.take().filter(|delivered| !delivered.outcomes.is_empty()) {
                    Some(delivered) => self.take(Some(delivered), NextStep::StandBy),
                    None => self.stand_by(now),
                }
            }
            (SubscriberState::Waiting, Event::Taken(taken)) => {
                self.end_backoff();
                self.handle_read(taken, operation, now, jitter);
            }
            (_, Event::Taken(taken)) => self.handle_acknowledged(taken, now, jitter),
            (_, Event::Questions(questions)) => {
                if let Some(taken) = self.taken.take() {
                    self.ask(questions);
                    self.handle_read(*taken, operation, now, jitter);
                }
            }
            (_, Event::Rewritten(Replaced::Done)) => {
                let then = std::mem::take(&mut self.next_step);
                self.take_step(then, now);
            }
            _ => self.serve(now),
        }
    }

    /// Handles the answer to an acknowledgement, with or without a read of the queue.
    ///
    /// `is_done` says that the messages were removed: the lease is held, and the queue had them in their places. The
    /// cases of the step that follows:
    /// - `Serve` uses the read behind the acknowledgement, also where the queue has changed. The first read of a
    ///   service waits for the open questions.
    /// - `Rewrite` and `Deliver` depend on the removal. Where the queue has changed they are dropped, and the queue is
    ///   read again.
    /// - These three need the lease. Without the lease the owner stands by, or connects anew.
    /// - All other steps do not depend on the answer.
    pub(super) fn handle_acknowledged(&mut self, taken: Taken, now: Instant, jitter: f64) {
        let then = std::mem::take(&mut self.next_step);
        let is_done = taken.lease.is_held() && !taken.changed;
        let questions = std::mem::take(&mut self.acknowledged_questions);
        if let NextStep::Deliver(removed) = &then {
            self.arrivals.delivered(removed.envelope.id);
        }
        self.arrivals.acknowledged(is_done);
        match then {
            NextStep::Serve if taken.lease.is_held() => {
                // The questions are open questions of the queue now. If this process dies, the next owner asks them.
                self.ask(questions);
                if std::mem::take(&mut self.is_to_read_questions) {
                    self.taken = Some(Box::new(taken));
                    self.begin(Operation::ReadQuestions);
                } else {
                    self.handle_read(taken, OperationKind::Take, now, jitter);
                }
            }
            NextStep::Rewrite { .. } | NextStep::Deliver(_) if is_done => {
                self.ask(questions);
                if !self.is_at_least_once() {
                    self.keep_oldest(taken);
                }
                self.take_step(then, now);
            }
            NextStep::Rewrite { .. } | NextStep::Deliver(_) if taken.lease.is_held() => {
                self.ask(questions);
                self.serve(now);
            }
            NextStep::Serve | NextStep::Rewrite { .. } | NextStep::Deliver(_) => {
                self.lease_not_held(taken.lease, now, jitter)
            }
            other => self.take_step(other, now),
        }
    }

    /// Takes the step after an acknowledgement that succeeded, or that had nothing to acknowledge.
    pub(super) fn take_step(&mut self, then: NextStep, now: Instant) {
        match then {
            NextStep::Serve => self.serve(now),
            NextStep::ReactToPresence => self.react_to_presence(),
            NextStep::StandBy => self.stand_by(now),
            NextStep::AwaitReady(pause) => {
                self.close();
                self.pause(SubscriberState::BackingOff, now + pause, now);
            }
            NextStep::Pause(pause) => self.pause(SubscriberState::BackingOff, now + pause, now),
            NextStep::Exit(reason) => self.begin_exit(reason),
            NextStep::Rewrite { oldest, replacement, pause } => {
                self.state = SubscriberState::Rewriting;
                self.next_step = NextStep::Pause(pause);
                self.begin(Operation::Rewrite { oldest, replacement });
            }
            NextStep::Deliver(removed) => {
                self.removed = Some(removed);
                self.deliver_removed();
            }
        }
    }

    /// Reacts to a lease that this owner does not hold.
    pub(super) fn lease_not_held(&mut self, lease: LeaseState, now: Instant, jitter: f64) {
        match lease {
            LeaseState::Lost => self.stand_by(now),
            // A wait must not claim an absent lease, because it may still run in Redis after its owner has gone. The
            // new connection claims it.
            _ => self.reconnect(now, jitter),
        }
    }

    /// Acts on the answer to a read or a wait: deliver the messages, or wait for the next.
    pub(super) fn handle_read(&mut self, taken: Taken, operation: OperationKind, now: Instant, jitter: f64) {
        if !taken.lease.is_held() {
            return self.lease_not_held(taken.lease, now, jitter);
        }
        if taken.changed {
            self.note(Note::Changed);
            // This answer came while the message was searched for that the client has named. The messages that were
            // read before have left the queue.
            if !self.items.is_empty() {
                (self.items, self.received) = (VecDeque::new(), None);
                return self.serve(now);
            }
        }
        self.has_more = taken.has_more;
        self.items.extend(taken.items);
        if self.begin_search_for_received() {
            return;
        }
        self.complete_items(taken.now);
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
            // An idle subscriber keeps no memory for messages either. Its buffers may have held the largest batch.
            (self.items, self.sent) = Default::default();
            self.waiting_since = Some(now);
            let left = self.renewal_due().map_or(Duration::ZERO, |at| at.saturating_duration_since(now));
            self.begin(Operation::Wait(left.max(SHORTEST_WAIT)));
        }
    }

    /// Gives the read messages the ids and the times that they lack. `now` is the time of the read by the queue's
    /// clock.
    pub(super) fn complete_items(&mut self, now: Timestamp) {
        if let Some(off) = self.arrivals.seen(self.items.make_contiguous(), now) {
            self.note(Note::WrongClock(off));
        }
    }

    /// Asks the client these questions, if there are any.
    pub(super) fn ask(&mut self, questions: Vec<Question>) {
        if let Some(read_at) = self.read_at.filter(|_| !questions.is_empty()) {
            self.actions.push_back(Action::Ask { questions, read_at });
        }
    }

    /// Reacts to a lease that may have changed, or to a lost connection, during a wait.
    pub(super) fn handle_permit_suspended(&mut self, now: Instant, jitter: f64) {
        let waited = self.waiting_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        if waited > self.config.backoff_max() {
            self.end_backoff();
        }
        self.reconnect(now, jitter);
    }
}
