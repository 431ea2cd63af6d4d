//! Questions in the memory of one process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::MemoryBackend;
use crate::backend::{Posed, Questions, Settled};
use crate::envelope::Timestamp;
use crate::failure::QueueError;
use crate::lock::lock;
use crate::question::{Answer, Question, TaskKey};
use crate::session_id::SessionId;

/// The questions under way, by their tasks.
pub(super) type Tasks = HashMap<String, UnderWay>;

#[derive(Debug)]
pub(super) struct UnderWay {
    request_id: String,
    until: Timestamp,
    answer: Option<Answer>,
    answered: Arc<Notify>,
}

impl MemoryBackend {
    /// Does something with the questions under way as they are now.
    fn with_tasks<T>(&self, task: &TaskKey, act: impl FnOnce(&mut Tasks, String, Timestamp) -> T) -> T {
        let mut tasks = lock(&self.store.tasks);
        let now = self.store.now();
        tasks.retain(|_, question| question.until > now);
        act(&mut tasks, self.keys.elicit(task).request, now)
    }
}

#[async_trait]
impl Questions for MemoryBackend {
    async fn pose(&self, task: &TaskKey, request_id: &str, _: String, patience: Duration) -> Result<Posed, QueueError> {
        let posed = self.with_tasks(task, |tasks, key, now| {
            if tasks.get(&key).is_some_and(|other| other.request_id != request_id) {
                // In one process an asker that dies withdraws its question, so this one lives.
                return Posed::Busy;
            }
            let question = UnderWay {
                request_id: request_id.to_owned(),
                until: now.plus(patience),
                answer: None,
                answered: Arc::default(),
            };
            tasks.insert(key, question);
            Posed::Done(now)
        });
        Ok(posed)
    }

    async fn answer_to(&self, task: &TaskKey, request_id: &str) -> Result<Answer, QueueError> {
        loop {
            let answered = self.with_tasks(task, |tasks, key, _| match tasks.get_mut(&key) {
                Some(question) if question.request_id == request_id => match question.answer.take() {
                    Some(answer) => {
                        tasks.remove(&key);
                        Err(answer)
                    }
                    None => Ok(Some(Arc::clone(&question.answered))),
                },
                _ => Ok(None),
            });
            match answered {
                Err(answer) => return Ok(answer),
                // A permit is kept for whoever comes late, so no answer is missed between the look and this.
                Ok(Some(answered)) => answered.notified().await,
                Ok(None) => std::future::pending().await,
            }
        }
    }

    async fn settle(&self, task: &TaskKey, request_id: &str, answer: &Answer) -> Result<Settled, QueueError> {
        let settled = self.with_tasks(task, |tasks, key, _| match tasks.get_mut(&key) {
            Some(question) if question.answer.is_some() => Settled::NotWaiting,
            Some(question) if question.request_id != request_id => Settled::OtherQuestion,
            Some(question) => {
                question.answer = Some(answer.clone());
                question.answered.notify_one();
                Settled::Done
            }
            None => Settled::NotWaiting,
        });
        Ok(settled)
    }

    async fn withdraw(&self, task: &TaskKey, request_id: &str) -> Result<(), QueueError> {
        self.with_tasks(task, |tasks, key, _| {
            if tasks.get(&key).is_some_and(|question| question.request_id == request_id) {
                tasks.remove(&key);
            }
        });
        Ok(())
    }

    async fn is_waiting(&self, task: &TaskKey, request_id: &str) -> Result<bool, QueueError> {
        let waiting = self.with_tasks(task, |tasks, key, _| {
            tasks.get(&key).is_some_and(|question| question.request_id == request_id && question.answer.is_none())
        });
        Ok(waiting)
    }

    async fn open_questions(&self, session: &SessionId) -> Result<Vec<Question>, QueueError> {
        let open = self.store.with(&self.keys.of(session).queue, |list, _| list.questions.clone());
        Ok(open)
    }

    async fn open_question(&self, session: &SessionId, request_id: &str) -> Result<Option<Question>, QueueError> {
        let open = self.store.with(&self.keys.of(session).queue, |list, _| {
            list.questions.iter().find(|question| question.request_id == request_id).cloned()
        });
        Ok(open)
    }

    async fn close_question(&self, session: &SessionId, request_id: &str) -> Result<(), QueueError> {
        self.store.with(&self.keys.of(session).queue, |list, _| {
            list.questions.retain(|question| question.request_id != request_id);
        });
        Ok(())
    }
}
