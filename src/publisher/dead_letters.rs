//! [`DeadLetters`]: what was discarded, to be looked at, queued anew, or thrown away.

use std::sync::Arc;
use std::time::SystemTime;

use super::Publisher;
use crate::backend::{Backend, Letter, QueueLimit, Redrove};
use crate::config::Config;
use crate::envelope::{Envelope, Undecodable};
use crate::failure::QueueError;
use crate::fate::DiscardReason;
use crate::keys::Keys;
use crate::notification::NotificationId;
use crate::session_id::SessionId;

/// How many letters are read at once on the way through all of them.
const PAGE: usize = 10;

/// Notifications that were discarded and kept: servers keep them where [`Config::dead_letters`] is more than 0.
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

/// A notification that was discarded.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Its id, where it can be decoded.
    pub id: Option<NotificationId>,
    /// Its method, where it can be decoded.
    pub method: Option<String>,
    /// Why it was discarded.
    pub reason: DiscardReason,
    /// Time of the discard, by the clock of the queue. A letter of another program's making has the Unix epoch.
    pub at: SystemTime,
    /// How many attempts to hand it over had failed.
    pub attempts: u32,
    /// What the last failed attempt said.
    pub last_error: Option<String>,
    /// The message as it lay in the queue.
    pub raw: Vec<u8>,
}

/// What [`DeadLetters::redrive`] has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redriven {
    /// How many are queued again.
    pub redriven: usize,
    /// How many stayed because they cannot be decoded.
    pub undecodable: usize,
    /// How many stayed because they bring a question to whose answer no worker waits any more.
    pub over: usize,
    /// The bound of the queue that stopped it. All that follow stayed.
    pub full: Option<QueueLimit>,
}

impl Publisher {
    /// The dead letters of this queue's sessions.
    pub fn dead_letters(&self) -> DeadLetters {
        DeadLetters { queue: Arc::clone(&self.queue), config: Arc::clone(&self.config) }
    }
}

impl DeadLetters {
    /// Dead letters of a session, the oldest first: at most `limit` after the `skip` oldest. One may be as large as
    /// [`Config::message_max_bytes`]. While others are kept or go, the same one may be listed twice or passed over.
    ///
    /// # Errors
    /// [`QueueError`] where they cannot be read.
    ///
    /// # Cancellation
    /// Nothing remains.
    pub async fn list(&self, session: &SessionId, skip: usize, limit: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let (letters, _) = self.queue.dead_letters(session, skip, limit).await?;
        Ok(letters.into_iter().map(|letter| self.read(session, letter)).collect())
    }

    /// Queues all dead letters of a session anew: the oldest first, behind what is queued, each under its id, with its
    /// whole time to live before it and no attempt made. What does not fit, cannot be decoded, or brings a question that is
    /// over stays where it is. Those that are discarded again meanwhile stay too.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed. Each letter is either queued or still there; calling it again goes on.
    ///
    /// # Cancellation
    /// As after an error.
    pub async fn redrive(&self, session: &SessionId) -> Result<Redriven, QueueError> {
        self.redrive_those(session, |_| true).await
    }

    /// As [`redrive`](Self::redrive), only those with these ids.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancellation
    /// As there.
    pub async fn redrive_only(&self, session: &SessionId, ids: &[NotificationId]) -> Result<Redriven, QueueError> {
        self.redrive_those(session, |id| id.is_some_and(|id| ids.contains(&id))).await
    }

    /// Throws all dead letters of a session away, and says how many there were.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed: they may or may not be gone.
    ///
    /// # Cancellation
    /// As after an error.
    pub async fn purge(&self, session: &SessionId) -> Result<usize, QueueError> {
        self.queue.purge(session).await
    }

    /// Which sessions have dead letters. In Redis it looks through all keys (`SCAN`): for operators, not for every second.
    ///
    /// # Errors
    /// [`QueueError`] where they cannot be read.
    ///
    /// # Cancellation
    /// Nothing remains.
    pub async fn sessions(&self) -> Result<Vec<SessionId>, QueueError> {
        self.queue.sessions_with_dead_letters().await
    }

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
                    // Or what is discarded as soon as it is redriven would go round for ever.
                    _ if letter.at > begun => return Ok(done),
                    other if !is_wanted(other.as_ref().map(|envelope| envelope.id)) => None,
                    Some(envelope) if self.is_over(envelope).await? => {
                        done.over += 1;
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
                    Redrove::Done => done.redriven += 1,
                    Redrove::Full(limit) => {
                        done.full = Some(limit);
                        return Ok(done);
                    }
                    Redrove::Changed => {
                        // Some have gone by another's doing: from the beginning, with what is left.
                        (stayed, done.undecodable, done.over) = (0, 0, 0);
                        continue 'pages;
                    }
                }
            }
        }
    }

    /// Whether it brings a question whose worker was told otherwise: the client would be told of a task that waits for
    /// input, and it does not.
    async fn is_over(&self, envelope: &Envelope) -> Result<bool, QueueError> {
        match &envelope.question {
            Some(question) => Ok(!self.queue.is_waiting(&question.task, &question.request_id).await?),
            None => Ok(false),
        }
    }

    fn decode(&self, session: &SessionId, letter: &Letter) -> Result<Envelope, Undecodable> {
        let queue = Keys::new(self.config.prefix()).of(session).queue;
        Envelope::decode(&queue, letter.raw.clone(), self.config.time_to_live())
    }

    fn read(&self, session: &SessionId, letter: Letter) -> DeadLetter {
        let envelope = self.decode(session, &letter).ok();
        let Letter { at, reason, raw, .. } = letter;
        let (attempts, last_error) = match (&reason, &envelope) {
            (DiscardReason::AttemptsExhausted { attempts, last_error }, _) => (*attempts, Some(last_error.clone())),
            (_, Some(envelope)) => (envelope.attempt, envelope.last_error.clone()),
            _ => (0, None),
        };
        let (id, method) = envelope.map(|envelope| (envelope.id, envelope.method().to_owned())).unzip();
        DeadLetter { id, method, reason, at: at.to_system(), attempts, last_error, raw }
    }
}
