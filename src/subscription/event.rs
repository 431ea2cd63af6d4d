//! Input and output of the machine: [`Event`], [`Action`] and [`Note`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ack::{Delivered, MessageOutcome};
use super::batch::{LeaseState, Replaced, Taken};
use super::delivery::{DeliveryOutcome, HandOverError};
use super::permit::Permit;
use super::state::{ExitReason, SessionState, SubscriberState};
use super::window::Behind;
use crate::envelope::{Envelope, Mark, Timestamp};
use crate::failure::QueueError;
use crate::notification::NotificationId;
use crate::outcome::DiscardReason;
use crate::question::Question;

/// Event in the life of a subscriber. The first six variants come at any time that their state allows, and the others
/// answer the running operation.
#[derive(Debug)]
pub enum Event {
    /// The client's presence has changed to this state. As the first event, the presence at the beginning.
    Presence(SessionState),
    /// A stop is requested.
    Stop,
    /// The moment of [`Subscription::deadline`](super::Subscription::deadline) has come.
    Timer,
    /// The lease may belong to another owner now, or the connection is lost. Legal in the state `Waiting`, where no
    /// answer would show it.
    PermitSuspended,
    /// The hand-overs of the running delivery have ended. `None` where the session's actor is gone.
    Delivered(Option<DeliveryOutcome>),
    /// The session has answered the request to confirm a delivery. `Ok` also confirms all earlier deliveries.
    ///
    /// One such event follows each delivery that handed anything over, unless the delivery's [`DeliveryOutcome`] has
    /// the answer already. The events come in the order of the deliveries, also for deliveries that were given up
    /// meanwhile.
    Confirmed {
        /// Number of the delivery.
        delivery: u64,
        /// Answer of the session.
        answer: Result<(), HandOverError>,
    },
    /// The connection is open.
    Opened,
    /// The lease is claimed.
    Claimed,
    /// The lease was renewed, or claimed where it was absent. This is its state now.
    Renewed(LeaseState),
    /// The queue was read, after an acknowledgement if there was one. A wait also ends with a read.
    Taken(Taken),
    /// Open questions of the queue.
    Questions(Vec<Question>),
    /// The oldest message was rewritten, or the reason why not.
    Rewritten(Replaced),
    /// The open questions are cancelled, as far as the queue allowed.
    Cancelled,
    /// The lease is released, or its release has failed or taken too long.
    Released,
    /// No answer and no cancellation is on its way to a worker.
    Settled,
    /// The operation failed. Its connection cannot be used any more.
    Failed(QueueError),
}

impl Event {
    /// Returns the event's name, for errors and tests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Presence(_) => "Presence",
            Self::Stop => "Stop",
            Self::Timer => "Timer",
            Self::PermitSuspended => "PermitSuspended",
            Self::Delivered(_) => "Delivered",
            Self::Confirmed { .. } => "Confirmed",
            Self::Opened => "Opened",
            Self::Claimed => "Claimed",
            Self::Renewed(_) => "Renewed",
            Self::Taken(_) => "Taken",
            Self::Questions(_) => "Questions",
            Self::Rewritten(_) => "Rewritten",
            Self::Cancelled => "Cancelled",
            Self::Released => "Released",
            Self::Settled => "Settled",
            Self::Failed(_) => "Failed",
        }
    }
}

/// Action that the driver performs. The driver decides nothing.
#[derive(Debug)]
pub enum Action {
    /// Begin an operation, whose answer comes as an event. At most one operation runs at a time.
    Begin(Operation),
    /// Drop the running operation, if any, and close the connection, if any. The queue may still execute requests that
    /// were sent.
    Close,
    /// Hand notifications to the session, each only while `permit` holds, then request the confirmation. The outcome
    /// and the confirmation come as events.
    Deliver {
        /// Number of the delivery. Numbers begin at 1 and grow by 1.
        delivery: u64,
        /// Notifications, the oldest first.
        batch: Vec<Envelope>,
        /// Time of the read by the queue's clock, and the same moment by this host's clock.
        read_at: (Timestamp, Instant),
        /// Permit of the owner, which is checked before each notification.
        permit: Arc<Permit>,
    },
    /// Ask the client these questions, in tasks beside everything else.
    Ask {
        /// Questions to ask. A question that is being asked already is left as it is.
        questions: Vec<Question>,
        /// Time of the read by the queue's clock, and the same moment by this host's clock.
        read_at: (Timestamp, Instant),
    },
    /// Stop asking the client, because another owner may ask the session's questions now.
    StopAsking,
    /// Record the outcome of a notification that is in no queue any more ([`Delivery::AtMostOnce`](crate::Delivery)).
    Record {
        /// Outcome of the notification. Its position has no meaning here.
        outcome: MessageOutcome,
        /// Bytes of the message as they were in the queue.
        raw: Vec<u8>,
    },
    /// Write a fact to the log and the statistics.
    Note(Note),
    /// The subscriber has ended. No further event is legal, except after [`ExitReason::Parked`]. Then the machine
    /// continues with the next presence, stop or timer.
    Exit(ExitReason),
}

/// Operation on the queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Open a connection. Answered by [`Event::Opened`].
    Open,
    /// Claim the lease, also from another owner. Answered by [`Event::Claimed`].
    Claim,
    /// Renew the lease, or claim an absent one. Answered by [`Event::Renewed`].
    Renew,
    /// Acknowledge delivered messages, if any, and read the oldest messages or those behind unconfirmed ones. Answered
    /// by [`Event::Taken`].
    Take {
        /// Messages to remove.
        delivered: Option<Delivered>,
        /// Unconfirmed messages, which stay in the queue and over which the read passes.
        behind: Option<Behind>,
    },
    /// Read the open questions of the queue. Answered by [`Event::Questions`].
    ReadQuestions,
    /// Wait for a message, at most for this time, and read the oldest messages. Answered by [`Event::Taken`].
    Wait(Duration),
    /// Write `replacement` in place of the oldest message. Answered by [`Event::Rewritten`].
    Rewrite {
        /// Mark of the message to replace, which must still be the oldest.
        oldest: Mark,
        /// Bytes of the message with the failed attempt counted.
        replacement: Vec<u8>,
    },
    /// Claim the lease if no owner holds it, without a connection of the subscriber. Answered by [`Event::Renewed`].
    ClaimIfAbsent,
    /// Cancel the open questions of a session that has ended. Answered by [`Event::Cancelled`].
    CancelQuestions,
    /// Release the lease. Answered by [`Event::Released`].
    Release,
    /// Wait until no answer and no cancellation is on its way to a worker. Answered by [`Event::Settled`].
    Settle,
}

impl Operation {
    /// Returns the kind of the operation.
    pub fn kind(&self) -> OperationKind {
        match self {
            Self::Open => OperationKind::Open,
            Self::Claim => OperationKind::Claim,
            Self::Renew => OperationKind::Renew,
            Self::Take { .. } => OperationKind::Take,
            Self::ReadQuestions => OperationKind::ReadQuestions,
            Self::Wait(_) => OperationKind::Wait,
            Self::Rewrite { .. } => OperationKind::Rewrite,
            Self::ClaimIfAbsent => OperationKind::ClaimIfAbsent,
            Self::CancelQuestions => OperationKind::CancelQuestions,
            Self::Release => OperationKind::Release,
            Self::Settle => OperationKind::Settle,
        }
    }
}

/// Kind of an [`Operation`], without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // each is described at its operation
pub enum OperationKind {
    Open,
    Claim,
    Renew,
    Take,
    ReadQuestions,
    Wait,
    Rewrite,
    ClaimIfAbsent,
    CancelQuestions,
    Release,
    Settle,
}

/// Fact for the log and the statistics.
#[derive(Debug)]
pub enum Note {
    /// Notifications were delivered and confirmed.
    Delivered {
        /// Number of the notifications.
        count: usize,
        /// Times from their pushes to now, by the queue's clock. Empty without the feature `metrics`.
        since_push: Vec<Duration>,
    },
    /// This number of notifications was handed over again, because their earlier delivery was not confirmed.
    Repeated(usize),
    /// A notification is discarded. The worker of its question, if any, must get the reason.
    Discarded {
        /// Id of the notification, where the message could be read.
        id: Option<NotificationId>,
        /// Question that the notification brought.
        question: Option<Box<Question>>,
        /// Reason for the discard.
        reason: DiscardReason,
    },
    /// A client that has opened a stream already has this number of the oldest notifications. They are acknowledged and
    /// not sent again.
    Received(usize),
    /// A notification was delivered before. It is acknowledged and not sent again.
    Skipped(NotificationId),
    /// An attempt failed, and another attempt follows.
    AttemptFailed {
        /// Id of the notification.
        id: NotificationId,
        /// Number of failed attempts, this one included.
        attempts: u32,
        /// Answer of the session.
        error: String,
        /// Pause before the next attempt.
        pause: Duration,
    },
    /// The session is not ready, for this reason.
    NotReady(String),
    /// The queue failed. Another attempt follows after the pause.
    QueueFailed {
        /// Failure of the operation.
        error: QueueError,
        /// Number of failures in a row.
        failures: u32,
        /// Pause before the next attempt.
        pause: Duration,
    },
    /// Reading the lease of another owner failed. The subscriber stays in the state `StandingBy`.
    LeaseUnread(QueueError),
    /// The subscriber works again after this number of failures in a row.
    Recovered(u32),
    /// The lease had gone, and this owner has claimed it again.
    Reclaimed,
    /// The queue changed under its owner. Nothing was removed, and messages that were delivered are skipped.
    Changed,
    /// Another subscriber has taken the session over.
    TakenOver,
    /// A producer's clock differs by this much from the queue's clock.
    WrongClock(Duration),
    /// A notification is lost that is in no queue any more. The worker of its question, if any, must get the reason.
    Lost {
        /// The lost notification.
        envelope: Box<Envelope>,
        /// Reason for the loss, for the log and the worker.
        why: &'static str,
    },
}

/// Defect of the driver: an event came in a state that does not allow the event. The machine has not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event {event} is illegal in the state {state:?} while the operation {operation:?} runs")]
pub struct IllegalTransition {
    /// State of the machine.
    pub state: SubscriberState,
    /// Operation that was running, if any.
    pub operation: Option<OperationKind>,
    /// Name of the event.
    pub event: &'static str,
}
