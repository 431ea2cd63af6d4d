//! Questions that tasks ask.

use std::collections::HashMap;
use std::time::Duration;

use super::{Change, Moment};
use crate::backend::questions::TAKEN_OVER;
use crate::backend::{GRACE, Posed, Settled};
use crate::envelope::Timestamp;
use crate::question::{Answer, TaskKey};

/// Questions that tasks ask, one per task.
pub(super) type Tasks = HashMap<TaskKey, Asked>;

/// Question of a task.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    request_id: String,
    until: Timestamp,
    /// Answer that the worker has not collected yet.
    answer: Option<Answer>,
}

impl Moment<'_> {
    /// Returns the question of a task, if it has not expired.
    fn asked(&mut self, task: &TaskKey) -> Option<&mut Asked> {
        let now = self.now;
        self.store.tasks.retain(|_, asked| asked.until > now);
        self.store.tasks.get_mut(task)
    }

    fn is_asked(&mut self, task: &TaskKey, request_id: &str) -> bool {
        self.asked(task).is_some_and(|asked| asked.request_id == request_id)
    }

    /// Poses a question, unless the task has another one.
    pub fn pose(&mut self, task: &TaskKey, request_id: &str, patience: Duration) -> Posed {
        // In one process an asker that dies withdraws its question, so the asker of the other question lives.
        if self.asked(task).is_some_and(|other| other.request_id != request_id) {
            return Posed::Busy;
        }
        let until = self.now.plus(patience + GRACE);
        self.store.tasks.insert(task.clone(), Asked { request_id: request_id.to_owned(), until, answer: None });
        self.store.changes.push(Change::Question(task.clone()));
        Posed::Done(self.now)
    }

    /// Returns the answer to a question, if there is one, and ends the question with it.
    pub fn collect(&mut self, task: &TaskKey, request_id: &str) -> Option<Answer> {
        let asked = self.asked(task)?;
        if asked.request_id != request_id {
            return Some(Answer::cancelled(TAKEN_OVER));
        }
        let answer = asked.answer.take()?;
        self.store.tasks.remove(task);
        Some(answer)
    }

    /// Gives an answer to a question, if its worker waits for one.
    pub fn settle_question(&mut self, task: &TaskKey, request_id: &str, answer: &Answer) -> Settled {
        match self.asked(task) {
            Some(asked) if asked.answer.is_some() => return Settled::NotWaiting,
            Some(asked) if asked.request_id != request_id => return Settled::OtherQuestion,
            Some(asked) => asked.answer = Some(answer.clone()),
            None => return Settled::NotWaiting,
        }
        self.store.changes.push(Change::Question(task.clone()));
        Settled::Done
    }

    /// Ends a question without an answer, if it is still the question of its task.
    pub fn withdraw(&mut self, task: &TaskKey, request_id: &str) {
        if self.is_asked(task, request_id) {
            self.store.tasks.remove(task);
            self.store.changes.push(Change::Question(task.clone()));
        }
    }

    /// Returns whether a worker waits for the answer to the question with this id.
    pub fn is_waiting(&mut self, task: &TaskKey, request_id: &str) -> bool {
        self.asked(task).is_some_and(|asked| asked.request_id == request_id && asked.answer.is_none())
    }
}
