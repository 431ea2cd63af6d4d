//! [`ManagerError`]: failures of the session manager.

use crate::failure::QueueError;
use crate::session::EnsureError;
use crate::session_id::InvalidSessionId;

/// Failure of a [`CourierSessionManager`](super::CourierSessionManager) to do what rmcp asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError<E> {
    /// The decorated manager could not.
    #[error(transparent)]
    Inner(E),
    /// No subscriber can be run for the session.
    #[error("no notifications can be delivered to this stream: {0}")]
    Subscriber(#[from] EnsureError),
    /// An answer could not be given to its worker.
    #[error(transparent)]
    Answer(#[from] QueueError),
    /// The process holds [`Config::session_limit`](crate::Config::session_limit) sessions, and none of them is idle.
    #[error("there are session_limit ({limit}) sessions here, and none of them is idle")]
    TooManySessions {
        /// The limit.
        limit: usize,
    },
    /// A client says more of itself than
    /// [`Config::session_state_max_bytes`](crate::Config::session_state_max_bytes).
    #[error("{0}")]
    InitializeTooLarge(String),
    /// There is no such session here, or it is not the acting user's. Between two steps it may have ended.
    #[error("there is no such session here")]
    NoSession,
    /// Whether there is such a session is not known: Redis does not answer.
    #[error("the session cannot be restored now")]
    Unavailable,
    /// The decorated manager made an id that MCP does not allow.
    #[error(transparent)]
    SessionId(#[from] InvalidSessionId),
}
