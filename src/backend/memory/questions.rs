//! Questions in the memory of one process.

use async_trait::async_trait;

use super::MemoryBackend;
use crate::backend::{Answers, Questions, Settled};
use crate::failure::QueueError;
use crate::question::{Answer, Question, TaskKey};
use crate::session_id::SessionId;

#[cfg(feature = "elicitation")]
mod elicitations;

#[async_trait]
impl Questions for MemoryBackend {
    async fn is_waiting(&self, task: &TaskKey, request_id: &str) -> Result<bool, QueueError> {
        Ok(self.step(|moment| moment.is_waiting(task, request_id)))
    }
}

#[async_trait]
impl Answers for MemoryBackend {
    async fn settle(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError> {
        Ok(self.step(|moment| moment.settle_question(task, request_id, answer)))
    }

    async fn open_question(&self, session: &SessionId, request_id: &str) -> Result<Option<Question>, QueueError> {
        Ok(self.step(|moment| moment.open_questions(session).into_iter().find(|open| open.request_id == request_id)))
    }

    async fn close_question(&self, session: &SessionId, request_id: &str) -> Result<(), QueueError> {
        self.step(|moment| moment.close_question(session, request_id));
        Ok(())
    }
}
