//! Part of the queue port that carries questions and answers between a worker and the server that asks its user.
//!
//! ```text
//!            pose                settle (the first answer to this id)
//!   nothing ──────► waiting ─────────────────────────────────────────► responded ──► nothing
//!      ▲               │ withdraw, deadline                                 the worker has it
//!      └───────────────┘
//! ```

use std::time::Duration;

use async_trait::async_trait;

use super::Backend;
use crate::envelope::Timestamp;
use crate::failure::QueueError;
use crate::question::{Answer, Question, TaskKey};
use crate::session_id::SessionId;

/// Time for which a question outlives its patience. A late answer, or a late worker, still finds the question then.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// Reason of the cancellation that a worker reads when its task asks another question meanwhile.
pub(crate) const TAKEN_OVER: &str = "another question of the same task took its place";

/// Outcome of [`Questions::pose`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posed {
    /// The question is posed since this moment of the queue's clock.
    Done(Timestamp),
    /// The task has another open question, whose asker lives.
    Busy,
}

/// Outcome of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// The worker gets the answer.
    Done,
    /// No worker waits for the answer. The question was answered before, was withdrawn, or has expired, or the task is
    /// of another scope.
    NotWaiting,
    /// The task asks another question by now.
    OtherQuestion,
}

/// Questions of tasks. A task has one question at a time, because FastMCP's keys have room for one.
#[async_trait]
pub trait Questions {
    /// Poses a question, for `patience` at most, and clears the remains of an earlier one. `request` is the question in
    /// the form in which FastMCP keeps it.
    async fn pose(
        &self,
        task: &TaskKey,
        request_id: &str,
        request: String,
        patience: Duration,
    ) -> Result<Posed, QueueError>;

    /// Waits without a limit for the answer to a posed question. The answer ends the question.
    ///
    /// # Cancellation
    /// The question stays posed.
    async fn answer_to(&self, task: &TaskKey, request_id: &str) -> Result<Answer, QueueError>;

    /// Gives an answer to the question with this id.
    async fn settle(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError>;

    /// Ends a question without an answer, if it is still the question of its task.
    async fn withdraw(&self, task: &TaskKey, request_id: &str) -> Result<(), QueueError>;

    /// Returns whether a worker waits for the answer to the question with this id.
    async fn is_waiting(&self, task: &TaskKey, request_id: &str) -> Result<bool, QueueError>;

    /// Returns one of the open questions of a session.
    async fn open_question(&self, session: &SessionId, request_id: &str) -> Result<Option<Question>, QueueError>;

    /// Removes a question from the open questions of a session.
    async fn close_question(&self, session: &SessionId, request_id: &str) -> Result<(), QueueError>;
}

/// Gives an answer to an open question of a session, and closes the question.
pub(crate) async fn settle_open(
    queue: &dyn Backend,
    session: &SessionId,
    question: &Question,
    answer: &Answer,
) -> Result<Settled, QueueError> {
    let settled = queue.settle(&question.task, &question.request_id, answer).await?;
    close(queue, session, question).await;
    Ok(settled)
}

/// Gives an answer that arrived at any process, also to a question that another process asked. The answer counts only
/// where this session has the question open.
pub(crate) async fn answer_open(
    queue: &dyn Backend,
    session: &SessionId,
    request_id: &str,
    answer: &Answer,
) -> Result<Settled, QueueError> {
    match queue.open_question(session, request_id).await? {
        Some(question) => settle_open(queue, session, &question, answer).await,
        None => Ok(Settled::NotWaiting),
    }
}

/// Cancels all open questions of a session, because nobody will answer them any more. Each asker gets the cancellation.
pub(crate) async fn cancel_open(queue: &dyn Backend, session: &SessionId, why: &str) -> Result<(), QueueError> {
    for question in queue.open_questions(session).await? {
        settle_open(queue, session, &question, &Answer::cancelled(why)).await?;
    }
    Ok(())
}

/// Removes a question from the open ones of a session. A failure loses nothing: a server that asks the question again
/// finds that no worker waits.
pub(crate) async fn close(queue: &dyn Backend, session: &SessionId, question: &Question) {
    if let Err(error) = queue.close_question(session, &question.request_id).await {
        tracing::debug!(?session, %error, "closing an answered question failed; it stays open until it expires");
    }
}
