//! The part of the queue port that remembers what became of notifications: receipts and dead letters.
//!
//! Both are written by the step that acknowledges, from [`Delivered::fates`](super::Delivered::fates).

use async_trait::async_trait;

use super::{Fate, Mark};
use crate::backend::QueueLimit;
use crate::envelope::{Draft, Timestamp};
use crate::failure::QueueError;
use crate::fate::{DiscardReason, Receipt};
use crate::notification::NotificationId;
use crate::session_id::SessionId;

/// A dead letter as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// When it was discarded.
    pub at: Timestamp,
    /// Why.
    pub reason: DiscardReason,
    /// The message as it lay in its queue.
    pub raw: Vec<u8>,
    /// What recognises the letter.
    pub mark: Mark,
}

/// What became of [`Fates::redrive`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redrove {
    /// It is queued, and no dead letter any more.
    Done,
    /// The queue has reached this bound: it stays.
    Full(QueueLimit),
    /// Another letter stands there, or none: nothing was done.
    Changed,
}

/// What became of notifications, for those who ask later.
#[async_trait]
pub trait Fates {
    /// Writes down the fate of a message that is in its queue no more ([`Delivery::AtMostOnce`](crate::Delivery)).
    async fn record(&self, session: &SessionId, fate: &Fate, raw: &[u8]) -> Result<(), QueueError>;

    /// A receipt, and when it was read.
    async fn receipt(&self, session: &SessionId, id: NotificationId) -> Result<(Receipt, Timestamp), QueueError>;

    /// Waits until a receipt is settled, for ever. What fails on the way is tried again.
    async fn until_settled(&self, session: &SessionId, id: NotificationId) -> Receipt;

    /// Dead letters of a session, the oldest first, after the `skip` oldest and `limit` at most, and when they were read.
    async fn dead_letters(
        &self,
        session: &SessionId,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<Letter>, Timestamp), QueueError>;

    /// Queues `draft` and removes the letter that it is made from, in one step, if that still stands behind `skip` older
    /// ones.
    async fn redrive(
        &self,
        session: &SessionId,
        skip: usize,
        letter: &Mark,
        draft: &Draft,
    ) -> Result<Redrove, QueueError>;

    /// Removes all dead letters of a session, and says how many there were.
    async fn purge(&self, session: &SessionId) -> Result<usize, QueueError>;

    /// Whose dead letters there are.
    async fn sessions_with_dead_letters(&self) -> Result<Vec<SessionId>, QueueError>;
}
