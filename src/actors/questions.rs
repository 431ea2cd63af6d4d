//! Asking a session's client the questions of background tasks: beside the deliveries, a few at a time, until each is
//! answered, withdrawn, or somebody else's to ask.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::task::JoinHandle;
use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::clock;
use super::guarded::text_of;
use super::post::{Post, Settling};
use crate::backend::questions::{close, settle_open};
use crate::envelope::Timestamp;
use crate::question::{Answer, Question};
use crate::retry::Backoff;
use crate::session::{AskError, SessionState};

/// How many questions one client is asked at the same time. The others wait for their turn.
const AT_ONCE: usize = 16;

/// How soon a client that was away, or a queue that failed, is tried again.
const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(5) };

/// How long after its deadline a question is given up. Its worker, if it lives, keeps its own time, and tells the client;
/// whoever gives it up first would close it before that.
const LATE: Duration = Duration::from_secs(2);

/// The questions that a session's client is being asked.
pub(super) struct Asking {
    desk: Desk,
    tasks: HashMap<String, Task>,
}

/// One of them.
struct Task {
    handle: JoinHandle<()>,
    /// Whether it has an answer, which is on its way to the worker.
    has_answer: Rc<Cell<bool>>,
}

/// What one question needs.
#[derive(Clone)]
struct Desk {
    post: Arc<Post>,
    turns: Arc<Semaphore>,
}

impl Asking {
    pub(super) fn new(post: Arc<Post>) -> Self {
        let desk = Desk { post, turns: Arc::new(Semaphore::new(AT_ONCE)) };
        Self { desk, tasks: HashMap::new() }
    }

    /// Asks those that are not being asked.
    pub(super) fn ask(&mut self, questions: Vec<Question>, (clock, read): (Timestamp, Instant)) {
        self.tasks.retain(|_, task| !task.handle.is_finished());
        for question in questions {
            let deadline = read + Timestamp::from_system(question.deadline).since(clock) + LATE;
            let desk = self.desk.clone();
            self.tasks.entry(question.request_id.clone()).or_insert_with(|| {
                let has_answer = Rc::new(Cell::new(false));
                let answered = Rc::clone(&has_answer);
                let handle = actix_rt::spawn(async move { desk.ask(&question, deadline, &answered).await });
                Task { handle, has_answer }
            });
        }
    }

    /// Drops them. They stay open questions of the queue. Those that the user has answered go on: a client may well leave
    /// behind its answer, and must not be asked again for that.
    pub(super) fn stop(&mut self) {
        self.tasks.retain(|_, task| {
            let goes_on = task.has_answer.get();
            if !goes_on {
                task.handle.abort();
            }
            goes_on
        });
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Desk {
    async fn ask(&self, question: &Question, deadline: Instant, has_answer: &Cell<bool>) {
        let answer = match tokio::time::timeout_at(deadline.into(), self.answer(question)).await {
            Ok(Some(answer)) => answer.within(self.post.common.config.message_max_bytes()),
            // Nobody waits for it any more.
            Ok(None) => return close(&*self.post.common.queue, &self.post.session_id, question).await,
            Err(_) => Answer::cancelled("no answer came in time"),
        };
        has_answer.set(true);
        let _settling = Settling::count(&self.post);
        let patience = deadline.saturating_duration_since(clock::now()).max(BACKOFF.max);
        // The user has answered once and is not asked again, so this is tried for as long as it is of use.
        if tokio::time::timeout(patience, self.settle(question, &answer)).await.is_err() {
            tracing::warn!(session = ?self.post.session_id, "an answer was not given to its worker in time");
        }
    }

    /// The client's answer, however often it goes away before it gives one; `None` where nobody waits for it any more.
    async fn answer(&self, question: &Question) -> Option<Answer> {
        let panicked =
            |panic: &(dyn Any + Send)| Answer::cancelled(format!("the session panicked: {}", text_of(panic)));
        let mut presence = match catch_unwind(AssertUnwindSafe(|| self.post.session.presence())) {
            Ok(presence) => presence,
            Err(panic) => return Some(panicked(&*panic)),
        };
        for failures in 0.. {
            let seen = presence.now();
            let turn = self.turns.acquire().await.ok()?;
            match self.post.common.queue.is_waiting(&question.task, &question.request_id).await {
                Ok(false) => return None,
                Ok(true) => {
                    let elicit = AssertUnwindSafe(async { self.post.session.elicit(question).await }).catch_unwind();
                    let elicited = tokio::select! {
                        biased;
                        elicited = elicit => elicited,
                        () = self.until_over(question) => return None,
                    };
                    match elicited {
                        Ok(Ok(answer)) => return Some(answer),
                        Ok(Err(AskError::Impossible(why))) => return Some(Answer::cancelled(why)),
                        Ok(Err(AskError::NotReady(why))) => {
                            tracing::debug!(session = ?self.post.session_id, why, "a question waits for its client");
                        }
                        Err(panic) => return Some(panicked(&*panic)),
                    }
                }
                Err(error) => tracing::warn!(session = ?self.post.session_id, %error, "a question waits for the queue"),
            }
            drop(turn);
            let pause = tokio::time::sleep(BACKOFF.pause(failures, fastrand::f64()));
            tokio::select! {
                () = presence.changed_from(seen) => {}
                () = pause, if matches!(seen, SessionState::Ready { .. }) => {}
            }
        }
        None
    }

    /// Ends when nobody waits for the answer any more: it was given at another server or by another way, or is not wanted
    /// now. The client may never say so here, and would keep its turn until the deadline.
    async fn until_over(&self, question: &Question) {
        for looks in 0.. {
            tokio::time::sleep(BACKOFF.pause(looks, fastrand::f64())).await;
            if let Ok(false) = self.post.common.queue.is_waiting(&question.task, &question.request_id).await {
                return;
            }
        }
    }

    async fn settle(&self, question: &Question, answer: &Answer) {
        for failures in 0.. {
            match settle_open(&*self.post.common.queue, &self.post.session_id, question, answer).await {
                Ok(settled) => {
                    tracing::debug!(session = ?self.post.session_id, ?settled, "a question was answered");
                    return;
                }
                Err(error) => {
                    tracing::warn!(session = ?self.post.session_id, %error, "an answer waits for the queue");
                    tokio::time::sleep(BACKOFF.pause(failures, fastrand::f64())).await;
                }
            }
        }
    }
}
