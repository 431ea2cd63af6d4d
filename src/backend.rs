//! Queue port: the contract of a backend in numbered clauses. `tests/queue/queue_contract.rs` runs every clause against
//! every backend under the clause's name.
//!
//! A *queue* belongs to one session. Producers push notifications at its head, and the oldest notification stands at
//! its tail. An *owner* reads messages at the tail, delivers them, and removes them only then. A process may therefore
//! die at any moment: its undelivered messages are still in the queue, and nothing has to be recovered.
//!
//! 1. *Order*. A take returns messages in the order in which they were pushed to that session.
//! 2. *Push is atomic*. A notification is queued whole, stamped by the queue's clock, or not at all. A notification
//!    that would exceed a bound is returned with the name of the bound. The later notifications of the same call to
//!    that session are then refused too. The answer says whether an owner holds the session, or else whether a store
//!    remembers the session.
//! 3. *A take removes nothing*. The next take returns an unacknowledged batch again.
//! 4. *An acknowledgement removes what it names and nothing else*: where the messages at the tail are not the delivered
//!    ones, nothing is removed, and the answer says `changed`. A read behind messages that are not there reads nothing,
//!    and says `changed` too.
//! 5. *Only the owner takes*. Anyone else gets [`LeaseState::Lost`]. The newest claim wins.
//! 6. *An absent lease is reclaimed* by the owner that acted last, never by an operation that was abandoned.
//! 7. *A failed attempt is written in place*. So order holds, and a restart does not begin the count again. Clauses 4
//!    and 5 guard this write too.
//! 8. *Waiting removes nothing* and ends at the next push. Dropping a wait loses nothing.
//! 9. *Expiry is per message*. A push never shortens the life of an earlier notification. Under an owner a queue never
//!    expires as a whole: its owner sees each expired message.
//! 10. *Batches are bounded* in messages and in bytes, but a batch has at least one message. After a take whose answer
//!     came too late, the next take asks for less ([`LineLimit`]).
//! 11. *A lease ends* by release, by its time, or by a newer claim. An owner that lost its lease learns so at once
//!     through its [`Permit`].
//! 12. *Anything may lie in a list*. A message that cannot be decoded is an item like others, and blocks nothing.
//! 13. *A question is answered once*: by the first answer to its id while its worker waits, and by no other answer. A
//!     question that was delivered and not answered is an open question of its queue, whoever owns the queue.
//! 14. *A session is remembered* for its time to live after its last use, and no longer. A session that has ended is
//!     not remembered again. A session that never existed is not remembered as ended.
//! 15. *The end of a session is announced to all listeners*, an answered ping to the process that asked.
//! 16. *A dead letter is kept by the step that removes its message from the queue*: once, and not where that step
//!     removes nothing. Dead letters are bounded in number, bytes and age. The oldest make room.
//! 17. *Redriving queues a letter and removes it in one step*: in order, under the same id, within the queue's bounds.
//! 18. *A receipt is written with the push and settled with the acknowledgement*. The receipt of a delivered message
//!     never changes again. It is written also where the acknowledgement removes nothing.
//! 19. *A deduplication key is remembered by the push that queues its notification*, for the window, and by no refused
//!     push. Within the window another push to that session with that key queues nothing and answers with the first
//!     one's id, whatever became of the first. The newest keys of a session are remembered, as many as configured.
//! 20. *Inspection changes nothing*: no order, no lease, no time to live. Lists come in bounded pages, and list each
//!     session that is there during the whole list. A purge removes the messages that its caller saw and no others.
//! 21. *A server process is listed* while it writes its record, and for two heartbeats after the last one. An owner's
//!     lease names its process.
//! 22. *A push replaces only what nobody can have read*: the newest message with its collapse key, where that one was
//!     pushed, and still waits, since the session had an owner last. All others keep their order. The receipt of the
//!     replaced message says so. A message is not replaced by one that expires earlier, or that has an older id.

use std::fmt;

use async_trait::async_trait;

use crate::envelope::Draft;
use crate::examination::Check;
use crate::failure::QueueError;
use crate::notification::NotificationId;
use crate::session_id::{SessionId, SessionStatus};

#[cfg(not(all(feature = "elicitation", feature = "server", feature = "rmcp")))]
mod absent;
#[cfg(feature = "rmcp")]
pub(crate) mod fleet;
pub(crate) mod inspection;
pub(crate) mod line_limit;
#[cfg(feature = "server")]
pub(crate) mod memory;
pub(crate) mod outcomes;
pub(crate) mod questions;
#[cfg(feature = "server")]
mod queues;
pub(crate) mod redis;
mod refusal;
#[cfg(feature = "server")]
pub(crate) mod relay;
#[cfg(any(feature = "elicitation", feature = "server"))]
pub(crate) mod sealing;

#[cfg(not(any(feature = "elicitation", feature = "server")))]
pub use self::absent::Absent as Answers;
#[cfg(not(feature = "elicitation"))]
pub use self::absent::Absent as Elicitations;
#[cfg(not(feature = "rmcp"))]
pub use self::absent::Absent as Fleet;
#[cfg(not(feature = "server"))]
pub use self::absent::Absent as ServerQueues;
#[cfg(feature = "rmcp")]
pub use self::fleet::{Fleet, News, NewsReceiver, ProcessId};
pub use self::inspection::{
    Inspection, LeaseFacts, Peeked, SameId, ServerId, ServerRecord, SessionDetails, SessionFacts, SessionRecord,
    SessionTrouble, SubscriberCounts, TroubleState,
};
pub use self::line_limit::LineLimit;
pub use self::outcomes::{Outcomes, Redrove, StoredLetter};
pub use self::questions::Questions;
#[cfg(any(feature = "elicitation", feature = "server"))]
pub use self::questions::{Answers, GRACE, Settled};
#[cfg(feature = "elicitation")]
pub use self::questions::{Elicitations, Posed};
#[cfg(feature = "server")]
pub use self::queues::{Consumer, OwnerToken, Queues, ServerQueues};
pub use self::refusal::{PushRefusal, QueueLimit};
pub use crate::envelope::Mark;
#[cfg(feature = "server")]
pub use crate::subscription::{Behind, Delivered, Item, LeaseState, MessageOutcome, Permit, Replaced, Taken};

/// Operations of a backend that concern a whole process. Every backend has them.
#[async_trait]
pub trait Backend:
    fmt::Debug + Send + Sync + Outcomes + Questions + Elicitations + Answers + ServerQueues + Fleet + Inspection + 'static
{
    /// Returns the kind of the queue for spans, as OpenTelemetry's `messaging.system` names it.
    fn system(&self) -> &'static str;

    /// Queues notifications, and returns one answer for each, in the order given.
    ///
    /// # Cancellation
    /// A notification that was already sent may be queued.
    async fn push(&self, batch: Vec<Outgoing>) -> Vec<Result<Queued, PushRefusal>>;

    /// Returns the sessions that a subscriber of the fleet owns, for broadcasts and monitoring.
    ///
    /// In Redis the list holds what owners have announced. An owner is listed from its first claim, renewal or take on;
    /// `Queues::claim_if_absent` alone lists nobody. After a takeover and a release by the new owner,
    /// the session stays listed until the first owner's lease would have ended.
    async fn live_sessions(&self) -> Result<Vec<SessionId>, QueueError>;

    /// Judges the server behind the queue. Nothing is changed.
    async fn examine(&self) -> Result<Vec<Check>, QueueError>;

    /// Checks that the queue can be reached, and that its server loses nothing in its present state.
    async fn check(&self) -> Result<(), QueueError>;

    /// Checks that the queue answers and accepts writes now. Leaves nothing behind.
    #[cfg(feature = "server")]
    async fn probe(&self) -> Result<(), QueueError>;
}

/// Number of collapse keys of one session under which messages can be replaced. Messages under further keys are queued as
/// all others.
pub(crate) const COLLAPSE_KEYS: usize = 1000;

/// Size of the largest message that can be replaced, in bytes. Redis keeps such a message twice.
pub(crate) const COLLAPSE_BYTES: usize = 4096;

/// A notification for one session.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// Session that the notification is for.
    pub session: SessionId,
    /// Notification, encoded except for the time of its push.
    pub draft: Draft,
}

/// Answer to the push of one notification: the notification, or an earlier one with its deduplication key, is queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// Number of notifications that wait for that session now, this one included.
    pub waiting: usize,
    /// Status of the session at the push.
    pub session: SessionStatus,
    /// Notification that was queued under the same deduplication key before. This one is not queued then.
    pub duplicate_of: Option<NotificationId>,
    /// Set where this notification replaced an older one with its collapse key.
    pub collapsed: bool,
}
