//! [`Subscription`]: the machine. Events and the time go in, actions come out; no I/O, no clock, no randomness.
//!
//! The drawing stands in `state.rs`. This file has the machine's data and its doors; `life` has connecting, standing by,
//! backing off, parking and ending; `service` the reads, acknowledgements and waits of an owner; `delivering` the deliveries and
//! their confirmations; `batch` what is delivered of what was read; `at_most_once` how all that differs where the acknowledgement comes first.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ack::Ack;
use super::arrivals::Arrivals;
use super::batch::{Item, Mark, Taken};
use super::event::{Action, Event, IllegalTransition, OperationKind};
use super::permit::Permit;
use super::state::{ExitReason, SessionState, SubscriberState};
use super::window::{Sent, Window};
use crate::config::Config;
use crate::envelope::{Envelope, MessageId, Timestamp};
use crate::failure::QueueError;
use crate::fate::DiscardReason;
use crate::notification::NotificationId;
use crate::question::Question;
use crate::recent::Recent;

mod at_most_once;
mod batch;
mod delivering;
mod life;
mod service;

/// Life of one subscriber. It outlives connections and the times in which the client is away.
#[derive(Debug)]
pub struct Subscription {
    config: Arc<Config>,
    state: SubscriberState,
    presence: SessionState,
    permit: Arc<Permit>,
    actions: VecDeque<Action>,
    /// Operation under way.
    operation: Option<OperationKind>,
    /// Set while the connection is open and whole.
    is_connected: bool,
    /// Set while a claim may stand in the queue, so that parking and stopping release it.
    is_to_release: bool,
    /// Set once: a subscriber that stops starts nothing new.
    is_stopping: bool,
    /// Reason for which the subscriber exits, once the state is [`SubscriberState::Stopping`].
    exit: Option<ExitReason>,
    /// Newest opening of the client's stream that the queue was claimed for.
    claimed: Option<u64>,
    /// Opening of the client's stream that is served.
    serving: u64,
    /// Newest message that the client said it has when it opened that stream, until the first read.
    received: Option<MessageId>,
    /// Failures in a row, for the backoff.
    failures: u32,
    /// Moment at which the last renewal or claim was sent; `None` where the lease must be renewed before all else.
    renewed: Option<Instant>,
    /// Set while the lease may be renewed: it was not lost, and the connection is whole.
    can_renew: bool,
    /// End of the pause, the next look at another owner's lease, or the next look behind what is not confirmed.
    timer: Option<Instant>,
    /// Looks behind what is not confirmed, since the last delivery.
    looks: u32,
    /// Moment at which the wait began.
    waiting_since: Option<Instant>,
    /// Failure of the connection during the state [`SubscriberState::Delivering`].
    lost: Option<Box<QueueError>>,
    /// Number of deliveries so far.
    delivery: u64,
    /// Set while a delivery is under way.
    is_delivering: bool,
    /// Number of the last delivery that was given up unconfirmed.
    given_up: u64,
    /// Messages that were handed over and are not confirmed.
    window: Window,
    /// Messages behind those, which are discarded once they are the oldest.
    discarded: Vec<(Sent, DiscardReason)>,
    /// Step that follows once nothing is unconfirmed.
    after_window: Option<Then>,
    /// Set while a confirmation of the notification in hand is awaited ([`Delivery::AtMostOnce`]).
    awaits_in_hand: bool,
    /// Set where the last read stopped at a bound.
    has_more: bool,
    /// Ids that were delivered, by which repeats after an unknown outcome are recognised.
    recent: Recent<NotificationId>,
    arrivals: Arrivals,
    /// Set on a new connection: the open questions of the queue are to be read.
    is_to_read_questions: bool,
    /// Answer to the first read of a connection, until the open questions are read.
    taken: Option<Box<Taken>>,
    /// Messages of the batch that were not handled yet, the oldest first.
    items: VecDeque<Item>,
    read_at: Option<(Timestamp, Instant)>,
    ack: Ack,
    /// Messages that the delivery under way has.
    sent: Vec<Sent>,
    /// Questions of the acknowledgement under way.
    acknowledged_questions: Vec<Question>,
    /// Step that follows the acknowledgement or the rewrite under way.
    then: Then,
    /// Notification that was removed from the queue and not delivered yet ([`Delivery::AtMostOnce`]).
    in_hand: Option<Box<InHand>>,
}

/// Step that follows an acknowledgement.
#[derive(Debug, Default)]
enum Then {
    /// Serves on.
    #[default]
    Serve,
    /// Does what the client's presence, or a stop, demands.
    LookAround,
    /// Stands by: another owner has the lease.
    StandBy,
    /// Closes the connection and pauses: the session is not ready.
    AwaitReady(Duration),
    /// Pauses, and keeps the connection.
    Pause(Duration),
    /// Ends, for this reason.
    Exit(ExitReason),
    /// Writes the failed attempt in place, then pauses.
    Rewrite { oldest: Mark, replacement: Vec<u8>, pause: Duration },
    /// Delivers this notification, which the acknowledgement removes ([`Delivery::AtMostOnce`]).
    Deliver(Box<InHand>),
}

/// Notification that is in no queue any more.
#[derive(Debug)]
struct InHand {
    envelope: Envelope,
    read_at: (Timestamp, Instant),
}

impl Subscription {
    /// Begins the life of a subscriber. The first event is the client's presence.
    pub fn new(config: Arc<Config>) -> Self {
        // A window may come again after an unknown outcome, and another one may have been delivered behind it.
        let window = config.window_messages().max(config.batch_messages());
        let capacity = (window * 2).max(1024);
        Self {
            state: SubscriberState::Parked,
            presence: SessionState::Away,
            permit: Arc::new(Permit::new()),
            actions: VecDeque::new(),
            operation: None,
            is_connected: false,
            is_to_release: false,
            is_stopping: false,
            exit: None,
            claimed: None,
            serving: 0,
            received: None,
            failures: 0,
            renewed: None,
            can_renew: false,
            timer: None,
            looks: 0,
            waiting_since: None,
            lost: None,
            delivery: 0,
            is_delivering: false,
            given_up: 0,
            window: Window::default(),
            discarded: Vec::new(),
            after_window: None,
            awaits_in_hand: false,
            has_more: false,
            recent: Recent::new(capacity),
            arrivals: Arrivals::new(capacity, config.time_to_live()),
            is_to_read_questions: false,
            taken: None,
            items: VecDeque::new(),
            read_at: None,
            ack: Ack::default(),
            sent: Vec::new(),
            acknowledged_questions: Vec::new(),
            then: Then::Serve,
            in_hand: None,
            config,
        }
    }

    /// Returns the state.
    pub fn state(&self) -> SubscriberState {
        self.state
    }

    /// Returns the permit, which connections and deliveries share.
    pub fn permit(&self) -> &Arc<Permit> {
        &self.permit
    }

    /// Returns the next action to perform. All are performed, in their order, before the next event.
    pub fn next_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() {
            // An idle subscriber keeps no room for actions: there may be a hundred thousand.
            self.actions = VecDeque::new();
        }
        action
    }

    /// Returns the moment at which [`Event::Timer`] is due, if any.
    pub fn deadline(&self) -> Option<Instant> {
        if self.operation.is_some() {
            return None;
        }
        let renewal = || self.renewal_due().filter(|_| self.can_renew);
        match self.state {
            SubscriberState::Delivering => self.look_due().into_iter().chain(renewal()).min(),
            SubscriberState::BackingOff => self.timer.into_iter().chain(renewal()).min(),
            SubscriberState::StandingBy => self.timer.into_iter().chain(self.in_hand_expiry()).min(),
            SubscriberState::Parked => self.in_hand_expiry(),
            _ => None,
        }
    }

    /// Takes an event at `now`. `lot` is drawn by lot from 0 to 1, for a pause that may follow.
    ///
    /// # Errors
    /// [`IllegalTransition`] where the state does not allow the event. Nothing has changed then.
    pub fn handle(&mut self, event: Event, now: Instant, lot: f64) -> Result<(), IllegalTransition> {
        if !self.allows(&event) {
            let (state, operation) = (self.state, self.operation);
            return Err(IllegalTransition { state, operation, event: event.name() });
        }
        match event {
            Event::Presence(presence) => {
                self.presence = presence;
                self.look_up(now, lot);
            }
            Event::Stop => {
                self.is_stopping = true;
                // The session ends what it was handed within its own time limit; nothing more is handed over.
                self.permit.close();
                self.look_up(now, lot);
            }
            Event::Timer => self.timer(now),
            Event::Doubted => self.doubted(now, lot),
            Event::Delivered(outcome) => self.delivered(outcome, now, lot),
            Event::Confirmed { delivery, answer } => self.confirmed(delivery, answer, now, lot),
            answer => {
                if let Some(operation) = self.operation.take() {
                    self.answered(operation, answer, now, lot);
                }
            }
        }
        Ok(())
    }

    fn allows(&self, event: &Event) -> bool {
        if self.state == SubscriberState::Stopping && self.operation.is_none() {
            return false;
        }
        match event {
            Event::Presence(_) | Event::Stop => true,
            Event::Timer => self.deadline().is_some(),
            Event::Doubted => self.state == SubscriberState::Waiting,
            Event::Delivered(_) => self.is_delivering,
            Event::Confirmed { delivery, .. } => *delivery <= self.delivery,
            Event::Failed(_) => self.operation.is_some(),
            Event::Opened => self.operation == Some(OperationKind::Open),
            Event::Claimed => self.operation == Some(OperationKind::Claim),
            Event::Renewed(_) => matches!(self.operation, Some(OperationKind::Renew | OperationKind::ClaimIfAbsent)),
            Event::Taken(_) => matches!(self.operation, Some(OperationKind::Take | OperationKind::Wait)),
            Event::Questions(_) => self.operation == Some(OperationKind::ReadQuestions),
            Event::Rewritten(_) => self.operation == Some(OperationKind::Rewrite),
            Event::Cancelled => self.operation == Some(OperationKind::CancelQuestions),
            Event::Released => self.operation == Some(OperationKind::Release),
            Event::Settled => self.operation == Some(OperationKind::Settle),
        }
    }
}

#[cfg(test)]
mod tests;
