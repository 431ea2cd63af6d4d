//! [`Subscription`]: the machine. Events and the time go in, and actions come out. The machine has no I/O, no clock and
//! no randomness, so a test can replay any run.
//!
//! The states and their drawing are in `state.rs`. This file has the machine's data and its public methods. Each file
//! in `machine` has one part of the behaviour:
//! - `life`: connecting, standing by, backing off, parking and ending;
//! - `service`: the owner's reads, acknowledgements and waits;
//! - `delivering`: deliveries that follow each other, their confirmations, and reads behind them;
//! - `batch`: which messages of a read are delivered, and the outcome of a batch;
//! - `at_most_once`: the differences where the acknowledgement comes before the delivery.
//!
//! At most one operation on the queue runs at a time, and at most one delivery beside the operation. Confirmations of
//! earlier deliveries may be awaited besides. Each of these ends with one event. A change of the client's presence
//! waits for that end, so an answer always finds the state that asked for it. Only a wait, and at a stop the opening of
//! a connection, is dropped instead.
//!
//! # Invariants
//! - *One answer for each operation*. The driver reports each operation by exactly one event, and
//!   [`Subscription::close`] is the only way to drop an operation. A second answer would be taken for that of a later
//!   operation. Test: `each_operation_is_answered_by_its_own_event_only`.
//! - *A refused event changes nothing*. [`Subscription::handle`] checks the event before it touches any field. A driver
//!   may therefore log an [`IllegalTransition`] and continue. Test:
//!   `a_refusal_names_the_event_the_state_and_the_operation`.
//! - *Only confirmed messages are counted for an acknowledgement*, in the order of the queue. Test:
//!   `what_is_not_confirmed_comes_again_with_all_behind_it`.
//! - *Nothing is handed over without the permit*. The machine passes the permit to each delivery, and revokes it before
//!   it gives up messages, backs off or parks. Test: `the_permit_of_a_delivery_is_the_machines`.
//!
//! `tests/protocol/simulation` runs many machines against one queue under faults. It removes each guard in turn and
//! must then find a broken guarantee.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::ack::Ack;
use super::arrivals::Arrivals;
use super::batch::{Item, Taken};
use super::event::{Action, Event, IllegalTransition, OperationKind};
use super::permit::Permit;
use super::state::{ExitReason, SessionState, SubscriberState};
use super::window::{Sent, Window};
use crate::config::Config;
use crate::envelope::{Envelope, Mark, MessageId, Timestamp};
use crate::failure::QueueError;
use crate::notification::NotificationId;
use crate::outcome::DiscardReason;
use crate::question::Question;
use crate::recent_set::RecentSet;

mod at_most_once;
mod batch;
mod delivering;
mod life;
mod service;

/// Life of one subscriber. The value outlives connections, and the times in which the client is away.
#[derive(Debug)]
pub struct Subscription {
    config: Arc<Config>,
    state: SubscriberState,
    /// Presence of the client in the newest event.
    presence: SessionState,
    /// Permit of this owner, which connections and deliveries share.
    permit: Arc<Permit>,
    /// Actions that the driver has not fetched yet.
    actions: VecDeque<Action>,
    /// Operation that runs now. At most one runs, so its answer needs no number.
    operation: Option<OperationKind>,
    /// Set while the connection is open and whole.
    is_connected: bool,
    /// Set while this owner may hold the lease, because a claim was sent. Parking and stopping then release the lease.
    is_to_release: bool,
    /// Set by a stop, for ever. A subscriber that stops begins no new work.
    is_stopping: bool,
    /// Reason for the exit, set while the state is [`SubscriberState::Stopping`].
    exit: Option<ExitReason>,
    /// Newest opening of the client's stream for which the queue was claimed; `None` before the first claim. A
    /// displaced owner claims again only for a newer opening.
    claimed: Option<u64>,
    /// Opening of the client's stream that is served.
    serving: u64,
    /// Newest message that the client has, as named when it opened the served stream. `None` once the first read has
    /// used it.
    received: Option<MessageId>,
    /// Number of failures in a row, for the backoff.
    failures: u32,
    /// Moment when the last renewal or claim was sent; `None` where the lease must be renewed before anything else.
    renewed: Option<Instant>,
    /// Set while the lease may be renewed: the lease was not lost and the connection is whole.
    can_renew: bool,
    /// Next moment at which the machine acts by itself. In `BackingOff` the pause ends. In `StandingBy` the other
    /// owner's lease is read. In `Delivering` the queue is read behind the unconfirmed messages.
    timer: Option<Instant>,
    /// Number of reads behind unconfirmed messages since the last delivery, for the pauses between these reads.
    reads_ahead: u32,
    /// Moment when the present wait began. A long wait counts as a success of the connection.
    waiting_since: Option<Instant>,
    /// Failure of the connection in the state [`SubscriberState::Delivering`]. The failure is handled when nothing is
    /// unconfirmed.
    lost: Option<Box<QueueError>>,
    /// Number of the newest delivery.
    delivery: u64,
    /// Set while the hand-overs of a delivery run.
    is_delivering: bool,
    /// Number of the newest delivery that was given up unconfirmed. Later answers about that delivery and earlier ones
    /// are ignored.
    abandoned: u64,
    /// Messages that were handed over and are not confirmed.
    window: Window,
    /// Messages behind the window that are to be discarded. They are acknowledged once they are the oldest, because an
    /// acknowledgement removes a prefix.
    discarded: Vec<(Sent, DiscardReason)>,
    /// Step to take once nothing is unconfirmed. It waits because it would break the order of the unconfirmed messages.
    after_window: Option<NextStep>,
    /// Set while the confirmation of the notification in `removed` is awaited ([`Delivery::AtMostOnce`]).
    awaits_removed: bool,
    /// Set where the last read stopped at a bound, so that further messages may be queued.
    has_more: bool,
    /// Ids of notifications that were handed over and whose delivery was given up. A second delivery of them is a repeat.
    /// At most two windows.
    unconfirmed: HashSet<NotificationId, RandomState>,
    /// Ids that the running delivery had when it was given up, in order. Its outcome says how many were handed over.
    given_up: Vec<NotificationId>,
    /// Ids of delivered notifications. A message that is read again after an acknowledgement with unknown outcome is
    /// recognised by its id and skipped.
    recent: RecentSet<NotificationId>,
    /// Ids and times for messages whose producers gave none.
    arrivals: Arrivals,
    /// Set on a new connection: the open questions of the queue must be read, because an earlier owner may have asked
    /// them.
    is_to_read_questions: bool,
    /// Answer to the first read of a connection, kept while the open questions are read.
    taken: Option<Box<Taken>>,
    /// Messages that were read and not handled yet, the oldest first.
    items: VecDeque<Item>,
    /// Time of the last read by the queue's clock, and the same moment by this host's clock. Expiry is computed from
    /// this pair.
    read_at: Option<(Timestamp, Instant)>,
    /// Positions of the messages to acknowledge next.
    ack: Ack,
    /// Messages that the running delivery has.
    sent: Vec<Sent>,
    /// Questions of the running acknowledgement. They are asked once it has succeeded, because only then they are open
    /// questions of the queue.
    acknowledged_questions: Vec<Question>,
    /// Step that follows the running acknowledgement or rewrite.
    next_step: NextStep,
    /// Notification that was removed from the queue and is not delivered yet ([`Delivery::AtMostOnce`]).
    removed: Option<Box<RemovedNotification>>,
}

/// Step that follows an acknowledgement.
#[derive(Debug, Default)]
enum NextStep {
    /// Continues the service of the queue.
    #[default]
    Serve,
    /// Acts on the client's presence or on a stop.
    ReactToPresence,
    /// Stands by, because another owner holds the lease.
    StandBy,
    /// Closes the connection and pauses, because the session is not ready.
    AwaitReady(Duration),
    /// Pauses and keeps the connection.
    Pause(Duration),
    /// Ends the subscriber, for this reason.
    Exit(ExitReason),
    /// Writes the failed attempt in place of its message, then pauses.
    Rewrite { oldest: Mark, replacement: Vec<u8>, pause: Duration },
    /// Delivers this notification, which the acknowledgement removes from the queue ([`Delivery::AtMostOnce`]).
    Deliver(Box<RemovedNotification>),
}

/// Notification that was removed from the queue and is not delivered yet.
#[derive(Debug)]
struct RemovedNotification {
    envelope: Envelope,
    read_at: (Timestamp, Instant),
}

impl Subscription {
    /// Creates the machine of a new subscriber. The first event must be the client's presence.
    pub fn new(config: Arc<Config>) -> Self {
        // After an acknowledgement with unknown outcome a whole window may be read again. Another window may have been
        // delivered behind it.
        let window = config.window_messages().max(config.batch_messages());
        let capacity = (window * 2).max(1024);
        Self {
            state: SubscriberState::Parked,
            presence: SessionState::Disconnected,
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
            reads_ahead: 0,
            waiting_since: None,
            lost: None,
            delivery: 0,
            is_delivering: false,
            abandoned: 0,
            window: Window::default(),
            discarded: Vec::new(),
            after_window: None,
            awaits_removed: false,
            has_more: false,
            unconfirmed: HashSet::default(),
            given_up: Vec::new(),
            recent: RecentSet::new(capacity),
            arrivals: Arrivals::new(capacity, config.time_to_live()),
            is_to_read_questions: false,
            taken: None,
            items: VecDeque::new(),
            read_at: None,
            ack: Ack::default(),
            sent: Vec::new(),
            acknowledged_questions: Vec::new(),
            next_step: NextStep::Serve,
            removed: None,
            config,
        }
    }

    /// Returns the present state.
    pub fn state(&self) -> SubscriberState {
        self.state
    }

    /// Returns the permit, which connections and deliveries share.
    pub fn permit(&self) -> &Arc<Permit> {
        &self.permit
    }

    /// Returns the moment of the push of the oldest message that is handed over or read, by this host's clock; `None`
    /// where no message is known, and without the feature `metrics`.
    pub fn oldest_since(&self) -> Option<Instant> {
        if cfg!(not(feature = "metrics")) {
            return None;
        }
        let (clock, read) = self.read_at?;
        let pushed_at = match self.window.messages().next() {
            Some(sent) => sent.pushed_at,
            None => self
                .sent
                .first()
                .map_or_else(|| self.items.front()?.envelope.as_ref().ok()?.enqueued_at, |sent| sent.pushed_at),
        };
        read.checked_sub(clock.since(pushed_at?))
    }

    /// Returns the next action to perform. The driver performs all actions in their order before the next event.
    pub fn next_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() {
            // An idle subscriber keeps no memory for actions, because a process may have a hundred thousand idle
            // subscribers.
            self.actions = VecDeque::new();
        }
        action
    }

    /// Returns the moment at which [`Event::Timer`] is due; `None` where the machine waits for an event only.
    pub fn deadline(&self) -> Option<Instant> {
        if self.operation.is_some() {
            return None;
        }
        let renewal = || self.renewal_due().filter(|_| self.can_renew);
        match self.state {
            SubscriberState::Delivering => self.read_ahead_due().into_iter().chain(renewal()).min(),
            SubscriberState::BackingOff => self.timer.into_iter().chain(renewal()).min(),
            SubscriberState::StandingBy => self.timer.into_iter().chain(self.removed_expiry()).min(),
            SubscriberState::Parked => self.removed_expiry(),
            _ => None,
        }
    }

    /// Handles an event at `now`. `jitter` is a random number from 0 to 1, for a pause that may follow.
    ///
    /// # Errors
    /// [`IllegalTransition`] where the state does not allow the event. The machine has not changed then.
    pub fn handle(&mut self, event: Event, now: Instant, jitter: f64) -> Result<(), IllegalTransition> {
        if !self.allows(&event) {
            let (state, operation) = (self.state, self.operation);
            return Err(IllegalTransition { state, operation, event: event.name() });
        }
        match event {
            Event::Presence(presence) => {
                self.presence = presence;
                self.react_if_free(now, jitter);
            }
            Event::Stop => {
                self.is_stopping = true;
                // The session completes its running call within its own time limit. No further notification is handed
                // over.
                self.permit.close();
                self.react_if_free(now, jitter);
            }
            Event::Timer => self.handle_timer(now),
            Event::PermitSuspended => self.handle_permit_suspended(now, jitter),
            Event::Delivered(outcome) => self.handle_delivered(outcome, now, jitter),
            Event::Confirmed { delivery, answer } => self.handle_confirmed(delivery, answer, now, jitter),
            answer => {
                if let Some(operation) = self.operation.take() {
                    self.handle_answer(operation, answer, now, jitter);
                }
            }
        }
        Ok(())
    }

    /// Returns whether the state allows an event.
    fn allows(&self, event: &Event) -> bool {
        if self.state == SubscriberState::Stopping && self.operation.is_none() {
            return false;
        }
        match event {
            Event::Presence(_) | Event::Stop => true,
            Event::Timer => self.deadline().is_some(),
            Event::PermitSuspended => self.state == SubscriberState::Waiting,
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
