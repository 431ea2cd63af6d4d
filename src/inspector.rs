//! [`Inspector`]: the operator's view of sessions, queues and server processes.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::backend::{Backend, Mark, ServerRecord, SessionDetails};
use crate::config::Config;
use crate::connect::{ConnectError, connect};
use crate::failure::QueueError;
use crate::metrics;
use crate::outcome::DiscardReason;
use crate::session_id::SessionId;

mod examine;
mod explain;
mod finding;
mod message;
mod report;

pub(crate) use self::message::decode;

pub use self::finding::{Finding, FindingCode, Severity};
pub use self::message::{PeekedMessage, PeekedMessages, QueuedMessage};
pub use self::report::{ClientStream, Owner, SessionCursor, SessionPage, SessionReport, SessionSummary};

/// Largest number of bytes of the messages that one peek returns. A single message is always returned.
const PEEK_BYTES: usize = 16 * 1024 * 1024;

/// Number of messages that one step of a purge removes.
const PURGED: usize = 100;

/// View of operators into the sessions, the queues and the server processes of a fleet. Cloning is cheap.
///
/// Everything but [`purge`](Self::purge) only reads, and can be done at any time: no delivery, no lease and no time to
/// live is touched. Every answer is bounded in size. `docs/inspecting.md` shows the use, and the rights in Redis that
/// an inspector needs.
///
/// The reports can be serialised by serde, as for `--json` of a tool. Lengths of time are then in seconds, and moments
/// are text of RFC 3339. Serialised session ids are whole and name the user, so the text is as secret as the ids.
///
#[cfg_attr(feature = "server", doc = "```")]
#[cfg_attr(not(feature = "server"), doc = "```no_run")]
/// use mcp_courier::{Config, Inspector, Notification, Publisher, SessionCursor, SessionId};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = Publisher::connect("memory://inspector", Config::default()).await?;
/// let session = SessionId::new("1f0c2f6e-7a52-4c5e-9a3c-2f0f4a0c9a11")?;
/// publisher.push(&session, Notification::tools_list_changed()).await?;
///
/// let inspector = Inspector::connect("memory://inspector", Config::default()).await?;
/// let page = inspector.sessions(&SessionCursor::default(), 100).await?;
/// assert_eq!((page.sessions[0].session.clone(), page.sessions[0].depth), (session.clone(), 1));
///
/// let oldest = &inspector.peek(&session, 10).await?.messages[0];
/// assert_eq!(oldest.message.method.as_deref(), Some("notifications/tools/list_changed"));
/// assert_eq!(inspector.purge(&session).await?, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Inspector {
    queue: Arc<dyn Backend>,
    config: Arc<Config>,
}

impl Inspector {
    /// Largest number of messages that one [`peek`](Self::peek) returns.
    pub const PEEK_MAX: usize = 1000;

    /// Largest number of sessions that one page is asked for.
    pub const PAGE_MAX: usize = 1000;

    /// Connects to a queue. The URL is that of the fleet's publishers, and the settings are theirs too.
    ///
    /// # Errors
    /// [`ConnectError`] where the URL cannot be used or the queue cannot be reached.
    ///
    /// # Cancellation
    /// Dropping the future leaves nothing behind.
    pub async fn connect(url: &str, config: Config) -> Result<Self, ConnectError> {
        let config = Arc::new(config);
        let queue = connect(url, Arc::clone(&config)).await?;
        Ok(Self::new(queue, config))
    }

    pub(crate) fn new(queue: Arc<dyn Backend>, config: Arc<Config>) -> Self {
        Self { queue, config }
    }

    /// Returns one page of the sessions. The default cursor begins the list, and [`SessionPage::next`] continues it.
    ///
    /// A session is listed that a session store remembers, also as ended, or that has queued notifications, an owner or
    /// dead letters. A page has about `limit` sessions, at least 1 and at most [`PAGE_MAX`](Self::PAGE_MAX). The last
    /// step can bring some more. A page may also be short or empty although the list goes on.
    ///
    /// In Redis a page comes from `SCAN` in small steps, at most 100. Each session that is there during the whole list
    /// is listed. A session whose keys come or go meanwhile may be listed twice: a caller that must not count twice
    /// remembers the ids.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed, or the cursor is not of this queue.
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    pub async fn sessions(&self, cursor: &SessionCursor, limit: usize) -> Result<SessionPage, QueueError> {
        let (listed, next) = self.queue.list_sessions(cursor.position(), limit.clamp(1, Self::PAGE_MAX)).await?;
        let servers =
            if listed.iter().any(|facts| facts.lease.is_some()) { self.queue.servers().await? } else { Vec::new() };
        let sessions = listed.into_iter().map(|facts| SessionSummary::new(&self.config, facts, &servers)).collect();
        Ok(SessionPage { sessions, next: next.map(SessionCursor::at) })
    }

    /// Returns everything that the queue knows about one session. The parts are read together, and not in one step.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed.
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    pub async fn session(&self, session: &SessionId) -> Result<SessionReport, QueueError> {
        let details = self.queue.details(session).await?;
        let servers = if details.facts.lease.is_some() { self.queue.servers().await? } else { Vec::new() };
        Ok(self.report(session, details, &servers))
    }

    /// Returns the report of what the queue knows about a session.
    fn report(&self, session: &SessionId, details: SessionDetails, servers: &[ServerRecord]) -> SessionReport {
        let read = |raw: &Vec<u8>| PeekedMessage::read(&self.config, session, raw.clone(), details.now).message;
        let (oldest, newest) = (details.oldest.as_ref().map(read), details.newest.as_ref().map(read));
        SessionReport::new(&self.config, details, servers, oldest, newest)
    }

    /// Returns the owner of a session's queue; `None` where no server owns the queue.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed.
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    pub async fn owner(&self, session: &SessionId) -> Result<Option<Owner>, QueueError> {
        let facts = self.queue.facts(std::slice::from_ref(session)).await?;
        let Some(lease) = facts.first().and_then(|facts| facts.lease) else { return Ok(None) };
        Ok(Some(Owner::new(lease, &self.queue.servers().await?)))
    }

    /// Returns the oldest messages of a queue, the oldest first: at most `limit`, and at most
    /// [`PEEK_MAX`](Self::PEEK_MAX). Fewer are returned where they have more than 16 MiB together.
    ///
    /// The messages stay queued. Their payloads can be secret.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed.
    ///
    /// # Cancellation
    /// Dropping the future has no effect on the messages.
    pub async fn peek(&self, session: &SessionId, limit: usize) -> Result<PeekedMessages, QueueError> {
        let limit = limit.min(Self::PEEK_MAX);
        if limit == 0 {
            return Ok(PeekedMessages { messages: Vec::new(), has_more: self.depth(session).await? > 0 });
        }
        let peeked = self.queue.peek(session, limit, PEEK_BYTES).await?;
        let now = peeked.now;
        let message = |raw: Vec<u8>| PeekedMessage::read(&self.config, session, raw, now);
        Ok(PeekedMessages { messages: peeked.messages.into_iter().map(message).collect(), has_more: peeked.has_more })
    }

    /// Removes the messages that a queue has now, and returns their number. Messages that are pushed meanwhile stay.
    ///
    /// No dead letters are kept. Receipts of the removed messages say
    /// [`Discarded`](crate::Receipt::Discarded) with the reason [`Purged`](crate::DiscardReason::Purged). A question
    /// that a removed message brings is not answered: its worker waits until its timeout. Notifications that the owner
    /// has handed over and that are not confirmed yet may arrive all the same.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed. Some messages may be removed then.
    ///
    /// # Cancellation
    /// Some messages may be removed.
    pub async fn purge(&self, session: &SessionId) -> Result<usize, QueueError> {
        let begun = self.queue.details(session).await?;
        let (mut left, mut purged, begun) = (begun.facts.depth, 0, begun.now);
        while let Some(limit) = NonZeroUsize::new(left.min(PURGED)) {
            let peeked = self.queue.peek(session, limit.get(), PEEK_BYTES).await?;
            let (mut newest, mut count, mut receipts) = (None, 0, Vec::new());
            for raw in peeked.messages {
                let mark = Mark::of(&raw);
                if let Ok(envelope) = decode(&self.config, session, raw) {
                    // Only a message of this crate has the queue's own time.
                    if envelope.message_id.is_some() && envelope.enqueued_at > Some(begun) {
                        left = count;
                        break;
                    }
                    receipts.extend(envelope.receipt.then_some(envelope.id));
                }
                (newest, count) = (Some(mark), count + 1);
            }
            let Some(newest) = newest else { break };
            if self.queue.purge_queue(session, count, &newest, &receipts).await? {
                purged += count;
                metrics::DISCARDED.add(DiscardReason::Purged.label(), count);
                left -= count;
            } else {
                // The owner has removed messages meanwhile: fewer of those that there were are left.
                left = left.saturating_sub(1).min(self.depth(session).await?);
            }
        }
        Ok(purged)
    }

    /// Returns the records of the server processes, in the order of their numbers, at most 1000.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed.
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    pub async fn servers(&self) -> Result<Vec<ServerRecord>, QueueError> {
        self.queue.servers().await
    }

    async fn depth(&self, session: &SessionId) -> Result<usize, QueueError> {
        let facts = self.queue.facts(std::slice::from_ref(session)).await?;
        Ok(facts.first().map_or(0, |facts| facts.depth))
    }
}
