//! Part of the queue port for operators: which sessions there are, who owns them, and what waits.
//!
//! Every operation but [`purge_queue`](Inspection::purge_queue) only reads. None touches a lease, a time to live or the
//! order of a queue, so operators may inspect at any time.

use std::time::Duration;

use async_trait::async_trait;

use super::{Mark, StoredLetter};
use crate::envelope::Timestamp;
use crate::failure::QueueError;
use crate::keys::SessionKey;
use crate::notification::NotificationId;
use crate::outcome::Receipt;
use crate::session_id::SessionId;

mod server;

pub use self::server::{ServerId, ServerRecord, SessionTrouble, SubscriberCounts, TroubleState};

/// Largest number of keys with one id that [`Inspection::find_id`] returns, and of receipts that it reads.
pub(crate) const FOUND_MAX: usize = 100;

/// Largest number of servers that are listed.
pub(crate) const SERVERS_MAX: usize = 1000;

/// Operations of an operator. Every backend has them: contract clauses 20 and 21.
#[async_trait]
pub trait Inspection {
    /// Returns the sessions of one page, and the cursor of the next page. `None` begins the list, and is returned at
    /// its end.
    ///
    /// A session is listed that is remembered, or has queued notifications, an owner or dead letters. A session whose
    /// keys come or go during the list may be listed twice. Sessions that are there during the whole list are listed.
    async fn list_sessions(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<SessionFacts>, Option<String>), QueueError>;

    /// Returns the facts about each session, in the order given.
    async fn facts(&self, sessions: &[SessionId]) -> Result<Vec<SessionFacts>, QueueError>;

    /// Returns everything that the backend knows about one session. The parts are read together, and not in one step.
    async fn details(&self, session: &SessionId) -> Result<SessionDetails, QueueError>;

    /// Returns the oldest messages of a queue, the oldest first: at most `limit`, and about `bytes`. At least one
    /// message is returned, if there is any.
    async fn peek(&self, session: &SessionId, limit: usize, bytes: usize) -> Result<Peeked, QueueError>;

    /// Removes the `count` oldest messages, where the newest of them still stands at its place. Settles these receipts
    /// as purged. Returns whether the messages were removed, which is never so for a `count` of 0.
    ///
    /// The owner of the queue learns so as of any other change under it: clause 4.
    async fn purge_queue(
        &self,
        session: &SessionId,
        count: usize,
        newest: &Mark,
        receipts: &[NotificationId],
    ) -> Result<bool, QueueError>;

    /// Returns the records of the server processes, at most `SERVERS_MAX`.
    async fn servers(&self) -> Result<Vec<ServerRecord>, QueueError>;

    /// Looks for other sessions with the id of this one: under another principal, or under another prefix.
    async fn find_id(&self, session: &SessionId) -> Result<SameId, QueueError>;
}

/// Knowledge of the backend about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionRecord {
    /// The backend has the state with which the session began.
    Known,
    /// The backend knows nothing: the session's time to live is over, or the queue lost the session.
    Unknown,
    /// The session has ended.
    Ended,
}

/// Facts about one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// Session that the facts are about.
    pub session: SessionId,
    /// Knowledge of the session stores of the fleet.
    pub record: SessionRecord,
    /// Number of queued messages.
    pub depth: usize,
    /// Lease of the queue's owner, if there is one.
    pub lease: Option<LeaseFacts>,
    /// Number of dead letters. Those whose time is over may be among them.
    pub dead_letters: usize,
    /// Uses of keys that hold another type than they should, as `queue`.
    pub wrong_types: Vec<&'static str>,
}

/// Lease of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseFacts {
    /// Server process of the owner; `None` where the owner's token names none.
    pub server: Option<ServerId>,
    /// Time until the lease ends.
    pub rest: Duration,
    /// Life that each renewal gives the lease.
    pub life: Duration,
}

/// Everything that the backend knows about one session.
#[derive(Debug, Clone)]
pub struct SessionDetails {
    /// Facts as they are listed.
    pub facts: SessionFacts,
    /// Time of the answer, by the queue's clock.
    pub now: Timestamp,
    /// Size of the queue in bytes, as the backend counts it for its bound.
    pub bytes: usize,
    /// Message that is delivered next.
    pub oldest: Option<Vec<u8>>,
    /// Message that was pushed last.
    pub newest: Option<Vec<u8>>,
    /// Time until the queue expires as a whole; `None` for an empty queue, or one without an end.
    pub queue_rest: Option<Duration>,
    /// Time until the session, or its end, is forgotten.
    pub record_rest: Option<Duration>,
    /// Number of open questions.
    pub open_questions: usize,
    /// Dead letter that was kept last.
    pub newest_letter: Option<StoredLetter>,
}

/// Messages of a queue.
#[derive(Debug, Clone)]
pub struct Peeked {
    /// Messages, the oldest first.
    pub messages: Vec<Vec<u8>>,
    /// Set where more messages are queued behind these.
    pub has_more: bool,
    /// Time of the last answer, by the queue's clock.
    pub now: Timestamp,
}

/// Other traces of a session's id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SameId {
    /// Sessions with this id, each with its prefix, except the one that was asked about. At most `FOUND_MAX`.
    pub others: Vec<(String, SessionId)>,
    /// Receipts of the session itself, at most `FOUND_MAX`, as they are where no owner settles them.
    pub receipts: Vec<Receipt>,
    /// Set where not all keys were looked at, because there are too many.
    pub is_partial: bool,
}

impl SameId {
    /// Adds a found key, unless it is of the session that was asked about.
    pub(crate) fn add(&mut self, found: SessionKey, own: &str, asked: &SessionId) {
        let SessionKey { prefix, session, .. } = found;
        let is_asked = prefix == own && session == *asked;
        let other = (prefix, session);
        if is_asked || other.1.as_str() != asked.as_str() || self.others.contains(&other) {
            return;
        }
        if self.others.len() < FOUND_MAX {
            self.others.push(other);
        } else {
            self.is_partial = true;
        }
    }
}
