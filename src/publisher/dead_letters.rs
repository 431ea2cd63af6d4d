//! [`DeadLetters`]: discarded notifications that were kept, for operators to list, queue again or delete.

use std::sync::Arc;
use std::time::SystemTime;

use super::Publisher;
use crate::backend::{Backend, QueueLimit, Redrove, StoredLetter};
use crate::config::Config;
use crate::envelope::{Envelope, Undecodable};
use crate::failure::QueueError;
use crate::inspector::decode;
use crate::metrics;
use crate::notification::NotificationId;
use crate::outcome::DiscardReason;
use crate::seal::Refused;
use crate::session_id::SessionId;

/// Number of letters that are read at once while a redrive goes through all of them.
const PAGE: usize = 10;

/// Notifications that were discarded and kept. Servers keep them where [`Config::dead_letters`] is above 0.
///
/// ```no_run
/// use mcp_courier::Publisher;
///
/// # async fn operator(publisher: Publisher) -> Result<(), Box<dyn std::error::Error>> {
/// let dead = publisher.dead_letters();
/// for session in dead.sessions().await? {
///     for letter in dead.list(&session, 0, 100).await? {
///         println!("{:?} at {:?}: {}", letter.method, letter.at, letter.reason);
///     }
///     println!("{} are queued again", dead.redrive(&session).await?.redriven);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct DeadLetters {
    queue: Arc<dyn Backend>,
    config: Arc<Config>,
}

/// Discarded notification that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Id of the notification; `None` where the message cannot be decoded.
    pub id: Option<NotificationId>,
    /// Method of the notification; `None` where the message cannot be decoded, or is sealed and this process cannot
    /// open it.
    pub method: Option<String>,
    /// Reason for the discard.
    pub reason: DiscardReason,
    /// Time of the discard, by the queue's clock. The Unix epoch where another program has written the letter without a
    /// time.
    pub at: SystemTime,
    /// Number of attempts that had failed.
    pub attempts: u32,
    /// Text of the last failed attempt, if there was one.
    pub last_error: Option<String>,
    /// Bytes of the message as they were in the queue. A sealed message is sealed here too.
    pub raw: Vec<u8>,
}

/// Result of [`DeadLetters::redrive`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redriven {
    /// Number of letters that are queued again.
    pub redriven: usize,
    /// Number of letters that stayed because they cannot be decoded.
    pub undecodable: usize,
    /// Number of letters that stayed because no worker waits for the answer to their question any more.
    pub obsolete: usize,
    /// Limit of the queue that stopped the redrive. The letter that exceeded the limit, and all later ones, stayed.
    /// `None` where no limit was reached.
    pub full: Option<QueueLimit>,
}

impl Publisher {
    /// Returns access to the dead letters of this queue's sessions.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters { queue: Arc::clone(&self.queue), config: Arc::clone(&self.config) }
    }
}

impl DeadLetters {
    /// Returns dead letters of a session, the oldest first: at most `limit`, after the `skip` oldest.
    ///
    /// One letter can have up to [`Config::message_max_bytes`]. A letter may be listed twice or missed where letters
    /// are added or removed between two calls.
    ///
    /// # Errors
    /// [`QueueError`] where the letters cannot be read.
    ///
    /// # Cancellation
    /// Dropping the future has no effect on the letters.
    pub async fn list(&self, session: &SessionId, skip: usize, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let (letters, _) = self.queue.dead_letters(session, skip, limit).await?;
        Ok(letters.into_iter().map(|letter| self.read(session, letter)).collect())
    }

    /// Queues all dead letters of a session again, the oldest first, behind the notifications that are queued.
    ///
    /// Each keeps its id, and again gets its whole time to live and all attempts. A letter stays where the queue has no
    /// room for it, where it cannot be decoded, or where its question is over. Letters that are discarded during the
    /// redrive stay too.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed. Each letter is then either queued or still a dead letter, and another
    /// call continues.
    ///
    /// # Cancellation
    /// The effect is that of an error: another call continues.
    pub async fn redrive(&self, session: &SessionId) -> Result<Redriven, QueueError> {
        self.redrive_those(session, |_| true).await
    }

    /// Queues the dead letters with these ids again, as [`redrive`](Self::redrive) does for all.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed. Each letter is then either queued or still a dead letter, and another
    /// call continues.
    ///
    /// # Cancellation
    /// The effect is that of an error: another call continues.
    pub async fn redrive_only(&self, session: &SessionId, ids: &[NotificationId]) -> Result<Redriven, QueueError> {
        self.redrive_those(session, |id| id.is_some_and(|id| ids.contains(&id))).await
    }

    /// Deletes all dead letters of a session, and returns their number.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed. The letters may or may not be deleted then.
    ///
    /// # Cancellation
    /// The letters may or may not be deleted.
    pub async fn purge(&self, session: &SessionId) -> Result<usize, QueueError> {
        self.queue.purge(session).await
    }

    /// Returns the sessions that have dead letters. In Redis the call scans all keys (`SCAN`), so it is for operators
    /// and not for a loop.
    ///
    /// # Errors
    /// [`QueueError`] where the keys cannot be read.
    ///
    /// # Cancellation
    /// Dropping the future has no effect on the letters.
    pub async fn sessions(&self) -> Result<Vec<SessionId>, QueueError> {
        self.queue.sessions_with_dead_letters().await
    }

    /// Queues the wanted letters again, in pages of [`PAGE`]. `stayed` counts the letters that were passed over, so
    /// each page begins behind them.
    async fn redrive_those(
        &self,
        session: &SessionId,
        is_wanted: impl Fn(Option<NotificationId>) -> bool,
    ) -> Result<Redriven, QueueError> {
        let (mut done, mut stayed, mut begun) = (Redriven::default(), 0, None);
        'pages: loop {
            let (letters, now) = self.queue.dead_letters(session, stayed, PAGE).await?;
            let begun = *begun.get_or_insert(now);
            if letters.is_empty() {
                return Ok(done);
            }
            for letter in letters {
                let envelope = self.decode(session, &letter).ok();
                let draft = match &envelope {
                    // A letter that was discarded after the redrive began stays. A notification that is discarded as
                    // soon as it is redriven would otherwise be redriven for ever.
                    _ if letter.at > begun => return Ok(done),
                    other if !is_wanted(other.as_ref().map(|envelope| envelope.id)) => None,
                    Some(envelope) if self.is_obsolete(envelope).await? => {
                        done.obsolete += 1;
                        None
                    }
                    envelope => {
                        let draft = envelope.as_ref().and_then(|envelope| envelope.again(self.config.time_to_live()));
                        done.undecodable += usize::from(draft.is_none());
                        draft
                    }
                };
                let Some(draft) = draft else {
                    stayed += 1;
                    continue;
                };
                match self.queue.redrive(session, stayed, &letter.mark, &draft).await? {
                    Redrove::Done => {
                        metrics::REDRIVEN.count(1);
                        done.redriven += 1;
                    }
                    Redrove::Full(limit) => {
                        done.full = Some(limit);
                        return Ok(done);
                    }
                    Redrove::Changed => {
                        // Another process has removed letters meanwhile. The redrive begins again with the letters that
                        // are left.
                        (stayed, done.undecodable, done.obsolete) = (0, 0, 0);
                        continue 'pages;
                    }
                }
            }
        }
    }

    /// Returns whether a letter brings a question for whose answer no worker waits any more. Such a letter would tell
    /// the client that the task waits for input, which is no longer true.
    async fn is_obsolete(&self, envelope: &Envelope) -> Result<bool, QueueError> {
        match &envelope.question {
            Some(question) => Ok(!self.queue.is_waiting(&question.task, &question.request_id).await?),
            None => Ok(false),
        }
    }

    fn decode(&self, session: &SessionId, letter: &StoredLetter) -> Result<Envelope, Undecodable> {
        decode(&self.config, session, letter.raw.clone()).map_err(|(why, _)| why)
    }

    fn read(&self, session: &SessionId, letter: StoredLetter) -> DeadLetter {
        let envelope = self.decode(session, &letter).ok();
        let StoredLetter { at, reason, raw, .. } = letter;
        let (attempts, last_error) = match (&reason, &envelope) {
            (DiscardReason::AttemptsExhausted { attempts, last_error }, _) => (*attempts, Some(last_error.clone())),
            (_, Some(envelope)) => (envelope.attempt, envelope.last_error.clone()),
            _ => (0, None),
        };
        let id = envelope.as_ref().map(|envelope| envelope.id);
        let readable = envelope.filter(|envelope| !matches!(envelope.refused(), Some(Refused::Unopened(_))));
        let method = readable.map(|envelope| envelope.method().to_owned());
        DeadLetter { id, method, reason, at: at.to_system(), attempts, last_error, raw }
    }
}
