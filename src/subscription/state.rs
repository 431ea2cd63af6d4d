//! [`SubscriberState`]: state of a subscriber, which is the state of its machine.
//!
//! ```text
//!            client there                claimed, or renewed
//!   Parked ────────────────► Connecting ─────────────────────► Reading ◄───────────────┐
//!                             ▲  ▲   │                          │ │ ▲ │                │
//!                             │  │   │ another's       nothing  │ │ │ │ messages       │ outcome known:
//!                             │  │   ▼ lease           there    │ │ │ │ there          │ acknowledge
//!                             │  └─ StandingBy ◄── lease lost ──┘ ▼ │ ▼                │
//!                             │                               Waiting ────► Delivering ┤
//!                             │                                   messages arrived     │
//!                             │                                                        │ attempt failed
//!                 pause over  └──── BackingOff ◄──── written ──── Rewriting ◄──────────┘
//! ```
//!
//! Further transitions:
//! - The end of a pause leads to `Reading` where the connection is whole.
//! - A failure of the queue leads to `BackingOff`. A broken connection leads to `Connecting` the first time, and to
//!   `BackingOff` after that.
//! - In `Delivering` one batch follows another while earlier ones await their confirmation. The subscriber reads ahead
//!   and acknowledges meanwhile, and leaves the state when nothing is unconfirmed.
//! - A session that is not ready, or that does not confirm, leads from `Delivering` to `BackingOff`.
//! - A client that leaves leads to `Parked`, and a newer stream to `Connecting`.
//! - A stop, or the end of the session, leads to `Stopping`, the last state.
//!
//! A running operation or delivery ends before such a transition. Only a wait is dropped, and at a stop also the
//! opening of a connection.

use crate::envelope::MessageId;

/// State of a subscriber.
///
/// Each state allows certain operations on the queue. At most one operation runs at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscriberState {
    /// The subscriber opens a connection to the queue, then claims or renews its lease.
    Connecting,
    /// The subscriber owns the queue. It acknowledges delivered notifications, reads the oldest ones, or renews its
    /// lease.
    Reading,
    /// The subscriber owns the queue, which is empty, and waits for notifications.
    Waiting,
    /// The subscriber owns the queue and delivers notifications to the session, or awaits their confirmation. Meanwhile
    /// it acknowledges confirmed ones, reads ahead, and renews the lease.
    Delivering,
    /// The subscriber writes a failed attempt into the queue, in place of its notification.
    Rewriting,
    /// The subscriber pauses before it tries again, and keeps its thread and its place. A delivery, the queue or the
    /// subscriber itself has failed. Or the session is not ready although its client has an open stream.
    BackingOff,
    /// Another owner has taken the session over. The subscriber waits until no owner holds the lease, or until its own
    /// client opens a newer stream.
    StandingBy,
    /// The client has no open stream. The subscriber holds no lease, no thread and no connection, and notifications
    /// stay queued. Where `last_error` names a limit, the client is back and the subscriber waits for a place.
    Parked,
    /// The subscriber acknowledges, cancels open questions, releases its lease, and ends.
    Stopping,
}

#[cfg(feature = "metrics")]
impl SubscriberState {
    /// Every state, with its value of the label `state`.
    pub(crate) const LABELS: [(Self, &'static str); 9] = [
        (Self::Connecting, "connecting"),
        (Self::Reading, "reading"),
        (Self::Waiting, "waiting"),
        (Self::Delivering, "delivering"),
        (Self::Rewriting, "rewriting"),
        (Self::BackingOff, "backing_off"),
        (Self::StandingBy, "standing_by"),
        (Self::Parked, "parked"),
        (Self::Stopping, "stopping"),
    ];
}

/// Reason why a subscriber exited.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitReason {
    /// A stop was requested.
    Stopped,
    /// The session has ended, at every server.
    Closed,
    /// The session has ended at this server and may continue at another one.
    Detached,
    /// The client has no open stream. The supervisor starts the subscriber again when the client is back.
    Parked,
    /// The subscriber panicked, with this text, or found a defect in itself.
    Panicked(String),
    /// The subscriber's arbiter was stopped, which dropped the subscriber.
    Dropped,
}

/// Presence of a session's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// The client can be reached.
    Connected {
        /// Number of streams that the client has opened. The process with the newest stream owns the session, so the
        /// subscriber claims the queue each time that this number grows.
        generation: u64,
        /// Newest message that the client has, as the client named it when it opened this stream (SSE's
        /// `Last-Event-ID`). `None` where the client named none.
        ///
        /// All messages up to this one are acknowledged without being sent again, where the first reads of the owner
        /// find it.
        received: Option<MessageId>,
    },
    /// The client cannot be reached now and may come back. Notifications stay queued.
    Disconnected,
    /// The client will never be reached again, at any server. The session's open questions are cancelled.
    Ended,
    /// The client will never be reached again at this server and may continue at another one.
    Detached,
}
