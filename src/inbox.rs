//! [`Inbox`]: stands in for a session's client in the tests of a worker.
//!
//! The queue is in memory, so a test needs no Redis, no server and no client. The inbox owns the session's queue as a
//! subscriber does: it claims the lease, takes each notification, and acknowledges it. A receipt is therefore settled,
//! and a question becomes an open question, as at a server with a client that confirms at once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use self::owner::{Collected, Contents, Owner, summary};
use crate::backend::Settled;
use crate::backend::redis::url::shown;
use crate::config::{Config, ConfigError};
use crate::connect::ConnectError;
use crate::envelope::Outbound;
use crate::lock::lock;
use crate::publisher::Publisher;
use crate::question::{Answer, Question};
use crate::session_id::SessionId;

mod owner;

/// Default of [`Inbox::with_timeout`].
const TIMEOUT: Duration = Duration::from_secs(5);

/// Number of the newest notifications that the text of an error shows.
const SHOWN: usize = 10;

/// Inbox of one session, for the tests of a worker: receives what the session's client would get.
///
/// The worker connects to the same `memory://` URL with the same settings. Its receipts are settled, and its questions
/// can be [answered](Self::answer).
///
/// ```
/// use mcp_courier::{Config, Inbox, Notification, Publisher, SessionId};
/// use serde_json::{Value, json};
///
/// // The worker under test.
/// async fn export(publisher: &Publisher, session: &SessionId) -> Result<(), Box<dyn std::error::Error>> {
///     publisher.push(session, Notification::progress("export-7", 1.0, Some(1.0), None)?).await?;
///     publisher.push(session, Notification::resource_updated("file:///report.pdf")).await?;
///     Ok(())
/// }
///
/// #[tokio::main(flavor = "current_thread")] // in your tests: #[tokio::test]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let session = SessionId::new("some-session")?;
///     let inbox = Inbox::open("memory://export", Config::default(), &session).await?;
///
///     export(&inbox.publisher(), &session).await?;
///
///     assert_eq!(inbox.next().await?.method(), "notifications/progress");
///     let updated: Value = inbox.next().await?.parse_params()?;
///     assert_eq!(updated["uri"], "file:///report.pdf");
///     inbox.assert_empty();
///     Ok(())
/// }
/// ```
pub struct Inbox {
    owner: Arc<Owner>,
    /// Time for which [`Inbox::next`] waits.
    timeout: Duration,
    /// Task that takes notifications while no method of the inbox runs, so that the worker's receipts are settled.
    task: JoinHandle<()>,
}

impl Inbox {
    /// Opens the inbox of a session on a queue in memory. Use another name in each test, because a name stands for the
    /// same queue in the whole process.
    ///
    /// The inbox owns the session: pushes find it [`Owned`](crate::SessionStatus::Owned), and broadcasts reach it. A
    /// test with several sessions opens an inbox for each, at one URL. Dropping the inbox releases the session.
    ///
    /// # Errors
    /// [`ConnectError::Url`] where the URL is not `memory://` and a name. An inbox at Redis would take the
    /// notifications of a real client.
    ///
    /// # Cancellation
    /// Dropping the future leaves nothing behind.
    ///
    /// # Panics
    /// Panics outside a tokio runtime.
    pub async fn open(url: &str, config: Config, session: &SessionId) -> Result<Self, ConnectError> {
        let Some(name) = url.strip_prefix("memory://").filter(|name| !name.is_empty()) else {
            let rule = "an inbox needs memory:// and a name: at Redis it would take the notifications of a real client";
            return Err(ConnectError::Url(ConfigError::new("url", shown(url), rule)));
        };
        let (owner, consumer) = Owner::open(name, config, session).await?;
        let task = tokio::spawn(Arc::clone(&owner).follow(consumer));
        Ok(Self { owner, timeout: TIMEOUT, task })
    }

    /// Sets the time for which [`next`](Self::next) and [`next_question`](Self::next_question) wait. Defaults to 5 s.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns the session whose notifications the inbox receives.
    pub fn session(&self) -> &SessionId {
        &self.owner.session
    }

    /// Returns a publisher to the queue of the inbox, for the worker under test.
    pub fn publisher(&self) -> Publisher {
        Publisher::new(Arc::clone(&self.owner.backend) as _, Arc::clone(&self.owner.config))
    }

    /// Returns the oldest notification that was not read yet, and waits for one where there is none.
    ///
    /// The notification is in the form for the client, with its id in `params._meta`. An expired notification, and a
    /// status of a task behind the status of its end, are discarded as at a server.
    ///
    /// # Errors
    /// [`InboxError::Timeout`] where no notification came in time; the error's text shows those that came before.
    /// [`InboxError::TakenOver`] where another owner has claimed the queue.
    ///
    /// # Cancellation
    /// No notification is lost.
    pub async fn next(&self) -> Result<Outbound, InboxError> {
        self.wait_for("notification", Contents::pop).await
    }

    /// Returns all notifications that were not read yet, the oldest first, without waiting.
    ///
    /// A notification whose push has returned is among them.
    ///
    /// # Panics
    /// Panics where another owner has claimed the queue.
    #[track_caller]
    pub fn read_all(&self) -> Vec<Outbound> {
        let mut all = Vec::new();
        loop {
            let collected = self.collect();
            let mut contents = lock(&self.owner.contents);
            all.extend(std::iter::from_fn(|| contents.pop()));
            if collected != Collected::Full {
                return all;
            }
            self.owner.has_room.notify_one();
        }
    }

    /// Checks that no notification and no question is left, without waiting. Call this method when the worker has
    /// ended.
    ///
    /// # Panics
    /// Panics where a notification or a question was not read, and shows it. Panics where another owner has claimed the
    /// queue.
    #[track_caller]
    pub fn assert_empty(&self) {
        self.collect();
        let contents = lock(&self.owner.contents);
        let notifications = contents.notifications.iter().map(summary);
        let questions = contents.questions.iter().map(|question| format!("question {:?}", question.elicitation));
        let left: Vec<_> = notifications.chain(questions).take(SHOWN).collect();
        let count = contents.notifications.len() + contents.questions.len();
        assert!(count == 0, "{count} were not read; the oldest:{}", list(&left));
    }

    /// Returns the oldest question that was not read yet, and waits for one where there is none. Its worker waits for
    /// the [answer](Self::answer) meanwhile, so run both at once:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use mcp_courier::{Answer, Config, Elicitation, Inbox, SessionId, Settled, TaskKey};
    /// # use serde_json::json;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let session = SessionId::new("some-session")?;
    /// # let inbox = Inbox::open("memory://next-question", Config::default(), &session).await?;
    /// # let (elicitor, task) = (inbox.publisher().elicitor(), TaskKey::anonymous("task-7")?);
    /// # let elicitation = Elicitation::form("Pay?", json!({"type": "object", "properties": {}}))?;
    /// # let worker = elicitor.elicit(&session, &task, elicitation, Duration::from_secs(60));
    /// let user = async {
    ///     let question = inbox.next_question().await?;
    ///     assert_eq!(question.elicitation.message(), "Pay?");
    ///     assert_eq!(inbox.answer(&question, &Answer::Decline), Settled::Done);
    ///     Ok::<_, mcp_courier::InboxError>(())
    /// };
    /// let (outcome, user) = tokio::join!(worker, user);
    /// assert_eq!((outcome?, user?), (Answer::Decline, ()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The client also gets the notification that the task needs input: [`next`](Self::next) returns that one.
    ///
    /// # Errors
    /// [`InboxError`], as from [`next`](Self::next).
    ///
    /// # Cancellation
    /// No question is lost.
    pub async fn next_question(&self) -> Result<Question, InboxError> {
        self.wait_for("question", |contents| contents.questions.pop_front()).await
    }

    /// Answers a question in the place of the user. The worker's [`Elicitor`](crate::Elicitor) checks accepted content
    /// against the schema of the question.
    ///
    /// Returns [`Settled::Done`] where the worker gets the answer.
    #[must_use = "the answer tells whether a worker waited"]
    pub fn answer(&self, question: &Question, answer: &Answer) -> Settled {
        let answer = answer.clone().within(self.owner.config.message_max_bytes());
        self.owner.backend.step(|moment| {
            let settled = moment.settle_question(&question.task, &question.request_id, &answer);
            moment.close_question(&self.owner.session, &question.request_id);
            settled
        })
    }

    /// Waits for a notification or a question, for at most the timeout.
    async fn wait_for<T>(
        &self,
        awaited: &'static str,
        pop: impl Fn(&mut Contents) -> Option<T>,
    ) -> Result<T, InboxError> {
        match tokio::time::timeout(self.timeout, self.owner.first(&pop)).await {
            Ok(found) => found,
            // The owner learns of a takeover at its next heartbeat only.
            Err(_) => self.owner.collect_then(&pop)?.ok_or_else(|| {
                let contents = lock(&self.owner.contents);
                let (received, newest) = (contents.received, contents.newest.iter().cloned().collect());
                InboxError::Timeout { awaited, waited: self.timeout, received, newest }
            }),
        }
    }

    #[track_caller]
    fn collect(&self) -> Collected {
        let collected = self.owner.collect();
        assert!(collected != Collected::TakenOver, "{}", InboxError::TakenOver);
        collected
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.task.abort();
        self.owner.release();
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("session", &self.owner.session)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Failure to read from an [`Inbox`]. `Debug` writes the same text as `Display`, because a test that unwraps the error
/// prints its `Debug`.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// Nothing came in time.
    #[error("no {awaited} came within {waited:?}; received before: {received}{}", list(newest))]
    Timeout {
        /// Kind of the thing that was awaited: `notification` or `question`.
        awaited: &'static str,
        /// Time that was waited.
        waited: Duration,
        /// Number of notifications that were received since the inbox was opened.
        received: usize,
        /// Method and params of the newest notifications that were received, at most 10, the oldest first. Long params
        /// are cut.
        newest: Vec<String>,
    },
    /// Another owner has claimed the queue.
    #[error("another inbox, or the subscriber of a server, has taken over the session: open one for each session")]
    TakenOver,
}

impl fmt::Debug for InboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Returns texts in lines of their own.
fn list(texts: &[String]) -> String {
    texts.iter().map(|text| format!("\n  {text}")).collect()
}

#[cfg(test)]
mod tests;
