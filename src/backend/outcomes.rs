//! Part of the queue port for the outcomes of notifications: receipts and dead letters.
//!
//! The step that acknowledges writes both, from the outcomes of its `Delivered`.

use async_trait::async_trait;

use super::Mark;
use crate::backend::QueueLimit;
use crate::envelope::{Draft, Timestamp};
use crate::failure::QueueError;
use crate::notification::NotificationId;
use crate::outcome::{DiscardReason, Receipt};
use crate::session_id::SessionId;

/// Dead letter as the backend keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLetter {
    /// Time of the discard.
    pub at: Timestamp,
    /// Reason of the discard.
    pub reason: DiscardReason,
    /// Message as it lay in its queue.
    pub raw: Vec<u8>,
    /// Mark by which a redrive recognises the letter.
    pub mark: Mark,
}

/// Outcome of [`Outcomes::redrive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redrove {
    /// The letter is queued, and is no dead letter any more.
    Done,
    /// The queue has reached this bound: the letter stays.
    Full(QueueLimit),
    /// Another letter, or none, stands at that place: nothing was done.
    Changed,
}

/// Outcomes of notifications, kept for producers and operators.
#[async_trait]
pub trait Outcomes {
    /// Returns a receipt, and the time at which it was read.
    async fn receipt(&self, session: &SessionId, id: NotificationId) -> Result<(Receipt, Timestamp), QueueError>;

    /// Waits without a limit until a receipt is settled. Retries after a failure.
    async fn until_settled(&self, session: &SessionId, id: NotificationId) -> Receipt;

    /// Returns dead letters of a session, the oldest first, and the time at which they were read. Passes over the
    /// `skip` oldest, and returns at most `limit`.
    async fn dead_letters(
        &self,
        session: &SessionId,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<StoredLetter>, Timestamp), QueueError>;

    /// Queues `draft` and removes the letter from which it is made, in one step. Does so only while that letter stands
    /// behind `skip` older ones.
    async fn redrive(
        &self,
        session: &SessionId,
        skip: usize,
        letter: &Mark,
        draft: &Draft,
    ) -> Result<Redrove, QueueError>;

    /// Removes all dead letters of a session. Returns their number.
    async fn purge(&self, session: &SessionId) -> Result<usize, QueueError>;

    /// Returns the sessions that have dead letters.
    async fn sessions_with_dead_letters(&self) -> Result<Vec<SessionId>, QueueError>;
}
