//! The part of the queue port that remembers what became of notifications: receipts and dead letters.
//!
//! Both are written by the step that acknowledges, from [`Delivered::fates`](super::Delivered::fates).

use super::{BoxFuture, Fate, Mark};
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
pub trait Fates {
    /// Writes down the fate of a message that is in its queue no more ([`Delivery::AtMostOnce`](crate::Delivery)).
    fn record<'a>(
        &'a self,
        session: &'a SessionId,
        fate: &'a Fate,
        raw: &'a [u8],
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// A receipt, and when it was read.
    fn receipt<'a>(
        &'a self,
        session: &'a SessionId,
        id: NotificationId,
    ) -> BoxFuture<'a, Result<(Receipt, Timestamp), QueueError>>;

    /// Waits until a receipt is settled, for ever. What fails on the way is tried again.
    fn until_settled<'a>(&'a self, session: &'a SessionId, id: NotificationId) -> BoxFuture<'a, Receipt>;

    /// Dead letters of a session, the oldest first, after the `skip` oldest and `limit` at most, and when they were read.
    fn dead_letters<'a>(
        &'a self,
        session: &'a SessionId,
        skip: usize,
        limit: usize,
    ) -> BoxFuture<'a, Result<(Vec<Letter>, Timestamp), QueueError>>;

    /// Queues `draft` and removes the letter that it is made from, in one step, if that still stands behind `skip` older
    /// ones.
    fn redrive<'a>(
        &'a self,
        session: &'a SessionId,
        skip: usize,
        letter: &'a Mark,
        draft: &'a Draft,
    ) -> BoxFuture<'a, Result<Redrove, QueueError>>;

    /// Removes all dead letters of a session, and says how many there were.
    fn purge<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<usize, QueueError>>;

    /// Whose dead letters there are.
    fn sessions_with_dead_letters(&self) -> BoxFuture<'_, Result<Vec<SessionId>, QueueError>>;
}
