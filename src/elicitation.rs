//! [`Elicitor`]: a background task asks its user a question. The task may run in any process, and the client may be
//! connected to any server.
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
use crate::metrics::{self, Level};
use crate::notification::{Notification, Object, Task, TaskStatus};
use crate::publisher::{Publisher, PushError};
use crate::question::{Answer, Elicitation, InvalidQuestion, Question, RELATED_TASK, TaskKey};
use crate::session_id::SessionId;
use crate::trace_context::TraceContext;

mod flat;
mod schema;
mod typed;

pub use self::typed::Elicited;

/// Pause before a task tries again whose earlier question is still open in another process.
const BUSY: Duration = Duration::from_millis(200);

/// Longest time beyond the timeout that the withdrawal of a question may take.
const WITHDRAWAL: Duration = Duration::from_secs(1);

/// Asks users questions. Cloning is cheap, and any number of questions wait on one connection.
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
    /// Locks of the tasks that ask now. A task asks one question at a time, because FastMCP's keys have room for one.
    task_locks: Arc<Mutex<HashMap<TaskKey, Arc<tokio::sync::Mutex<()>>>>>,
    /// Trace context of the questions that this value asks; `None` unless it was set.
    trace_context: Option<Box<TraceContext>>,
}

impl Publisher {
    /// Returns an elicitor over the publisher's connections. All questions of a process should be asked by clones of
    /// one elicitor, because the clones share the tasks' locks.
    pub fn elicitor(&self) -> Elicitor {
        let queue = Arc::clone(self.queue());
        Elicitor { publisher: self.clone(), queue, task_locks: Arc::default(), trace_context: None }
    }
}

impl Elicitor {
    /// Sets the W3C trace context of the questions that the returned elicitor asks. Defaults to none.
    ///
    /// The client gets the context in `_meta` of the notification and of `elicitation/create` (SEP-414). The clone for
    /// one question is cheap: `elicitor.clone().with_trace_context(context)`.
    #[must_use]
    pub fn with_trace_context(self, context: TraceContext) -> Self {
        Self { trace_context: Some(Box::new(context)), ..self }
    }

    /// Asks the user of a session, and waits for the answer for at most `timeout`. The withdrawal of the question can
    /// take one second more.
    ///
    /// A task's questions are asked one after another. The time in which a question waits for its predecessor counts
    /// towards `timeout`.
    ///
    /// Accepted content fits the schema of the form. A whole number in a field of type `integer` is an integer, also
    /// where the client wrote `3.0` or `3e0`. An optional field that is null is left out.
    ///
    /// The answer is [`Answer::Cancel`] with a reason, at once, where the client cannot be asked or the notification is
    /// discarded. The answer is the same where the session ends after the client was asked. A client that is away, or a
    /// session that no server serves, may come in time, so the question waits.
    ///
    /// # Errors
    /// [`ElicitError`]: the timeout is out of range, the schema cannot be used, the notification was refused, or the
    /// queue failed.
    ///
    /// # Cancellation
    /// Dropping the future withdraws the question. A client that was asked gets `notifications/cancelled`, and a later
    /// answer is refused.
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

    /// Asks a question as [`elicit`](Self::elicit) does, and checks the answer against `schema`.
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
        let _open = Level::of(&metrics::ELICITATIONS_OPEN);
        let request_id = Uuid::now_v7().to_string();
        let mut pending =
            PendingElicitation { elicitor: self, session, task, request_id: &request_id, is_settled: true };
        let asked = self.ask(&mut pending, elicitation, until);
        let ended = tokio::time::timeout_at(until, asked).await;
        let outcome = ended.as_ref().map_or("timed_out", |ended| ended.as_ref().map_or("failed", Answer::label));
        metrics::ELICITATIONS.add(outcome, 1);
        match ended {
            Ok(Ok(Answer::Accept(content))) => Ok(schema.check(content)),
            Ok(answer) => answer,
            Err(_) => {
                // The withdrawal is awaited here. A process may end right after this answer, and its client would still
                // be asked otherwise.
                pending.withdraw_now().await;
                Ok(Answer::cancelled(format!("no answer came within {timeout:?}")))
            }
        }
    }

    /// Answers a question, for servers that get their users' input by another way than elicitation.
    ///
    /// The first answer to a question counts, and only while its worker waits. A task of another scope has no such
    /// question. The request id is [`Question::request_id`](crate::Question::request_id), as
    /// [`McpSession::elicit`](crate::McpSession::elicit) gets it.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed. The answer may or may not be recorded, and answering again does no harm.
    ///
    /// # Cancellation
    /// The answer may or may not be recorded, and answering again does no harm.
    pub async fn answer(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError> {
        self.queue.settle(task, request_id, answer).await
    }

    /// Waits until no other question of the task is open, stores the question, pushes its notification, and waits for
    /// the answer.
    async fn ask(
        &self,
        pending: &mut PendingElicitation<'_>,
        elicitation: Elicitation,
        until: Instant,
    ) -> Result<Answer, ElicitError> {
        let PendingElicitation { session, task, request_id, .. } = *pending;
        let task_lock = TaskLock::new(self, task);
        let _locked = task_lock.mutex.lock().await;
        // The flag is cleared before the first command. If this future is dropped from here on, the question is
        // withdrawn.
        pending.is_settled = false;
        let left = || until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let posed = loop {
            match self.queue.pose(task, request_id, elicitation.to_request(request_id), left()).await? {
                Posed::Done(now) => break now,
                // The earlier question is in another process, so there is no event to wait for.
                Posed::Busy => tokio::time::sleep(BUSY).await,
            }
        };
        let (request_id, deadline) = (request_id.to_owned(), posed.plus(left()).to_system());
        let mut question = Question::new(request_id, task.clone(), elicitation, deadline);
        question.trace_context = self.trace_context.clone();
        self.publisher.push(session, notification(&question, left())).await?;
        let answer = self.queue.answer_to(task, &question.request_id).await?;
        pending.is_settled = true;
        Ok(answer)
    }
}

/// Returns the status that reports that a task needs input, with the fields that FastMCP's relay reads.
fn notification(question: &Question, time_to_live: Duration) -> Notification {
    let mut task = Task::new(question.task.id(), TaskStatus::InputRequired, SystemTime::now());
    task.status_message = Some(question.elicitation.message().to_owned());
    // MCP allows a `ttl` of null, and null would be right here. FastMCP's servers drop null values, and clients refuse
    // a status without `ttl`.
    task.ttl = Some(time_to_live);
    let mut notification = Notification::task_status(&task);
    notification.meta = Some(Object::Fields(Map::from_iter([(RELATED_TASK.to_owned(), question.to_related_task())])));
    notification.time_to_live = Some(time_to_live);
    notification.trace_context = question.trace_context.clone();
    notification
}

/// Hold on a task's entry in the map of locks. The last question of the task removes the entry.
struct TaskLock<'a> {
    elicitor: &'a Elicitor,
    task: &'a TaskKey,
    mutex: Arc<tokio::sync::Mutex<()>>,
}

impl<'a> TaskLock<'a> {
    fn new(elicitor: &'a Elicitor, task: &'a TaskKey) -> Self {
        let mut task_locks = lock(&elicitor.task_locks);
        let mutex = Arc::clone(task_locks.entry(task.clone()).or_default());
        Self { elicitor, task, mutex }
    }
}

impl Drop for TaskLock<'_> {
    fn drop(&mut self) {
        let mut task_locks = lock(&self.elicitor.task_locks);
        // Two references are left: the map's and this one.
        if Arc::strong_count(&self.mutex) == 2 {
            task_locks.remove(self.task);
        }
    }
}

/// Guard of an open question. Dropping the guard withdraws the question, unless its answer has come.
struct PendingElicitation<'a> {
    elicitor: &'a Elicitor,
    session: &'a SessionId,
    task: &'a TaskKey,
    request_id: &'a str,
    /// Set while there is nothing to withdraw: before the first command, after the answer, and after the withdrawal.
    is_settled: bool,
}

impl PendingElicitation<'_> {
    /// Withdraws the question if it is open, and waits for that up to [`WITHDRAWAL`].
    async fn withdraw_now(&mut self) {
        if !std::mem::replace(&mut self.is_settled, true) {
            // A withdrawal that takes longer continues in its own task.
            let _ = tokio::time::timeout(WITHDRAWAL, tokio::spawn(self.withdrawal())).await;
        }
    }

    /// Returns the future that withdraws the question. The future owns its data, so a task can complete it.
    fn withdrawal(&self) -> impl Future<Output = ()> + Send + use<> {
        let Elicitor { publisher, queue, .. } = self.elicitor.clone();
        let (session, task, request_id) = (self.session.clone(), self.task.clone(), self.request_id.to_owned());
        async move {
            let is_open = async || matches!(queue.open_question(&session, &request_id).await, Ok(Some(_)));
            // The question is looked up before the withdrawal too, because a server that sees the withdrawal may close
            // the question at once.
            let was_open = is_open().await;
            if let Err(error) = queue.withdraw(&task, &request_id).await {
                tracing::warn!(?session, %error, "withdrawing a question failed; it expires by itself");
            }
            // Only a client that was asked gets the cancellation. A question that is still queued is never asked,
            // because nobody waits for its answer.
            if was_open || is_open().await {
                let cancelled = Notification::cancelled(Question::json_rpc_id(&request_id), Some("withdrawn"));
                let cancelled = cancelled.related_to(task.id());
                if let Err(error) = publisher.push(&session, cancelled).await {
                    tracing::debug!(?session, %error, "pushing the withdrawal of a question failed; its client still shows the question");
                }
                let _ = queue.close_question(&session, &request_id).await;
            }
        }
    }
}

impl Drop for PendingElicitation<'_> {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        // Without a runtime nothing is withdrawn, and the question's keys expire.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(self.withdrawal());
        }
    }
}

/// Failure to ask a question.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElicitError {
    /// The question cannot be asked.
    #[error(transparent)]
    Invalid(#[from] InvalidQuestion),
    /// The notification that carries the question was refused.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The queue failed.
    #[error(transparent)]
    Backend(#[from] QueueError),
}
