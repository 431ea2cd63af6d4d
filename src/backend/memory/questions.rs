//! Questions in the memory of one process.

use std::time::Duration;

use async_trait::async_trait;

use super::{Change, MemoryBackend};
use crate::backend::{Posed, Questions, Settled};
use crate::failure::QueueError;
use crate::question::{Answer, Question, TaskKey};
use crate::session_id::SessionId;

#[async_trait]
impl Questions for MemoryBackend {
    async fn pose(&self, task: &TaskKey, request_id: &str, _: String, patience: Duration) -> Result<Posed, QueueError> {
        Ok(self.step(|moment| moment.pose(task, request_id, patience)))
    }

    async fn answer_to(&self, task: &TaskKey, request_id: &str) -> Result<Answer, QueueError> {
        let watch = self.shared.watch(Change::Question(task.clone()));
        loop {
            let changed = watch.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.step(|moment| moment.collect(task, request_id)) {
                Some(answer) => return Ok(answer),
                None => changed.await,
            }
        }
    }

    async fn settle(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError> {
        Ok(self.step(|moment| moment.settle_question(task, request_id, answer)))
    }

    async fn withdraw(&self, task: &TaskKey, request_id: &str) -> Result<(), QueueError> {
        self.step(|moment| moment.withdraw(task, request_id));
        Ok(())
    }

    async fn is_waiting(&self, task: &TaskKey, request_id: &str) -> Result<bool, QueueError> {
        Ok(self.step(|moment| moment.is_waiting(task, request_id)))
    }

    async fn open_question(&self, session: &SessionId, request_id: &str) -> Result<Option<Question>, QueueError> {
        Ok(self.step(|moment| moment.open_questions(session).into_iter().find(|open| open.request_id == request_id)))
    }

    async fn close_question(&self, session: &SessionId, request_id: &str) -> Result<(), QueueError> {
        self.step(|moment| moment.close_question(session, request_id));
        Ok(())
    }
}
