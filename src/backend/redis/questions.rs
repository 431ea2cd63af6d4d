//! Questions in Redis: FastMCP's keys, guarded by scripts, and a key that shows that the asker lives.
//!
//! *Keys*. FastMCP's keys have room for one question a task. So every later script compares the request id of the
//! stored question before it writes. The fourth key, the asker, is this crate's own. It expires when its worker stops
//! touching it, and frees the task for the next question
//! (`a_worker_that_was_killed_holds_its_task_up_for_seconds_only`).
//!
//! *FastMCP's answers name no question*. `collect.lua` waits until FastMCP has written both of its keys. A half-written
//! answer would otherwise settle the next question of the task
//! (`fastmcps_answer_which_names_no_question_is_taken_for_the_one_under_way`).

use async_trait::async_trait;
use redis::Value;

use super::RedisBackend;
use super::lua::WAITING;
use crate::backend::Questions;
use crate::failure::QueueError;
use crate::keys::ElicitKeys;
use crate::question::TaskKey;

#[cfg(any(feature = "elicitation", feature = "server"))]
mod answers;
#[cfg(feature = "elicitation")]
mod elicitations;

#[async_trait]
impl Questions for RedisBackend {
    async fn is_waiting(&self, task: &TaskKey, request_id: &str) -> Result<bool, QueueError> {
        let ElicitKeys { request, status, .. } = self.keys.elicit(task);
        let answer: Value =
            self.call("reading the status of a question", &WAITING, &[request, status], &[request_id]).await?;
        Ok(answer == Value::Int(1))
    }
}
