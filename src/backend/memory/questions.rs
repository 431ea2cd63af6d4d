//! Questions in the memory of one process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::MemoryBackend;
use crate::backend::{BoxFuture, Posed, Questions, Settled};
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

impl Questions for MemoryBackend {
    fn pose<'a>(
        &'a self,
        task: &'a TaskKey,
        request_id: &'a str,
        _: String,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Posed, QueueError>> {
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
        Box::pin(std::future::ready(Ok(posed)))
    }

    fn answer_to<'a>(&'a self, task: &'a TaskKey, request_id: &'a str) -> BoxFuture<'a, Result<Answer, QueueError>> {
        Box::pin(async move {
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
        })
    }

    fn settle<'a>(
        &'a self,
        task: &'a TaskKey,
        request_id: &'a str,
        answer: &'a Answer,
    ) -> BoxFuture<'a, Result<Settled, QueueError>> {
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
        Box::pin(std::future::ready(Ok(settled)))
    }

    fn withdraw<'a>(&'a self, task: &'a TaskKey, request_id: &'a str) -> BoxFuture<'a, Result<(), QueueError>> {
        self.with_tasks(task, |tasks, key, _| {
            if tasks.get(&key).is_some_and(|question| question.request_id == request_id) {
                tasks.remove(&key);
            }
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn is_waiting<'a>(&'a self, task: &'a TaskKey, request_id: &'a str) -> BoxFuture<'a, Result<bool, QueueError>> {
        let waiting = self.with_tasks(task, |tasks, key, _| {
            tasks.get(&key).is_some_and(|question| question.request_id == request_id && question.answer.is_none())
        });
        Box::pin(std::future::ready(Ok(waiting)))
    }

    fn open_questions<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<Vec<Question>, QueueError>> {
        let open = self.store.with(&self.keys.of(session).queue, |list, _| list.questions.clone());
        Box::pin(std::future::ready(Ok(open)))
    }

    fn open_question<'a>(
        &'a self,
        session: &'a SessionId,
        request_id: &'a str,
    ) -> BoxFuture<'a, Result<Option<Question>, QueueError>> {
        let open = self.store.with(&self.keys.of(session).queue, |list, _| {
            list.questions.iter().find(|question| question.request_id == request_id).cloned()
        });
        Box::pin(std::future::ready(Ok(open)))
    }

    fn close_question<'a>(
        &'a self,
        session: &'a SessionId,
        request_id: &'a str,
    ) -> BoxFuture<'a, Result<(), QueueError>> {
        self.store.with(&self.keys.of(session).queue, |list, _| {
            list.questions.retain(|question| question.request_id != request_id);
        });
        Box::pin(std::future::ready(Ok(())))
    }
}
