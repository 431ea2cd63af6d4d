//! Part of the queue port for the worker that asks.

use std::time::Duration;

use async_trait::async_trait;

use crate::envelope::Timestamp;
use crate::failure::QueueError;
use crate::question::{Answer, TaskKey};

/// Reason of the cancellation that a worker reads when its task asks another question meanwhile.
pub(crate) const TAKEN_OVER: &str = "another question of the same task took its place";

/// Outcome of [`Elicitations::pose`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posed {
    /// The question is posed since this moment of the queue's clock.
    Done(Timestamp),
    /// The task has another open question, whose asker lives.
    Busy,
}

/// Questions as the worker poses and ends them.
#[async_trait]
pub trait Elicitations {
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

    /// Ends a question without an answer, if it is still the question of its task.
    async fn withdraw(&self, task: &TaskKey, request_id: &str) -> Result<(), QueueError>;
}
