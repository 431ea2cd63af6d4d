//! [`QueueError`]: failure of an operation on a queue, as every backend reports it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

/// Boxed cause of an error, so that no public signature has an error type of another crate.
pub type Cause = Box<dyn StdError + Send + Sync + 'static>;

/// Cause that several errors share. One broken connection fails every push that was sent over this connection.
pub type SharedCause = Arc<dyn StdError + Send + Sync + 'static>;

/// Failure of an operation on a queue.
#[derive(Debug)]
#[non_exhaustive]
pub struct QueueError {
    /// Operation that failed, with a short prefix of the session id where there is one.
    pub operation: String,
    /// Reason of the failure.
    pub kind: QueueErrorKind,
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.kind)
    }
}

impl StdError for QueueError {
    /// Returns the cause of the kind, because `Display` already shows the kind itself.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.kind.source()
    }
}

impl QueueError {
    pub(crate) fn new(operation: impl Into<String>, kind: QueueErrorKind) -> Self {
        Self { operation: operation.into(), kind }
    }
}

#[cfg(feature = "server")]
impl QueueErrorKind {
    /// Returns the value of the label `kind`.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Refused(_) => "refused",
            Self::Sealing(_) => "sealing",
        }
    }
}

/// Reason of a [`QueueError`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QueueErrorKind {
    /// No connection could be made.
    #[error("the queue cannot be reached")]
    Unreachable(#[source] Cause),
    /// The connection broke, or no answer came in time.
    #[error("the connection to the queue broke")]
    Broken(#[source] Cause),
    /// Redis answered with an error.
    #[error("the queue refused: {0}")]
    Refused(String),
    /// A payload could not be sealed, and was not written. Or a sealed one could not be opened. See
    /// [`Config::sealing`](crate::Config).
    #[error("{0}")]
    Sealing(String),
}
