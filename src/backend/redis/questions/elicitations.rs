//! Questions in Redis, as a worker poses and ends them.

use async_trait::async_trait;

use crate::backend::redis::lua::{POSE, WITHDRAW};
use crate::backend::redis::{RedisBackend, key_watcher, reply};
use crate::backend::sealing::request_text;
use crate::backend::{Elicitations, GRACE, Posed};
use crate::envelope::Timestamp;
use crate::failure::{QueueError, QueueErrorKind};
use crate::keys::ElicitKeys;
use crate::question::{Answer, TaskKey};

mod wait;

#[async_trait]
impl Elicitations for RedisBackend {
    async fn pose(
        &self,
        task: &TaskKey,
        request_id: &str,
        request: String,
        patience: std::time::Duration,
    ) -> Result<Posed, QueueError> {
        const DOING: &str = "asking a question";
        let ElicitKeys { request: at, response, status, asker } = self.keys.elicit(task);
        let (life, alive) = ((patience + GRACE).as_millis().to_string(), key_watcher::ALIVE.as_millis().to_string());
        let request = request_text(self.config.sealing_keys(), &at, request_id, request);
        let request = request.map_err(|e| self.failed(DOING, e))?;
        let arguments = [request_id, &request, &life, &alive];
        let answer = self.call(DOING, &POSE, &[at, response, status, asker], &arguments).await?;
        match reply::number(answer).map_err(|e| self.failed(DOING, e))? {
            0 => Ok(Posed::Busy),
            now => Ok(Posed::Done(Timestamp(now))),
        }
    }

    async fn answer_to(&self, task: &TaskKey, request_id: &str) -> Result<Answer, QueueError> {
        let keys = self.config.sealing_keys();
        let answer = wait::answer_to(&self.key_watcher, self.keys.elicit(task), keys, request_id).await;
        answer.map_err(|why| {
            let why = QueueErrorKind::Sealing(format!("the answer cannot be used: {why}"));
            self.failed("reading the answer to a question", why)
        })
    }

    async fn withdraw(&self, task: &TaskKey, request_id: &str) -> Result<(), QueueError> {
        let ElicitKeys { request, response, status, asker } = self.keys.elicit(task);
        self.call("withdrawing a question", &WITHDRAW, &[request, response, status, asker], &[request_id]).await
    }
}
