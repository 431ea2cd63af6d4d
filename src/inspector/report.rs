//! Reports on sessions and their owners.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::QueuedMessage;
use crate::backend::{LeaseFacts, QueueLimit, ServerId, ServerRecord, SessionDetails, SessionFacts, SessionRecord};
use crate::config::Config;
use crate::outcome::DiscardReason;
use crate::session_id::SessionId;
use crate::timestamp::serial;

/// Place in the list of sessions. The default is its beginning.
///
/// The text has no meaning for callers. `Display`, `FromStr` and serde write and read the text, so another process can
/// continue a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionCursor(String);

impl SessionCursor {
    pub(super) fn at(position: String) -> Self {
        Self(position)
    }

    /// Returns the position; `None` at the beginning.
    pub(super) fn position(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|position| !position.is_empty())
    }
}

impl fmt::Display for SessionCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SessionCursor {
    type Err = Infallible;

    /// Reads the text that `Display` writes. A text that is no cursor is refused where the list is continued.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// Page of a list of sessions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SessionPage {
    /// Sessions of the page, in no order.
    pub sessions: Vec<SessionSummary>,
    /// Cursor of the next page; `None` at the end of the list.
    pub next: Option<SessionCursor>,
}

/// Session in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SessionSummary {
    /// Id of the session, with the user to whom the session is bound.
    pub session: SessionId,
    /// Set where a session store of the fleet remembers the session, so that its client may come back. A fleet without
    /// a session store remembers none.
    pub known: bool,
    /// Set where the session has ended.
    pub ended: bool,
    /// Owner of the queue; `None` where no server owns the queue.
    pub owner: Option<Owner>,
    /// Stream of the session's client, as far as Redis can tell.
    pub stream: ClientStream,
    /// Number of queued notifications.
    pub depth: usize,
    /// Number of dead letters. Expired ones count until a server or a listing of dead letters removes them.
    pub dead_letters: usize,
}

/// Stream of a session's client. A server owns the queue of a session while the client's newest stream is open there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClientStream {
    /// A server owns the queue and renews its lease.
    Open,
    /// No server owns the queue.
    Closed,
    /// Nothing can be said: the owner's renewal is overdue, or FastMCP servers hold the sessions, which have no leases.
    Unknown,
}

/// Owner of a session's queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Owner {
    /// Number of the server process in the fleet. `None` for an owner whose lease names no process: a server of an
    /// earlier version, or a test.
    pub server: Option<ServerId>,
    /// Name of the host of the process; `None` where the process has no [`ServerRecord`].
    pub host: Option<String>,
    /// Number of the process on its host; `None` where the process has no [`ServerRecord`].
    pub pid: Option<u32>,
    /// Time until the lease ends, in seconds as JSON.
    #[serde(serialize_with = "serial::seconds::serialize", rename = "lease_rest_seconds")]
    pub lease_rest: Duration,
    /// Life that each renewal gives the lease: two heartbeats of the owner. In seconds as JSON.
    #[serde(serialize_with = "serial::seconds::serialize", rename = "lease_life_seconds")]
    pub lease_life: Duration,
    /// Set where the last renewal is at least 1¼ heartbeats ago. The process is then dead, stuck, or cut off from the
    /// queue. Another server takes over when the lease ends.
    pub overdue: bool,
}

impl Owner {
    pub(super) fn new(LeaseFacts { server, rest, life }: LeaseFacts, servers: &[ServerRecord]) -> Self {
        let record = servers.iter().find(|record| Some(record.id) == server);
        Self {
            server,
            host: record.map(|record| record.host.clone()),
            pid: record.map(|record| record.pid),
            lease_rest: rest,
            lease_life: life,
            // A living owner renews when half of the life is left.
            overdue: rest.as_millis() * 8 < life.as_millis() * 3,
        }
    }
}

/// Everything that the queue knows about one session.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SessionReport {
    /// Facts as a list has them.
    #[serde(flatten)]
    pub summary: SessionSummary,
    /// Size of the queue, in bytes as its bound counts them. Zero where Redis refuses `MEMORY USAGE`.
    pub bytes: usize,
    /// Bound that the queue has reached, so that pushes are refused. `None` below the bounds.
    #[serde(serialize_with = "super::message::text")]
    pub full: Option<QueueLimit>,
    /// Message that is delivered next; `None` for an empty queue.
    pub oldest: Option<QueuedMessage>,
    /// Message that was pushed last; `None` for an empty queue.
    pub newest: Option<QueuedMessage>,
    /// Number of questions that the client was asked and has not answered.
    pub open_questions: usize,
    /// Time until the whole queue expires, in seconds as JSON. `None` for an empty queue, or one without an end.
    #[serde(serialize_with = "serial::optional_seconds::serialize", rename = "queue_expires_in_seconds")]
    pub queue_expires_in: Option<Duration>,
    /// Time until the session, or its end, is forgotten. In seconds as JSON. `None` where no session store remembers
    /// the session.
    #[serde(serialize_with = "serial::optional_seconds::serialize", rename = "forgotten_in_seconds")]
    pub forgotten_in: Option<Duration>,
    /// Reason of the newest dead letter; `None` without dead letters.
    pub last_discard: Option<DiscardReason>,
    /// Time of the newest dead letter, by the queue's clock; `None` without dead letters.
    #[serde(serialize_with = "serial::optional_moment::serialize")]
    pub last_discard_at: Option<SystemTime>,
    /// Uses of the session's keys in Redis under which another program has stored another type. Deliveries fail until
    /// those keys are deleted.
    pub wrong_types: Vec<String>,
}

impl SessionSummary {
    pub(super) fn new(config: &Config, facts: SessionFacts, servers: &[ServerRecord]) -> Self {
        let SessionFacts { session, record, depth, lease, dead_letters, .. } = facts;
        let owner = lease.map(|lease| Owner::new(lease, servers));
        let stream = match &owner {
            Some(Owner { overdue: false, .. }) => ClientStream::Open,
            None if !config.fastmcp_servers() => ClientStream::Closed,
            _ => ClientStream::Unknown,
        };
        let (known, ended) = (record == SessionRecord::Known, record == SessionRecord::Ended);
        Self { session, known, ended, owner, stream, depth, dead_letters }
    }
}

impl SessionReport {
    pub(super) fn new(
        config: &Config,
        details: SessionDetails,
        servers: &[ServerRecord],
        oldest: Option<QueuedMessage>,
        newest: Option<QueuedMessage>,
    ) -> Self {
        let SessionDetails { facts, bytes, queue_rest, record_rest, open_questions, newest_letter, .. } = details;
        let wrong_types = facts.wrong_types.iter().map(ToString::to_string).collect();
        let full = if facts.depth >= config.queue_max_messages() {
            Some(QueueLimit::Messages(config.queue_max_messages()))
        } else {
            // A message that is as large as the newest would not fit.
            let next = newest.as_ref().map_or(0, |newest| newest.bytes);
            (bytes + next > config.queue_max_bytes()).then(|| QueueLimit::Bytes(config.queue_max_bytes()))
        };
        Self {
            summary: SessionSummary::new(config, facts, servers),
            bytes,
            full,
            oldest,
            newest,
            open_questions,
            queue_expires_in: queue_rest,
            forgotten_in: record_rest,
            last_discard_at: newest_letter.as_ref().map(|letter| letter.at.to_system()),
            last_discard: newest_letter.map(|letter| letter.reason),
            wrong_types,
        }
    }
}
