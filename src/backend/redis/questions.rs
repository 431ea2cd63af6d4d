//! Questions in Redis: FastMCP's keys, guarded by scripts, and a key by which a living asker is known.

use async_trait::async_trait;
use redis::{RedisResult, Value};

use super::RedisBackend;
use super::lua::{POSE, SETTLE, Script, WAITING, WITHDRAW};
use super::reply;
use super::waits;
use crate::backend::questions::GRACE;
use crate::backend::{Posed, Questions, Settled};
use crate::envelope::Timestamp;
use crate::failure::{QueueError, QueueErrorKind};
use crate::keys::ElicitKeys;
use crate::question::{Answer, Question, TaskKey};
use crate::session_id::SessionId;

mod answers;

impl RedisBackend {
    async fn script(&self, script: &Script, keys: &[&String], arguments: &[&str]) -> RedisResult<Value> {
        let mut invocation = script.prepare_invoke();
        invocation.key(keys).arg(arguments);
        invocation.invoke_async(&mut self.shared.clone()).await
    }

    pub(super) fn bad_reply(&self, doing: &str, error: reply::BadReply) -> QueueError {
        QueueError::new(format!("{doing} at {}", self.shown_url), QueueErrorKind::Refused(error.to_string()))
    }
}

#[async_trait]
impl Questions for RedisBackend {
    async fn pose(
        &self,
        task: &TaskKey,
        request_id: &str,
        request: String,
        patience: std::time::Duration,
    ) -> Result<Posed, QueueError> {
        let ElicitKeys { request: at, response, status, asker } = self.keys.elicit(task);
        let (life, alive) = ((patience + GRACE).as_millis().to_string(), waits::ALIVE.as_millis().to_string());
        let arguments = [request_id, &request, &life, &alive];
        let answer = self
            .script(&POSE, &[&at, &response, &status, &asker], &arguments)
            .await
            .map_err(|e| self.failed("asking a question", e))?;
        match reply::number(answer).map_err(|e| self.bad_reply("asking a question", e))? {
            0 => Ok(Posed::Busy),
            now => Ok(Posed::Done(Timestamp(now))),
        }
    }

    async fn answer_to(&self, task: &TaskKey, request_id: &str) -> Result<Answer, QueueError> {
        Ok(answers::answer_to(&self.waits, self.keys.elicit(task), request_id).await)
    }

    async fn settle(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError> {
        let ElicitKeys { request, response, status, asker: _ } = self.keys.elicit(task);
        let wire = answer.to_wire(request_id);
        let grace = GRACE.as_millis().to_string();
        let answer = self
            .script(&SETTLE, &[&request, &response, &status], &[request_id, &wire, &grace])
            .await
            .map_err(|e| self.failed("answering a question", e))?;
        settled(answer).map_err(|e| self.bad_reply("answering a question", e))
    }

    async fn withdraw(&self, task: &TaskKey, request_id: &str) -> Result<(), QueueError> {
        let ElicitKeys { request, response, status, asker } = self.keys.elicit(task);
        self.script(&WITHDRAW, &[&request, &response, &status, &asker], &[request_id])
            .await
            .map(drop)
            .map_err(|e| self.failed("withdrawing a question", e))
    }

    async fn is_waiting(&self, task: &TaskKey, request_id: &str) -> Result<bool, QueueError> {
        let ElicitKeys { request, status, .. } = self.keys.elicit(task);
        let answer = self
            .script(&WAITING, &[&request, &status], &[request_id])
            .await
            .map_err(|e| self.failed("looking at a question", e))?;
        Ok(answer == Value::Int(1))
    }

    async fn open_questions(&self, session: &SessionId) -> Result<Vec<Question>, QueueError> {
        let open: Vec<Vec<u8>> = redis::cmd("HVALS")
            .arg(self.keys.of(session).questions)
            .query_async(&mut self.shared.for_large_answers())
            .await
            .map_err(|e| self.failed("reading open questions", e))?;
        Ok(open.iter().filter_map(|text| Question::from_open(text)).collect())
    }

    async fn open_question(&self, session: &SessionId, request_id: &str) -> Result<Option<Question>, QueueError> {
        let open: Option<Vec<u8>> = redis::cmd("HGET")
            .arg(self.keys.of(session).questions)
            .arg(request_id)
            .query_async(&mut self.shared.for_large_answers())
            .await
            .map_err(|e| self.failed("reading an open question", e))?;
        Ok(open.and_then(|text| Question::from_open(&text)))
    }

    async fn close_question(&self, session: &SessionId, request_id: &str) -> Result<(), QueueError> {
        redis::cmd("HDEL")
            .arg(self.keys.of(session).questions)
            .arg(request_id)
            .exec_async(&mut self.shared.clone())
            .await
            .map_err(|e| self.failed("closing a question", e))
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
