//! Part of the queue port for the subscribers of a server: opening, claiming, taking and acknowledging.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::{
    Behind, Delivered, LeaseState, LineLimit, Mark, MessageOutcome, Permit, Replaced, ServerId, ServerRecord, Taken,
};
use crate::failure::QueueError;
use crate::question::Question;
use crate::session_id::SessionId;

/// Queues as subscribers use them: to open, claim and release.
#[async_trait]
pub trait Queues: fmt::Debug + Send + Sync {
    /// Opens the queue of one session for a prospective owner. Claims nothing yet.
    async fn open(
        &self,
        session: &SessionId,
        owner: OwnerToken,
        permit: Arc<Permit>,
    ) -> Result<Box<dyn Consumer>, QueueError>;

    /// Takes the lease where nobody has it. Keeps the lease where it is already that owner's.
    async fn claim_if_absent(&self, session: &SessionId, owner: OwnerToken) -> Result<LeaseState, QueueError>;

    /// Gives up a lease if that owner still holds it. Returns whether that owner held it.
    async fn release(&self, session: &SessionId, owner: OwnerToken) -> Result<bool, QueueError>;

    /// Returns the open questions of a session: those that were delivered and not answered.
    async fn open_questions(&self, session: &SessionId) -> Result<Vec<Question>, QueueError>;
}

/// Queues of a backend in a server process.
#[async_trait]
pub trait ServerQueues: Queues {
    /// Records the outcome of a message that has already left its queue ([`Delivery::AtMostOnce`](crate::Delivery)).
    async fn record(&self, session: &SessionId, outcome: &MessageOutcome, raw: &[u8]) -> Result<(), QueueError>;

    /// Writes the record of this server process, which is kept for two heartbeats.
    async fn announce_server(&self, record: &ServerRecord) -> Result<(), QueueError>;

    /// Removes the record of a server process that ends.
    async fn withdraw_server(&self, server: ServerId) -> Result<(), QueueError>;

    /// Returns the number of messages of each queue, in the order given. Changes nothing.
    #[cfg(feature = "metrics")]
    async fn lengths(&self, sessions: &[SessionId]) -> Result<Vec<usize>, QueueError>;

    /// Returns the queues as the subscribers of one arbiter share them. Must be called on that arbiter.
    ///
    /// These subscribers share connections, whose number does not grow with the number of sessions.
    fn share(self: Arc<Self>) -> Arc<dyn Queues>;
}

/// Queue of one session, opened by its owner or by a prospective owner.
///
/// A consumer is unusable after an error: drop the consumer and open another.
///
/// # Cancellation
/// Each future of a consumer may be dropped. Nothing is lost, but the consumer is unusable afterwards.
#[async_trait]
pub trait Consumer: Send {
    /// Bounds the takes by a limit that outlives this consumer, and lets the limit learn from them. A backend without a
    /// line that could be narrow ignores the limit.
    fn share_limit(&mut self, _limit: Arc<Mutex<LineLimit>>) {}

    /// Takes the lease, also from another owner. Returns whether another owner held it.
    async fn claim(&mut self) -> Result<bool, QueueError>;

    /// Keeps the lease for another two heartbeats. Takes the lease where nobody has it.
    async fn renew(&mut self) -> Result<LeaseState, QueueError>;

    /// Removes the delivered messages and reads the next batch, as [`take_behind`](Self::take_behind) does without
    /// `behind`.
    #[cfg(feature = "testing")]
    async fn take(&mut self, delivered: Option<&Delivered>) -> Result<Taken, QueueError> {
        self.take_behind(delivered, None).await
    }

    /// Removes the delivered messages, and reads the next batch behind messages that stay in the queue. Where the
    /// newest of those is another message than `behind` names, nothing is read and the answer says `changed`.
    async fn take_behind(
        &mut self,
        delivered: Option<&Delivered>,
        behind: Option<&Behind>,
    ) -> Result<Taken, QueueError>;

    /// Waits until the queue is not empty, at most for `block`, and reads the next batch.
    async fn wait(&mut self, block: Duration) -> Result<Taken, QueueError>;

    /// Writes `replacement` in the place of the oldest message, if that message still has this mark.
    async fn replace_oldest(&mut self, oldest: &Mark, replacement: Vec<u8>) -> Result<Replaced, QueueError>;
}

/// Identity of a queue's owner: one subscriber in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerToken(Uuid);

impl OwnerToken {
    /// Makes a token that no owner has had.
    #[allow(clippy::new_without_default)] // a default that differs each time would surprise
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Makes a token that no owner has had, for a subscriber of this server process.
    pub fn of(server: ServerId) -> Self {
        Self(server.token())
    }

    /// Returns the server process that the token names, if it names one.
    pub fn server(&self) -> Option<ServerId> {
        ServerId::of_token(self.0)
    }
}

impl fmt::Display for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}
