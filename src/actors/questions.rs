//! Asking a session's client the questions of background tasks: beside the deliveries, a few at a time, until each is
//! answered, withdrawn, or somebody else's to ask.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_rt::task::JoinHandle;
use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::session::text_of;
use crate::envelope::Timestamp;
use crate::error::AskError;
use crate::question::{Answer, Question};
use crate::queue::Queue;
use crate::retry::Backoff;
use crate::session::{McpSession, SessionState};
use crate::session_id::SessionId;

/// How many questions one client is asked at the same time. The others wait for their turn.
const AT_ONCE: usize = 16;

/// How soon a client that was away, or a queue that failed, is tried again.
const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(5) };

/// The questions that a session's client is being asked.
pub(super) struct Asking {
    desk: Desk,
    tasks: HashMap<String, JoinHandle<()>>,
}

/// What one question needs.
#[derive(Clone)]
struct Desk {
    session_id: SessionId,
    session: Arc<dyn McpSession>,
    queue: Arc<dyn Queue>,
    turns: Arc<Semaphore>,
}

impl Asking {
    pub(super) fn new(session_id: &SessionId, session: &Arc<dyn McpSession>, queue: &Arc<dyn Queue>) -> Self {
        let desk = Desk {
            session_id: session_id.clone(),
            session: Arc::clone(session),
            queue: Arc::clone(queue),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        };
        Self { desk, tasks: HashMap::new() }
    }

    /// Asks those that are not being asked.
    pub(super) fn ask(&mut self, questions: Vec<Question>, (clock, read): (Timestamp, Instant)) {
        self.tasks.retain(|_, task| !task.is_finished());
        for question in questions {
            let deadline = read + question.deadline.since(clock);
            let desk = self.desk.clone();
            self.tasks
                .entry(question.request_id.clone())
                .or_insert_with(|| actix_rt::spawn(async move { desk.ask(&question, deadline).await }));
        }
    }

    /// Drops them. They stay open questions of the queue.
    pub(super) fn stop(&mut self) {
        for (_, task) in self.tasks.drain() {
            task.abort();
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Desk {
    async fn ask(&self, question: &Question, deadline: Instant) {
        let answer = match tokio::time::timeout_at(deadline.into(), self.answer(question)).await {
            Ok(Some(answer)) => answer,
            // Nobody waits for it any more.
            Ok(None) => return self.close(question).await,
            Err(_) => Answer::cancelled("no answer came in time"),
        };
        let patience = deadline.saturating_duration_since(Instant::now()).max(BACKOFF.max);
        // The user has answered once and is not asked again, so this is tried for as long as it is of use.
        if tokio::time::timeout(patience, self.settle(question, &answer)).await.is_err() {
            tracing::warn!(session = %self.session_id, "an answer was not given to its worker in time");
        }
    }

    /// The client's answer, however often it goes away before it gives one; `None` where nobody waits for it any more.
    async fn answer(&self, question: &Question) -> Option<Answer> {
        let mut presence = self.session.presence();
        for failures in 0.. {
            let seen = presence.now();
            let turn = self.turns.acquire().await.ok()?;
            match self.queue.is_waiting(&question.task, &question.request_id).await {
                Ok(false) => return None,
                Ok(true) => {
                    match AssertUnwindSafe(async { self.session.elicit(question).await }).catch_unwind().await {
                        Ok(Ok(answer)) => return Some(answer),
                        Ok(Err(AskError::Impossible(why))) => return Some(Answer::cancelled(why)),
                        Ok(Err(AskError::NotReady(why))) => {
                            tracing::debug!(session = %self.session_id, why, "a question waits for its client");
                        }
                        Err(panic) => {
                            let why = format!("the session panicked: {}", text_of(&*panic));
                            return Some(Answer::cancelled(why));
                        }
                    }
                }
                Err(error) => tracing::warn!(session = %self.session_id, %error, "a question waits for the queue"),
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

    async fn settle(&self, question: &Question, answer: &Answer) {
        for failures in 0.. {
            match self.queue.settle(&question.task, &question.request_id, answer).await {
                Ok(settled) => {
                    tracing::debug!(session = %self.session_id, ?settled, "a question was answered");
                    return self.close(question).await;
                }
                Err(error) => {
                    tracing::warn!(session = %self.session_id, %error, "an answer waits for the queue");
                    tokio::time::sleep(BACKOFF.pause(failures, fastrand::f64())).await;
                }
            }
        }
    }

    async fn close(&self, question: &Question) {
        if let Err(error) = self.queue.close_question(&self.session_id, &question.request_id).await {
            // Whoever asks it again finds that nobody waits for it.
            tracing::debug!(session = %self.session_id, %error, "an answered question stays open");
        }
    }
}
