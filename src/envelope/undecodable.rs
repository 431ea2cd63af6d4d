//! [`Undecodable`]: fault of a message that cannot be read.

use crate::notification::InvalidNotification;

/// Reason why a message of the queue cannot be read: neither this crate nor FastMCP has written it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// The message is not a JSON object of the expected form.
    #[error("not an envelope: {0}")]
    Json(String),
    /// The message contains something other than a notification.
    #[error(transparent)]
    Notification(#[from] InvalidNotification),
}
