//! [`SubscriberState`]: the state of a subscriber, and of its machine.
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
//! From each state besides:
//! - the end of a pause leads to `Reading` where the connection is whole;
//! - a failure of the queue leads to `BackingOff`, a broken connection to `Connecting` the first time, and `BackingOff` then;
//! - in `Delivering` batches follow each other, and are read ahead and acknowledged, while earlier ones await their confirmation;
//!   the state is left once nothing is unconfirmed;
//! - a session that is not ready, or does not confirm, leads from `Delivering` to `BackingOff`;
//! - a client that leaves leads to `Parked`, a newer stream to `Connecting`, and a stop or the end of the session to
//!   `Stopping`, which ends.
//!
//! An operation or a delivery that is under way ends first. Only a wait is dropped, and at a stop a connecting.

use crate::envelope::MessageId;

/// State of a subscriber.
///
/// Each state names the operations on the queue that may be under way in it. There is one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscriberState {
    /// The subscriber opens a connection to the queue, then claims or renews its lease.
    Connecting,
    /// The subscriber owns the queue. It acknowledges what was delivered, reads the oldest notifications, or renews its lease.
    Reading,
    /// The subscriber owns the queue, which is empty, and waits for notifications.
    Waiting,
    /// Notifications are delivered to the session, or await its confirmation. Meanwhile the subscriber acknowledges what is confirmed,
    /// reads ahead, and renews the lease.
    Delivering,
    /// A failed attempt is written into the queue in place of its notification.
    Rewriting,
    /// A delivery, the queue, or the subscriber itself has failed, or the session is not ready although its client has an
    /// open stream. The subscriber pauses before it tries again, and keeps its thread and its place meanwhile.
    BackingOff,
    /// Another process has taken the session over. The subscriber owns nothing until nobody does, or until its client opens
    /// a newer stream.
    StandingBy,
    /// The client has no open stream. The subscriber owns nothing and holds no thread and no connection; notifications stay
    /// queued. Where `last_error` names the limit, the client is back and waits for a place.
    Parked,
    /// The subscriber acknowledges, cancels open questions, gives its lease up, and ends.
    Stopping,
}

/// Reason for which a subscriber exited.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExitReason {
    /// A stop was requested.
    Stopped,
    /// The session is over.
    Closed,
    /// The session is over here, and may go on at another server.
    Left,
    /// The client has no open stream. The supervisor starts the subscriber again when the client is back.
    Parked,
    /// The subscriber panicked, with this text, or found a defect in itself.
    Panicked(String),
    /// The arbiter of the subscriber was stopped under it.
    Dropped,
}

/// Presence of a session's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// The client can be reached. The number grows each time that the client opens a stream: the process with the newest
    /// stream owns the session, so each growth claims the session.
    Ready {
        /// Number of streams that the client has opened.
        opened: u64,
        /// Newest message that the client said it has when it opened this stream (SSE's `Last-Event-ID`), if it did. All
        /// messages up to that one are acknowledged without being sent again, where the next owner's first reads find it.
        received: Option<MessageId>,
    },
    /// The client cannot be reached now, and may come back. Notifications stay queued.
    Away,
    /// The client will never be reached again, at any server. Its open questions are cancelled.
    Ended,
    /// The client will never be reached again here, and may go on at another server of the fleet.
    Left,
}
