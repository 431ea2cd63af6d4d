//! [`Elicitor`]: how a background task asks its user, wherever the task runs and wherever the client is connected.
//!
//! ```text
//!  worker                        Redis                        the client's server
//!  elicit ── pose ──────────────► request, status: waiting
//!         ── push ──────────────► queue ────────────────────► input_required, then elicitation/create ──► user
//!         ◄─ answer ───────────── response ◄── settle ─────── the answer, at any server of the fleet ◄────┘
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::Map;
use tokio::time::Instant;
use uuid::Uuid;

use crate::backend::{Backend, Posed, Settled};
use crate::failure::QueueError;
use crate::lock::lock;
use crate::notification::{Notification, Object, Task, TaskStatus};
use crate::publisher::{Publisher, PushError};
use crate::question::{Answer, Elicitation, InvalidQuestion, Question, RELATED_TASK, TaskKey};
use crate::session_id::SessionId;

mod flat;
mod schema;
mod typed;

pub use self::typed::Elicited;

/// How often a task whose earlier question is under way elsewhere looks again.
const BUSY: Duration = Duration::from_millis(200);

/// How much longer than its timeout a question may take to be withdrawn.
const WITHDRAWAL: Duration = Duration::from_secs(1);

/// Asks users questions. Cheap to clone; any number of questions wait on one connection.
///
/// ```no_run
/// use std::time::Duration;
/// use mcp_courier::{Answer, Elicitation, Publisher, SessionId, TaskKey};
/// use serde_json::json;
///
/// # async fn worker(publisher: Publisher, session: SessionId) -> Result<(), Box<dyn std::error::Error>> {
/// let schema = json!({"type": "object", "properties": {"approve": {"type": "boolean"}}, "required": ["approve"]});
/// let question = Elicitation::form("Pay 1,200 € to ACME?", schema)?;
/// let task = TaskKey::anonymous("task-7")?;
/// match publisher.elicitor().elicit(&session, &task, question, Duration::from_secs(600)).await? {
///     Answer::Accept(content) if content["approve"] == true => println!("paying"),
///     Answer::Accept(_) | Answer::Decline => println!("not paying"),
///     other => println!("nobody answered: {other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Elicitor {
    publisher: Publisher,
    queue: Arc<dyn Backend>,
    /// One question of a task at a time: FastMCP's keys have room for one.
    turns: Arc<Mutex<HashMap<TaskKey, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Publisher {
    /// Asks questions of users, over the same connection. Use clones of one for all questions of a process.
    pub fn elicitor(&self) -> Elicitor {
        Elicitor { publisher: self.clone(), queue: Arc::clone(self.queue()), turns: Arc::default() }
    }
}

impl Elicitor {
    /// Asks the user of a session, and waits for the answer, for at most `timeout`; to take the question back then may take
    /// a second more. A task's questions are asked one after another; the time that one waits for its turn counts.
    ///
    /// Accepted content has been checked against the schema of the form. A whole number in a field of type `integer` is an
    /// integer in it, however the client wrote it (`3.0`, `3e0`); a field that may be left out and is null is left out. Where the client cannot be asked, the
    /// notification is discarded, or the session ends after the client was asked, the answer is [`Answer::Cancel`] with the
    /// reason, at once. A client that is away, or a session that nobody serves, may come in time: the question waits for it.
    ///
    /// # Errors
    /// [`ElicitError`]: the timeout is out of range, the schema is none, the notification was refused, or the queue failed.
    ///
    /// # Cancellation
    /// Dropping it withdraws the question: the client is told, and a later answer is refused.
    pub async fn elicit(
        &self,
        session: &SessionId,
        task: &TaskKey,
        elicitation: Elicitation,
        timeout: Duration,
    ) -> Result<Answer, ElicitError> {
        let schema = schema::Schema::of(&elicitation)?;
        self.elicit_checked(session, task, elicitation, &schema, timeout).await
    }

    async fn elicit_checked(
        &self,
        session: &SessionId,
        task: &TaskKey,
        elicitation: Elicitation,
        schema: &schema::Schema,
        timeout: Duration,
    ) -> Result<Answer, ElicitError> {
        if !crate::notification::time_to_live_is_possible(timeout) {
            return Err(InvalidQuestion::Timeout { given: timeout }.into());
        }
        let until = Instant::now() + timeout;
        let request_id = Uuid::now_v7().to_string();
        let mut under_way = UnderWay { elicitor: self, session, task, request_id: &request_id, over: true };
        let asked = self.ask(&mut under_way, elicitation, until);
        match tokio::time::timeout_at(until, asked).await {
            Ok(Ok(Answer::Accept(content))) => Ok(schema.check(content)),
            Ok(answer) => answer,
            Err(_) => {
                // Here and not beside: a process may end with this answer, and its client would be asked on.
                under_way.withdraw_now().await;
                Ok(Answer::cancelled(format!("no answer came within {timeout:?}")))
            }
        }
    }

    /// Gives an answer to a question, for servers that get their users' input by another way than elicitation. The first
    /// answer to a question counts, and only while its worker waits; one under another scope finds no question. The id is
    /// [`Question::request_id`](crate::Question::request_id), as [`McpSession::elicit`](crate::McpSession::elicit) gets it.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed: the answer may or may not be given, and giving it again does no harm.
    ///
    /// # Cancellation
    /// As after an error.
    pub async fn answer(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError> {
        self.queue.settle(task, request_id, answer).await
    }

    async fn ask(
        &self,
        under_way: &mut UnderWay<'_>,
        elicitation: Elicitation,
        until: Instant,
    ) -> Result<Answer, ElicitError> {
        let UnderWay { session, task, request_id, .. } = *under_way;
        let turn = Turn::of(self, task);
        let _turn = turn.mutex.lock().await;
        // From before the first command: should this be dropped, what is in Redis is taken back.
        under_way.over = false;
        let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let posed = loop {
            match self.queue.pose(task, request_id, elicitation.to_request(request_id), left()).await? {
                Posed::Done(now) => break now,
                // In another process, so there is nothing to wait on but time.
                Posed::Busy => tokio::time::sleep(BUSY).await,
            }
        };
        let (request_id, deadline) = (request_id.to_owned(), posed.plus(left()).to_system());
        let question = Question { request_id, task: task.clone(), elicitation, deadline };
        self.publisher.push(session, notification(&question, left())).await?;
        let answer = self.queue.answer_to(task, &question.request_id).await?;
        under_way.over = true;
        Ok(answer)
    }
}

/// The status that says that input is required, with what the relay needs: as FastMCP's own.
fn notification(question: &Question, time_to_live: Duration) -> Notification {
    let mut task = Task::new(question.task.id(), TaskStatus::InputRequired, SystemTime::now());
    task.status_message = Some(question.elicitation.message().to_owned());
    // Null would be true, and MCP allows it; FastMCP's servers drop what is null, and then no client takes it.
    task.ttl = Some(time_to_live);
    let mut notification = Notification::task_status(&task);
    notification.meta = Some(Object::Fields(Map::from_iter([(RELATED_TASK.to_owned(), question.to_related_task())])));
    notification.time_to_live = Some(time_to_live);
    notification
}

/// A task's place in the map of turns, which is given up with the last of its questions.
struct Turn<'a> {
    elicitor: &'a Elicitor,
    task: &'a TaskKey,
    mutex: Arc<tokio::sync::Mutex<()>>,
}

impl<'a> Turn<'a> {
    fn of(elicitor: &'a Elicitor, task: &'a TaskKey) -> Self {
        let mut turns = lock(&elicitor.turns);
        let mutex = Arc::clone(turns.entry(task.clone()).or_default());
        Self { elicitor, task, mutex }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = lock(&self.elicitor.turns);
        // The map's and this one.
        if Arc::strong_count(&self.mutex) == 2 {
            turns.remove(self.task);
        }
    }
}

/// Takes a question back that nobody waits for any more.
struct UnderWay<'a> {
    elicitor: &'a Elicitor,
    session: &'a SessionId,
    task: &'a TaskKey,
    request_id: &'a str,
    over: bool,
}

impl UnderWay<'_> {
    async fn withdraw_now(&mut self) {
        if !std::mem::replace(&mut self.over, true) {
            // What takes longer goes on beside.
            let _ = tokio::time::timeout(WITHDRAWAL, tokio::spawn(self.withdrawal())).await;
        }
    }

    fn withdrawal(&self) -> impl Future<Output = ()> + Send + use<> {
        let Elicitor { publisher, queue, .. } = self.elicitor.clone();
        let (session, task, request_id) = (self.session.clone(), self.task.clone(), self.request_id.to_owned());
        async move {
            let is_open = async || matches!(queue.open_question(&session, &request_id).await, Ok(Some(_)));
            // Before too: whoever asks may see at once that nobody waits any more, and close it.
            let was_open = is_open().await;
            if let Err(error) = queue.withdraw(&task, &request_id).await {
                tracing::warn!(?session, %error, "a question was not withdrawn; it ends by itself");
            }
            // Only who was asked is told. What is still queued is not asked any more: nobody waits for it.
            if was_open || is_open().await {
                let cancelled = Notification::cancelled(Question::json_rpc_id(&request_id), Some("withdrawn"));
                let cancelled = cancelled.related_to(task.id());
                if let Err(error) = publisher.push(&session, cancelled).await {
                    tracing::debug!(?session, %error, "a client was not told that its question is withdrawn");
                }
                let _ = queue.close_question(&session, &request_id).await;
            }
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // Without a runtime its keys expire.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.withdrawal());
        }
    }
}

/// Failure to ask a question.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElicitError {
    /// The question is none that can be asked.
    #[error(transparent)]
    Invalid(#[from] InvalidQuestion),
    /// The notification that carries the question was refused.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The queue failed.
    #[error(transparent)]
    Backend(#[from] QueueError),
}
