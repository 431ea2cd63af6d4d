//! Questions in the memory of one process, as a worker poses and ends them.

use std::time::Duration;

use async_trait::async_trait;

use crate::backend::memory::{Change, MemoryBackend};
use crate::backend::{Elicitations, Posed};
use crate::failure::QueueError;
use crate::question::{Answer, TaskKey};

#[async_trait]
impl Elicitations for MemoryBackend {
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

    async fn withdraw(&self, task: &TaskKey, request_id: &str) -> Result<(), QueueError> {
        self.step(|moment| moment.withdraw(task, request_id));
        Ok(())
    }
}
