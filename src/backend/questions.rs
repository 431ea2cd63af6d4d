//! The part of the queue port that carries questions and answers between a worker and whoever asks its user.
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

/// Time for which a question outlives its patience, so that an answer or a worker that is a little late still finds it.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// Reason of the cancellation that a worker reads whose task asks another question by now.
pub(crate) const TAKEN_OVER: &str = "another question of the same task took its place";

/// What became of [`Questions::pose`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posed {
    /// It is under way since this moment of the queue's clock.
    Done(Timestamp),
    /// Another question of this task is, and whoever asked it lives.
    Busy,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Settled {
    /// The worker gets it.
    Done,
    /// Nobody waits for it: it was answered before, withdrawn, or its time is over; or the task is of another scope.
    NotWaiting,
    /// The task's question is another one by now.
    OtherQuestion,
}

/// Questions of tasks, one at a time for each task, as FastMCP's keys have room for one.
#[async_trait]
pub trait Questions {
    /// Puts a question under way, for `patience` at most, and clears what an earlier one left. `request` is the question as
    /// FastMCP keeps it.
    async fn pose(
        &self,
        task: &TaskKey,
        request_id: &str,
        request: String,
        patience: Duration,
    ) -> Result<Posed, QueueError>;

    /// Waits for the answer to a question under way, for ever, and ends the question with it.
    ///
    /// # Cancellation
    /// The question stays under way.
    async fn answer_to(&self, task: &TaskKey, request_id: &str) -> Result<Answer, QueueError>;

    /// Gives an answer.
    async fn settle(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError>;

    /// Ends a question without an answer, if it is still under way.
    async fn withdraw(&self, task: &TaskKey, request_id: &str) -> Result<(), QueueError>;

    /// Whether a worker waits for the answer to this very question.
    async fn is_waiting(&self, task: &TaskKey, request_id: &str) -> Result<bool, QueueError>;

    /// Returns one of the open questions of a session.
    async fn open_question(&self, session: &SessionId, request_id: &str) -> Result<Option<Question>, QueueError>;

    /// It is no longer one of them.
    async fn close_question(&self, session: &SessionId, request_id: &str) -> Result<(), QueueError>;
}

/// Gives an answer to an open question of a session, which is then none any more.
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

/// Gives an answer that arrived anywhere to a question that may have been asked by another process. It must be one that
/// this very session was asked, and has open.
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

/// Nobody will answer a session's open questions any more: whoever asked is told.
pub(crate) async fn cancel_open(queue: &dyn Backend, session: &SessionId, why: &str) -> Result<(), QueueError> {
    for question in queue.open_questions(session).await? {
        settle_open(queue, session, &question, &Answer::cancelled(why)).await?;
    }
    Ok(())
}

/// Takes a question out of a session's open ones. Where that fails nothing is lost by it: whoever asks it again finds that
/// nobody waits for it.
pub(crate) async fn close(queue: &dyn Backend, session: &SessionId, question: &Question) {
    if let Err(error) = queue.close_question(session, &question.request_id).await {
        tracing::debug!(?session, %error, "an answered question stays open");
    }
}
