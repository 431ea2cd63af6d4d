//! Answers to questions in Redis, and the open questions of a session.

use async_trait::async_trait;
use redis::Value;

use crate::backend::redis::lua::SETTLE;
use crate::backend::redis::{RedisBackend, reply};
use crate::backend::sealing::{answer_text, read_open_question};
use crate::backend::{Answers, GRACE, Settled};
use crate::failure::QueueError;
use crate::keys::ElicitKeys;
use crate::question::{Answer, Question, TaskKey};
use crate::session_id::SessionId;

#[async_trait]
impl Answers for RedisBackend {
    async fn settle(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError> {
        const DOING: &str = "answering a question";
        let ElicitKeys { request, response, status, asker: _ } = self.keys.elicit(task);
        let keys = self.config.sealing_keys();
        // Only a process with keys can seal, so only such a process reads whether the question is sealed.
        let stored: Option<Vec<u8>> = match keys {
            Some(_) => self.query_large(DOING, redis::cmd("GET").arg(&request)).await?,
            None => None,
        };
        let wire = answer_text(keys, &request, stored.as_deref(), request_id, answer);
        let (wire, grace) = (wire.map_err(|e| self.failed(DOING, e))?, GRACE.as_millis().to_string());
        let answer = self.call(DOING, &SETTLE, &[request, response, status], &[request_id, &wire, &grace]).await?;
        settled(answer).map_err(|e| self.failed(DOING, e))
    }

    async fn open_question(&self, session: &SessionId, request_id: &str) -> Result<Option<Question>, QueueError> {
        let (queue, keys) = (self.keys.of(session), self.config.sealing_keys());
        let get = redis::cmd("HGET").arg(queue.questions).arg(request_id).take();
        let open: Option<Vec<u8>> = self.query_large("reading an open question", get).await?;
        Ok(open.and_then(|text| read_open_question(keys, &queue.queue, &text)))
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
