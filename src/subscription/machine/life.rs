//! Life around the service: connecting, standing by, backing off, parking and ending.
//!
//! *Ownership*. The opening of a stream that is newer than every claimed one claims the lease, also from another owner.
//! Any other connection only renews the lease. So the server with the client's newest stream owns the session, and a
//! displaced owner does not take the session back.
//!
//! *Standing by*. A displaced owner tries to claim an absent lease once per heartbeat. It thereby takes over when the
//! other owner has died without a release.
//!
//! *Failures*. A failure of the queue closes the connection. The next connection first renews the lease, then reads all
//! unacknowledged messages again.
//!
//! *Why only a newer stream claims*. Two servers with one stream each would otherwise displace each other for ever
//! (`a_displaced_owner_stands_by_and_does_not_claim_again_by_itself`, `a_newer_stream_claims`). `claimed` has the
//! number of the newest opening for which a claim succeeded.
//!
//! *The permit does not outlive the connection* that watches the lease: without that connection no takeover is noticed.
//! Parking, ending and backing off revoke the permit at once, and a consumer that is dropped suspends it too.
//!
//! *Parking* has three steps: release the lease, wait until answers and cancellations on their way have reached their
//! workers, exit. A client that returns meanwhile ends the parking
//! (`a_client_that_leaves_parks_its_subscriber_which_releases_first`,
//! `a_client_that_comes_back_while_its_subscriber_parks_is_served_again`).
//!
//! *Two pauses*. [`back_off`](Subscription::back_off) follows a failure and always pauses.
//! [`reconnect`](Subscription::reconnect) follows a connection that broke, and connects at once the first time: most
//! such ends have a harmless cause
//! (`a_wait_that_finds_no_lease_opens_a_new_connection_and_pauses_from_the_second_time_on`).

use std::time::{Duration, Instant};

use super::Subscription;
use crate::config::Delivery;
use crate::failure::QueueError;
use crate::subscription::batch::LeaseState;
use crate::subscription::event::{Action, Event, Note, Operation, OperationKind};
use crate::subscription::state::{ExitReason, SessionState, SubscriberState};

impl Subscription {
    // Presence, stops and times.

    /// Acts on a changed presence or a stop. Does nothing in a state that must end an operation or a delivery first:
    /// that end then leads here.
    pub(super) fn react_if_free(&mut self, now: Instant, jitter: f64) {
        match (self.state, self.operation) {
            (SubscriberState::Connecting, _) if self.is_stopping => self.react_to_presence(),
            (SubscriberState::Waiting, _) if self.has_changed() => self.react_to_presence(),
            (SubscriberState::Delivering, None) => self.continue_delivery(now, jitter),
            (SubscriberState::BackingOff, None) => self.resume(now),
            (SubscriberState::StandingBy, None) | (SubscriberState::Parked, None | Some(OperationKind::Settle)) => {
                self.react_to_presence();
            }
            _ => {}
        }
    }

    /// Returns whether a stop is requested, or the served stream is no longer the client's newest.
    pub(super) fn has_changed(&self) -> bool {
        self.is_stopping
            || !matches!(self.presence, SessionState::Connected { generation, .. } if generation == self.serving)
    }

    /// Closes the connection, and acts on the client's presence or on a stop: opens a new connection, parks, or ends.
    pub(super) fn react_to_presence(&mut self) {
        self.close();
        match self.presence {
            _ if self.is_stopping => self.begin_exit(ExitReason::Stopped),
            SessionState::Ended => self.begin_exit(ExitReason::Closed),
            SessionState::Detached => self.begin_exit(ExitReason::Detached),
            SessionState::Disconnected => self.park(),
            SessionState::Connected { generation, received } => {
                self.serving = generation;
                // The message also counts where an older stream's client has named it. A newer stream may have opened
                // and closed before the first read used it.
                if self.is_at_least_once() && self.claimed != Some(generation) {
                    self.received = received;
                }
                self.state = SubscriberState::Connecting;
                self.begin(Operation::Open);
            }
        }
    }

    /// Handles the end of a pause, and every other moment that [`Subscription::deadline`] has returned.
    pub(super) fn handle_timer(&mut self, now: Instant) {
        let is_due = self.timer.is_some_and(|at| at <= now);
        match self.state {
            SubscriberState::StandingBy if is_due => self.begin(Operation::ClaimIfAbsent),
            SubscriberState::BackingOff if is_due => self.resume(now),
            SubscriberState::Delivering if self.read_ahead_due().is_some_and(|at| at <= now) => self.begin_read_ahead(),
            SubscriberState::BackingOff | SubscriberState::Delivering => self.renew(now),
            SubscriberState::StandingBy | SubscriberState::Parked => self.expire_removed(now),
            _ => {}
        }
    }

    /// Pauses until `at`, or until a stop or a change of presence.
    pub(super) fn pause(&mut self, state: SubscriberState, at: Instant, now: Instant) {
        self.state = state;
        self.timer = Some(at);
        if self.has_changed() {
            self.resume(now);
        }
    }

    /// Ends a pause. The service continues over a whole connection, and otherwise a new one is opened.
    pub(super) fn resume(&mut self, now: Instant) {
        self.timer = None;
        if self.is_connected { self.serve(now) } else { self.react_to_presence() }
    }

    // Answers of the queue.

    /// Handles the answer to the operation that has just ended.
    ///
    /// The order of the arms matters. States that serve no client come first, and treat a failure as any other answer,
    /// or retry in place. A failure in `Delivering` waits for the unconfirmed messages; in all other states the next
    /// arm backs off. The arms of `Connecting` therefore see no failure, and the last of them means a lease that
    /// this owner does not hold. All other answers belong to the service.
    pub(super) fn handle_answer(&mut self, operation: OperationKind, answer: Event, now: Instant, jitter: f64) {
        match (self.state, answer) {
            (SubscriberState::Stopping, _) => self.release_or(Self::exit),
            (SubscriberState::Parked, _) => self.continue_parking(operation),
            (SubscriberState::StandingBy, Event::Failed(error)) => {
                self.note(Note::LeaseUnread(error));
                self.check_lease_later(now);
            }
            (SubscriberState::StandingBy, Event::Renewed(lease)) if !lease.is_held() => self.check_lease_later(now),
            (SubscriberState::StandingBy, _) => self.react_to_presence(),
            (SubscriberState::Delivering, Event::Failed(error)) => {
                // The permit runs out by itself. The unconfirmed messages are handled first.
                self.close();
                self.lost = Some(Box::new(error));
                self.continue_delivery(now, jitter);
            }
            (_, Event::Failed(error)) => self.back_off(error, now, jitter),
            (SubscriberState::Connecting, Event::Opened) => {
                self.is_connected = true;
                // The client may have gone to another server meanwhile.
                if self.has_changed() {
                    return self.react_to_presence();
                }
                self.is_to_release = true;
                // The lease is only renewed on a new connection for a stream that was claimed before. Only a newer
                // stream claims: a displaced owner must not displace the new owner by itself.
                if self.claimed.is_some_and(|claimed| self.serving <= claimed) {
                    self.renew(now);
                } else {
                    self.renewed = Some(now);
                    self.begin(Operation::Claim);
                }
            }
            (SubscriberState::Connecting, Event::Claimed) => {
                self.claimed = Some(self.serving);
                self.begin_service(now);
            }
            (SubscriberState::Connecting, Event::Renewed(lease)) if lease.is_held() => {
                if lease == LeaseState::Reclaimed {
                    self.note(Note::Reclaimed);
                }
                self.begin_service(now);
            }
            (SubscriberState::Connecting, _) => self.stand_by(now),
            (_, answer) => self.handle_service_answer(operation, answer, now, jitter),
        }
    }

    /// Continues the parking after its operations: release, wait for pending answers, exit.
    pub(super) fn continue_parking(&mut self, operation: OperationKind) {
        if self.is_stopping || self.presence != SessionState::Disconnected {
            self.react_to_presence();
        } else if operation == OperationKind::Release {
            // The user's answers and the cancellations on their way go to their workers before the exit. The user is
            // not asked again for such an answer, and nobody else cancels.
            self.begin(Operation::Settle);
        } else {
            self.actions.push_back(Action::Exit(ExitReason::Parked));
        }
    }

    // Steps that several states share.

    /// Begins an operation on the queue. No other operation runs at this point.
    pub(super) fn begin(&mut self, operation: Operation) {
        self.operation = Some(operation.kind());
        self.actions.push_back(Action::Begin(operation));
    }

    pub(super) fn note(&mut self, note: Note) {
        self.actions.push_back(Action::Note(note));
    }

    /// Drops the running operation and the connection.
    pub(super) fn close(&mut self) {
        if self.operation.take().is_some() || self.is_connected {
            (self.is_connected, self.can_renew) = (false, false);
            self.actions.push_back(Action::Close);
        }
    }

    /// Renews the lease. The time counts from now, when the request is sent.
    pub(super) fn renew(&mut self, now: Instant) {
        self.renewed = Some(now);
        self.begin(Operation::Renew);
    }

    /// Returns the moment at which the lease is to be renewed; `None` where it is to be renewed at once.
    pub(super) fn renewal_due(&self) -> Option<Instant> {
        self.renewed.map(|at| at + self.config.heartbeat())
    }

    /// Parks: revokes the permit, stops asking, and releases the lease, because the client has no open stream.
    pub(super) fn park(&mut self) {
        self.state = SubscriberState::Parked;
        self.stop_serving();
        self.release_or(|subscription| subscription.begin(Operation::Settle));
    }

    /// Begins the end of the subscriber, for this reason. The open questions of a session that has ended everywhere are
    /// cancelled first.
    pub(super) fn begin_exit(&mut self, reason: ExitReason) {
        self.close();
        self.state = SubscriberState::Stopping;
        self.stop_serving();
        let cancels = reason == ExitReason::Closed && self.config.delivery() == Delivery::AtLeastOnce;
        self.exit = Some(reason);
        if cancels {
            self.is_to_release = true;
            self.begin(Operation::CancelQuestions);
        } else {
            self.release_or(Self::exit);
        }
    }

    /// Revokes the permit and stops asking the client.
    pub(super) fn stop_serving(&mut self) {
        self.permit.revoke();
        self.actions.push_back(Action::StopAsking);
    }

    /// Releases the lease if this owner may hold it, and does `otherwise` if not.
    pub(super) fn release_or(&mut self, otherwise: impl FnOnce(&mut Self)) {
        if std::mem::take(&mut self.is_to_release) {
            self.begin(Operation::Release);
        } else {
            otherwise(self);
        }
    }

    /// Ends the subscriber. A notification that was removed from the queue and not delivered is reported as lost.
    pub(super) fn exit(&mut self) {
        let reason = self.exit.clone().unwrap_or(ExitReason::Stopped);
        if let Some(removed) = self.removed.take() {
            let why = match reason {
                ExitReason::Panicked(_) | ExitReason::Dropped => "the session actor is gone",
                ExitReason::Stopped => "the subscriber was stopped",
                _ => "the session has closed",
            };
            self.note(Note::Lost { envelope: Box::new(removed.envelope), why });
        }
        self.actions.push_back(Action::Exit(reason));
    }

    /// Stands by, because another owner holds the lease. The connection is closed, because standing by needs none.
    pub(super) fn stand_by(&mut self, now: Instant) {
        self.close();
        self.failures = 0;
        self.actions.push_back(Action::StopAsking);
        self.note(Note::TakenOver);
        self.check_lease_later(now);
    }

    /// Reads the lease again after a heartbeat.
    pub(super) fn check_lease_later(&mut self, now: Instant) {
        self.pause(SubscriberState::StandingBy, now + self.config.heartbeat(), now);
    }

    /// Pauses after a failure of the queue.
    pub(super) fn back_off(&mut self, error: QueueError, now: Instant, jitter: f64) {
        self.permit.revoke();
        self.close();
        let pause = self.next_pause(jitter);
        self.note(Note::QueueFailed { error, failures: self.failures, pause });
        // A renewal may fail during the pause after a failed attempt. Such a failure must not shorten that pause.
        let earlier = self.timer.filter(|_| self.state == SubscriberState::BackingOff);
        let until = earlier.into_iter().fold(now + pause, Instant::max);
        self.pause(SubscriberState::BackingOff, until, now);
    }

    /// Counts a failure, and returns the pause that follows.
    pub(super) fn next_pause(&mut self, jitter: f64) -> Duration {
        let pause = self.config.backoff().pause(self.failures, jitter);
        self.failures = self.failures.saturating_add(1);
        pause
    }

    /// Opens a new connection, because the old one broke or the lease changed under it.
    ///
    /// The first time the connection is opened at once. Later times come after a pause: behind a proxy that cuts
    /// blocking commands every wait ends in this way.
    pub(super) fn reconnect(&mut self, now: Instant, jitter: f64) {
        self.close();
        let Some(earlier) = self.failures.checked_sub(1) else {
            self.failures = 1;
            return self.react_to_presence();
        };
        let pause = self.config.backoff().pause(earlier, jitter);
        self.failures = self.failures.saturating_add(1);
        self.pause(SubscriberState::BackingOff, now + pause, now);
    }

    /// Ends the backoff: a wait has ended without a failure, or a notification was delivered.
    pub(super) fn end_backoff(&mut self) {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            self.note(Note::Recovered(failures));
        }
    }
}
