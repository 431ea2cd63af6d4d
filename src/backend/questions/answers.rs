//! Part of the queue port for those who answer a question, or close it.

use std::time::Duration;

use async_trait::async_trait;

use crate::failure::QueueError;
use crate::question::{Answer, Question, TaskKey};
use crate::session_id::SessionId;

/// Time for which a question outlives its patience. A late answer, or a late worker, still finds the question then.
pub const GRACE: Duration = Duration::from_secs(60);

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

/// Answers to questions, and the open questions of a session.
#[async_trait]
pub trait Answers {
    /// Gives an answer to the question with this id.
    async fn settle(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError>;

    /// Returns one of the open questions of a session.
    async fn open_question(&self, session: &SessionId, request_id: &str) -> Result<Option<Question>, QueueError>;

    /// Removes a question from the open questions of a session.
    async fn close_question(&self, session: &SessionId, request_id: &str) -> Result<(), QueueError>;
}
