//! Input and output of the machine: [`Event`], [`Action`] and [`Note`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ack::{Delivered, Fate};
use super::batch::{LeaseState, Mark, Replaced, Taken};
use super::delivery::{HandOverError, Outcome};
use super::permit::Permit;
use super::state::{ExitReason, SessionState, SubscriberState};
use super::window::Behind;
use crate::envelope::{Envelope, Timestamp};
use crate::failure::QueueError;
use crate::fate::DiscardReason;
use crate::notification::NotificationId;
use crate::question::Question;

/// Event in the life of a subscriber. All but the first six answer the operation that is under way.
#[derive(Debug)]
pub enum Event {
    /// The client's presence has changed to this, or is this at the beginning.
    Presence(SessionState),
    /// A stop is requested.
    Stop,
    /// The time of [`Subscription::deadline`](super::Subscription::deadline) has come.
    Timer,
    /// The lease may have been taken by another owner, or the connection is lost. Legal while waiting.
    Doubted,
    /// The hand-overs of the delivery under way have ended. `None` where the session's actor is gone.
    Delivered(Option<Outcome>),
    /// The session has confirmed a delivery, and those before it, or has not. Follows each delivery that handed anything over, unless
    /// its outcome says that already; in the order of the deliveries, also for those that were given up meanwhile.
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
    /// The lease was renewed, or claimed where it was absent; its state now.
    Renewed(LeaseState),
    /// The queue was acknowledged and read, or a wait has ended with a read.
    Taken(Taken),
    /// Open questions of the queue.
    Questions(Vec<Question>),
    /// The oldest message was rewritten, or not.
    Rewritten(Replaced),
    /// Open questions are cancelled, as far as the queue let them.
    Cancelled,
    /// The lease is released, or its release was given up.
    Released,
    /// No answer and no cancellation is on its way to a worker any more.
    Settled,
    /// The operation failed. The connection is of no more use.
    Failed(QueueError),
}

impl Event {
    /// Returns the event's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Presence(_) => "Presence",
            Self::Stop => "Stop",
            Self::Timer => "Timer",
            Self::Doubted => "Doubted",
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

/// Action for the driver to perform. It makes no decision of its own.
#[derive(Debug)]
pub enum Action {
    /// Begins an operation; its answer comes as an event. At most one is under way.
    Begin(Operation),
    /// Drops the operation that is under way, if any, and closes the connection, if any. The queue may still do what was sent.
    Close,
    /// Delivers notifications to the session, each only while `permit` holds, then asks the session to confirm. The outcome and the
    /// confirmation come as events.
    Deliver {
        /// Number of the delivery: each has the next.
        delivery: u64,
        /// Notifications, the oldest first.
        batch: Vec<Envelope>,
        /// Time by the queue's clock when they were read, and by this host's at the same moment.
        read_at: (Timestamp, Instant),
        /// Permission to deliver, asked before each notification.
        permit: Arc<Permit>,
    },
    /// Asks the client these questions, beside all else.
    Ask {
        /// Questions; those that are being asked already stay as they are.
        questions: Vec<Question>,
        /// Time by the queue's clock when they were read, and by this host's at the same moment.
        read_at: (Timestamp, Instant),
    },
    /// Stops asking the client: the session's questions are another owner's now.
    StopAsking,
    /// Records the outcome of a notification that is in no queue any more ([`Delivery::AtMostOnce`](crate::Delivery)).
    Record {
        /// Outcome; its position says nothing.
        fate: Fate,
        /// The message as it was in the queue.
        raw: Vec<u8>,
    },
    /// Tells the log and the statistics.
    Note(Note),
    /// The subscriber has ended. No event follows, but after [`ExitReason::Parked`], where the machine goes on with the next
    /// presence, stop or timer.
    Exit(ExitReason),
}

/// Operation on the queue.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// Opens a connection. Answered by [`Event::Opened`].
    Open,
    /// Takes the lease, whoever has it. Answered by [`Event::Claimed`].
    Claim,
    /// Keeps the lease, or takes an absent one. Answered by [`Event::Renewed`].
    Renew,
    /// Acknowledges, if anything was delivered, and reads the oldest messages, or those behind unconfirmed ones. Answered by
    /// [`Event::Taken`].
    Take {
        /// Messages to remove.
        delivered: Option<Delivered>,
        /// Messages that stay, and that the read passes over.
        behind: Option<Behind>,
    },
    /// Reads the open questions of the queue. Answered by [`Event::Questions`].
    ReadQuestions,
    /// Waits for a message, at most for this time, and reads the oldest messages. Answered by [`Event::Taken`].
    Wait(Duration),
    /// Writes `replacement` in the place of the oldest message. Answered by [`Event::Rewritten`].
    Rewrite {
        /// Mark of the message that must still be the oldest.
        oldest: Mark,
        /// The message with the failed attempt counted.
        replacement: Vec<u8>,
    },
    /// Takes the lease where nobody has it, without a connection of its own. Answered by [`Event::Renewed`].
    ClaimIfAbsent,
    /// Cancels the open questions of a session that has ended. Answered by [`Event::Cancelled`].
    CancelQuestions,
    /// Gives the lease up. Answered by [`Event::Released`].
    Release,
    /// Waits until no answer and no cancellation is on its way to a worker. Answered by [`Event::Settled`].
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

/// Kind of an [`Operation`], without what it carries.
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
    /// So many notifications were delivered.
    Delivered(usize),
    /// A notification is discarded. The worker of its question is to be told.
    Discarded {
        /// Id, where the message could be read.
        id: Option<NotificationId>,
        /// Question that the notification brought.
        question: Option<Question>,
        /// Reason for which it is discarded.
        reason: DiscardReason,
    },
    /// A client that has opened a stream has so many of the oldest notifications; they are acknowledged and not sent again.
    Received(usize),
    /// A notification was delivered before; it is acknowledged and not sent again.
    Skipped(NotificationId),
    /// An attempt failed, and is made again.
    AttemptFailed {
        /// Id of the notification.
        id: NotificationId,
        /// Number of failed attempts, with this one.
        attempts: u32,
        /// Answer of the session.
        error: String,
        /// Pause before the next attempt.
        pause: Duration,
    },
    /// The session is not ready, for this reason.
    NotReady(String),
    /// The queue failed, so many times in a row; the next attempt comes after the pause.
    QueueFailed {
        /// Failure of the operation.
        error: QueueError,
        /// Number of failures in a row.
        failures: u32,
        /// Pause before the next attempt.
        pause: Duration,
    },
    /// Reading whether the lease is absent failed.
    LeaseUnread(QueueError),
    /// The subscriber works again after so many failures.
    Recovered(u32),
    /// The lease had gone, and is this owner's again.
    Reclaimed,
    /// The queue changed under its owner. Nothing was removed; messages that were delivered are skipped.
    Changed,
    /// Another subscriber has taken the session over.
    TakenOver,
    /// A producer's clock is wrong by this much.
    WrongClock(Duration),
    /// A notification that is in no queue any more is lost. The worker of its question is to be told.
    Lost {
        /// The lost notification.
        envelope: Box<Envelope>,
        /// Reason for the loss, for the log and the worker.
        why: &'static str,
    },
}

/// An event came in a state that does not allow it: a defect of the driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event {event} is illegal in the state {state:?} while the operation {operation:?} is under way")]
pub struct IllegalTransition {
    /// State of the machine.
    pub state: SubscriberState,
    /// Operation on the queue that is under way, if any.
    pub operation: Option<OperationKind>,
    /// Name of the event.
    pub event: &'static str,
}
