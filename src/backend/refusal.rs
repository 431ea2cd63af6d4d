//! [`PushRefusal`]: reason for which a push was refused, as backends answer and producers read it.

use std::fmt;

use thiserror::Error;

use crate::failure::SharedCause;

/// Reason of a [`PushError`](crate::PushError). A reason that is a bound names its setting and what is allowed.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum PushRefusal {
    /// The message is larger than [`Config::message_max_bytes`](crate::Config::message_max_bytes). Not queued.
    #[error("the message has {bytes} bytes, and at most {limit} are allowed (message_max_bytes)")]
    TooLarge {
        /// Size of the message on the wire, in bytes.
        bytes: usize,
        /// Largest size allowed, in bytes.
        limit: usize,
    },
    /// The queue of the session has reached one of its bounds. Not queued.
    #[error("the queue is full: it may hold {0}")]
    QueueFull(QueueLimit),
    /// The session is held by a FastMCP server ([`Config::fastmcp_servers`](crate::Config::fastmcp_servers)), which would
    /// drop the notification. Not queued.
    #[error(
        "a FastMCP server takes notifications/tasks/status with taskId, status, createdAt, lastUpdatedAt and ttl only, and {why}"
    )]
    NotForFastMcp {
        /// Requirement that the notification breaks.
        why: String,
    },
    /// `params` or `_meta` are nested so deeply that they could not be read from the queue. Not queued.
    #[error("the message is nested deeper than {limit} levels")]
    TooDeep {
        /// Largest number of levels allowed.
        limit: usize,
    },
    /// The `taskId` of its task status is longer than [`TaskKey::MAX_LEN`](crate::TaskKey::MAX_LEN). Not queued.
    #[error("the taskId has {bytes} bytes, and at most {limit} are allowed")]
    TaskIdTooLong {
        /// Length of the id, in bytes.
        bytes: usize,
        /// Largest length allowed, in bytes.
        limit: usize,
    },
    /// The notification could not be sealed ([`Config::sealing`](crate::Config)). Not queued.
    #[error("the notification could not be sealed: {why}")]
    NotSealed {
        /// Reason for the failure.
        why: String,
    },
    /// An earlier notification of the same call to the same session was refused, and order comes first. Not queued.
    #[error("an earlier notification to the same session was refused")]
    AfterRefused,
    /// The queue could not be reached. Not queued.
    #[error("the queue cannot be reached")]
    Unreachable(#[source] SharedCause),
    /// The connection broke or the answer took too long: the notification may have been queued.
    #[error("no answer from the queue: the notification may have been queued")]
    Uncertain(#[source] SharedCause),
    /// Redis refused (out of memory, wrong type, no permission, a read-only replica). Not queued.
    #[error("the queue refused: {0}")]
    Refused(String),
}

impl PushRefusal {
    /// Returns whether the notification may be in the queue all the same.
    pub fn may_have_been_queued(&self) -> bool {
        matches!(self, Self::Uncertain(_))
    }

    /// Returns the value of the label `reason`.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::QueueFull(_) => "queue_full",
            Self::NotForFastMcp { .. } => "not_for_fastmcp",
            Self::TooDeep { .. } => "too_deep",
            Self::TaskIdTooLong { .. } => "task_id_too_long",
            Self::NotSealed { .. } => "not_sealed",
            Self::AfterRefused => "after_refused",
            Self::Unreachable(_) => "unreachable",
            Self::Uncertain(_) => "uncertain",
            Self::Refused(_) => "refused",
        }
    }
}

/// Bound that a queue has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueLimit {
    /// [`Config::queue_max_messages`](crate::Config::queue_max_messages).
    Messages(usize),
    /// [`Config::queue_max_bytes`](crate::Config::queue_max_bytes).
    Bytes(usize),
}

impl fmt::Display for QueueLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages(limit) => write!(f, "{limit} messages (queue_max_messages)"),
            Self::Bytes(limit) => write!(f, "{limit} bytes (queue_max_bytes)"),
        }
    }
}
