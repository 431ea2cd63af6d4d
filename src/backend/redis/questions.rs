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
use super::key_watcher;
use super::lua::{POSE, SETTLE, WAITING, WITHDRAW};
use super::reply;
use crate::backend::questions::GRACE;
use crate::backend::{Posed, Questions, Settled};
use crate::envelope::Timestamp;
use crate::failure::QueueError;
use crate::keys::ElicitKeys;
use crate::question::{Answer, Question, TaskKey};
use crate::session_id::SessionId;

mod answers;

#[async_trait]
impl Questions for RedisBackend {
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
        let arguments = [request_id, &request, &life, &alive];
        let answer = self.call(DOING, &POSE, &[at, response, status, asker], &arguments).await?;
        match reply::number(answer).map_err(|e| self.failed(DOING, e))? {
            0 => Ok(Posed::Busy),
            now => Ok(Posed::Done(Timestamp(now))),
        }
    }

    async fn answer_to(&self, task: &TaskKey, request_id: &str) -> Result<Answer, QueueError> {
        Ok(answers::answer_to(&self.key_watcher, self.keys.elicit(task), request_id).await)
    }

    async fn settle(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError> {
        const DOING: &str = "answering a question";
        let ElicitKeys { request, response, status, asker: _ } = self.keys.elicit(task);
        let (wire, grace) = (answer.to_wire(request_id), GRACE.as_millis().to_string());
        let answer = self.call(DOING, &SETTLE, &[request, response, status], &[request_id, &wire, &grace]).await?;
        settled(answer).map_err(|e| self.failed(DOING, e))
    }

    async fn withdraw(&self, task: &TaskKey, request_id: &str) -> Result<(), QueueError> {
        let ElicitKeys { request, response, status, asker } = self.keys.elicit(task);
        self.call("withdrawing a question", &WITHDRAW, &[request, response, status, asker], &[request_id]).await
    }

    async fn is_waiting(&self, task: &TaskKey, request_id: &str) -> Result<bool, QueueError> {
        let ElicitKeys { request, status, .. } = self.keys.elicit(task);
        let answer: Value =
            self.call("reading the status of a question", &WAITING, &[request, status], &[request_id]).await?;
        Ok(answer == Value::Int(1))
    }

    async fn open_question(&self, session: &SessionId, request_id: &str) -> Result<Option<Question>, QueueError> {
        let questions = self.keys.of(session).questions;
        let open: Option<Vec<u8>> =
            self.query_large("reading an open question", redis::cmd("HGET").arg(questions).arg(request_id)).await?;
        Ok(open.and_then(|text| Question::from_open(&text)))
    }

    async fn close_question(&self, session: &SessionId, request_id: &str) -> Result<(), QueueError> {
        let questions = self.keys.of(session).questions;
        self.query("closing a question", redis::cmd("HDEL").arg(questions).arg(request_id)).await
    }
}

/// Reads whether an answer was accepted.
fn settled(value: Value) -> Result<Settled, reply::BadReply> {
    Ok(match reply::bytes(value)?.as_slice() {
        b"done" => Settled::Done,
        b"other question" => Settled::OtherQuestion,
        _ => Settled::NotWaiting,
    })
}
