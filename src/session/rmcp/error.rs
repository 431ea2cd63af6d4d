//! [`ManagerError`]: failures of the session manager.

use crate::failure::QueueError;
use crate::session::EnsureError;
use crate::session_id::InvalidSessionId;

/// Failure of a [`CourierSessionManager`](super::CourierSessionManager) in an operation that rmcp asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError<E> {
    /// The decorated manager failed.
    #[error(transparent)]
    Inner(E),
    /// No subscriber can run for the session.
    #[error("no notifications can be delivered to this stream: {0}")]
    Subscriber(#[from] EnsureError),
    /// An answer could not be given to its worker.
    #[error(transparent)]
    Answer(#[from] QueueError),
    /// The process holds [`Config::session_limit`](crate::Config::session_limit) sessions, and none of them is idle.
    #[error("there are session_limit ({limit}) sessions here, and none of them is idle")]
    TooManySessions {
        /// Largest number of sessions.
        limit: usize,
    },
    /// The introduction of a client exceeds
    /// [`Config::session_state_max_bytes`](crate::Config::session_state_max_bytes).
    #[error("{0}")]
    InitializeTooLarge(String),
    /// There is no such session here, or it belongs to another user. The session may have ended between two steps.
    #[error("there is no such session here")]
    NoSession,
    /// Redis does not answer, so it is unknown whether the session exists.
    #[error("the session cannot be restored now")]
    Unavailable,
    /// The decorated manager made an id that MCP does not allow.
    #[error(transparent)]
    SessionId(#[from] InvalidSessionId),
}
