//! The queue port: what a backend must do, in numbered clauses. `tests/queue_contract.rs` runs every clause against every
//! backend under the clause's name.
//!
//! A *queue* belongs to a session: notifications are pushed at its head, the oldest stands at its tail. An *owner* looks
//! at the tail, delivers what it saw, and only then removes it. So a process that dies at any instant leaves what it did
//! not deliver where it was, and there is nothing to recover.
//!
//! 1. *Order.* What is taken comes in the order of the pushes to that session.
//! 2. *Push is atomic.* A notification is queued whole, stamped by the queue's clock, or not at all; at a bound it comes
//!    back with the bound's name. After a refusal the later ones of the same call to that session are refused too.
//!    The answer says whether someone owns the session, or else remembers it.
//! 3. *Looking takes nothing away.* A batch that is not acknowledged comes again.
//! 4. *An acknowledgement removes what it names and nothing else*: where the tail is not what was delivered, nothing is
//!    removed and the answer says `changed`. A read behind messages that are not there reads nothing and says so too.
//! 5. *Only the owner takes.* To another the answer is [`LeaseState::Lost`]. The newest claim wins.
//! 6. *An absent lease is reclaimed* by the owner that acted last, never by an operation that was abandoned.
//! 7. *A failed attempt is written in place*, so that order holds and a restart does not count anew; guarded as in 4 and 5.
//! 8. *Waiting takes nothing away* and ends at the next push; dropping a wait loses nothing.
//! 9. *Expiry is per message.* A push never shortens the life of an earlier notification. Under an owner a queue never runs out
//!    as a whole: its owner sees what has expired.
//! 10. *Batches are bounded* in messages and in bytes; one message is always given. Where the answer to a take does not come
//!     in time, less is asked for ([`LineLimit`]).
//! 11. *A lease ends* by release, by its time, or by a newer claim; whoever lost it learns at once through its [`Permit`].
//! 12. *Anything may lie in a list*: what cannot be decoded is an item like others and blocks nothing.
//! 13. *A question is answered once*: by the first answer to its id while its worker waits, and by no other. What was
//!     delivered and not answered is an open question of its queue, whoever owns that.
//! 14. *A session is remembered* for its time to live after its last use, and no longer; one that has ended is not
//!     remembered again, and one that never was is not remembered as ended.
//! 15. *An end is told to all* who listen, an answered ping to the process that asked.
//! 16. *A dead letter is kept by the step that removes it from its queue*: once, and not where that step removes nothing.
//!     Dead letters are bounded in number, bytes and age; the oldest make room.
//! 17. *Redriving queues a letter and removes it in one step*: in order, under the same id, within the queue's bounds.
//! 18. *A receipt is written with the push and settled with the acknowledgement.* That something was delivered stands for
//!     good, and is written also where the acknowledgement removes nothing.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::envelope::Draft;
use crate::failure::QueueError;
use crate::question::Question;
use crate::session_id::{SessionId, SessionStatus};

pub(crate) mod fates;
pub(crate) mod fleet;
pub(crate) mod line_limit;
pub(crate) mod memory;
pub(crate) mod questions;
pub(crate) mod redis;
mod refusal;

pub use self::fates::{Fates, Letter, Redrove};
pub use self::fleet::{Fleet, ProcessId, Remembered};
#[cfg(any(feature = "rmcp", feature = "testing"))]
pub use self::fleet::{News, NewsReceiver};
pub use self::line_limit::LineLimit;
pub use self::questions::{Posed, Questions, Settled};
pub use self::refusal::{PushRefusal, QueueLimit};
pub use crate::subscription::{Behind, Delivered, Fate, Item, LeaseState, Mark, Permit, Replaced, Taken};

/// What every backend does for a whole process.
#[async_trait]
pub trait Backend: Queues + Questions + Fleet + Fates + 'static {
    /// Queues notifications, and answers for each in the order given.
    ///
    /// # Cancellation
    /// What was sent may be queued.
    async fn push(&self, batch: Vec<Outgoing>) -> Vec<Result<Queued, PushRefusal>>;

    /// Returns the sessions that someone in the fleet owns, for broadcasts and monitoring.
    ///
    /// In Redis this is what the owners have announced: an owner is listed from its first claim, renewal or take on, and not
    /// by [`claim_if_absent`](Self::claim_if_absent) alone. Where another owner took a session over and then released it, the
    /// session is listed until the lease of the first one would have ended.
    async fn live_sessions(&self) -> Result<Vec<SessionId>, QueueError>;

    /// Returns the queues as the subscribers of one arbiter share them. Called on that arbiter.
    ///
    /// The subscribers share connections then, whose number does not grow with that of the sessions.
    fn share(self: Arc<Self>) -> Arc<dyn Queues>;

    /// Whether the queue can be used: reached, and in a state that loses nothing.
    async fn check(&self) -> Result<(), QueueError>;
}

/// Queues in the hands of subscribers: opened, claimed and released.
#[async_trait]
pub trait Queues: fmt::Debug + Send + Sync {
    /// Opens one session's queue for one who would own it. Nothing is claimed yet.
    async fn open(
        &self,
        session: &SessionId,
        owner: OwnerToken,
        permit: Arc<Permit>,
    ) -> Result<Box<dyn Consumer>, QueueError>;

    /// Takes the lease where nobody has it; keeps it where it is that owner's already.
    async fn claim_if_absent(&self, session: &SessionId, owner: OwnerToken) -> Result<LeaseState, QueueError>;

    /// Gives up a lease if it is still that owner's, and says whether it was.
    async fn release(&self, session: &SessionId, owner: OwnerToken) -> Result<bool, QueueError>;

    /// Returns the open questions of a session: delivered, and not answered.
    async fn open_questions(&self, session: &SessionId) -> Result<Vec<Question>, QueueError>;
}

/// One session's queue in the hands of one who owns it or would.
///
/// After an error a consumer is of no more use: drop it and open another.
///
/// # Cancellation
/// Any of its futures may be dropped: nothing is lost by it, but the consumer is then of no more use either.
#[async_trait]
pub trait Consumer: Send {
    /// Has the takes bounded by a limit that outlives this consumer, and lets it learn from them. A backend without a line
    /// that could be narrow needs none.
    fn share_limit(&mut self, _limit: Arc<Mutex<LineLimit>>) {}

    /// Takes the lease, whoever has it.
    async fn claim(&mut self) -> Result<(), QueueError>;

    /// Keeps the lease for another two heartbeats; takes it where nobody has it.
    async fn renew(&mut self) -> Result<LeaseState, QueueError>;

    /// Removes what was delivered and looks at the next batch: [`take_behind`](Self::take_behind) nothing.
    #[cfg(feature = "testing")]
    async fn take(&mut self, delivered: Option<&Delivered>) -> Result<Taken, QueueError> {
        self.take_behind(delivered, None).await
    }

    /// Removes what was delivered, and reads the next batch behind messages that stay. Where the newest of those is another
    /// message than the caller says, nothing is read, and the answer says `changed`.
    async fn take_behind(
        &mut self,
        delivered: Option<&Delivered>,
        behind: Option<&Behind>,
    ) -> Result<Taken, QueueError>;

    /// Waits until the queue is not empty, at most for `block`, and looks at the next batch.
    async fn wait(&mut self, block: Duration) -> Result<Taken, QueueError>;

    /// Puts `replacement` in the place of the oldest message, if that is still the one with this mark.
    async fn replace_oldest(&mut self, oldest: &Mark, replacement: Vec<u8>) -> Result<Replaced, QueueError>;
}

/// Who owns a queue: one subscriber in one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OwnerToken(Uuid);

impl OwnerToken {
    /// A token that nobody has had.
    #[allow(clippy::new_without_default)] // a default that differs each time would surprise
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

/// A notification for one session.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// For whom.
    pub session: SessionId,
    /// What.
    pub draft: Draft,
}

/// A notification is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// How many wait for that session now, this one included.
    pub waiting: usize,
    /// Standing of the session at the push.
    pub session: SessionStatus,
}
