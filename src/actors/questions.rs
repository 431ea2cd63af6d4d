//! Questions of background tasks to a session's client, beside the deliveries.
//!
//! A client is asked a few questions at a time. Each stays until it is answered or withdrawn, or until another owner
//! asks it.
//!
//! *Who asks*. Only the owner's session asks, and stops when another owner may ask: otherwise a client with two streams
//! would be asked twice at the same time. A question without an answer stays among the open questions of the queue, and
//! the next owner asks it (`a_server_killed_while_it_asks_is_followed_by_another_and_the_worker_gets_its_answer`).
//!
//! *An answer is never lost by a stop*. Its task continues until the answer is stored, and the subscriber's end waits a
//! short time for it (`Settling`). A user is not asked twice because a server ended at that moment
//! (`a_subscriber_ends_when_what_it_has_for_workers_is_given`).
//!
//! *Whether anybody still waits* is read before a question is asked, and from time to time while the client thinks. The
//! worker may be dead, or may have its answer by another way
//! (`at_most_sixteen_are_asked_at_once_and_deliveries_go_on`).

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
use super::isolated_session::text_of;
use super::subscriber_context::{Settling, SubscriberContext};
use crate::backend::relay::{close, settle_open};
use crate::envelope::Timestamp;
use crate::metrics::{self, Level};
use crate::question::{Answer, Question};
use crate::retry::Backoff;
use crate::session::{AskError, SessionState};
use crate::story;

/// Number of questions that one client is asked at the same time. Further questions wait until one of these ends.
const AT_ONCE: usize = 16;

/// Pauses before a client that was away, or a queue that failed, is tried again.
const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(5) };

/// Time after its deadline at which a question is given up. A living worker ends the question at the deadline itself
/// and notifies the client. Giving up earlier would close the question before the worker does.
const DEADLINE_GRACE: Duration = Duration::from_secs(2);

/// All questions that a session's client is being asked.
pub(super) struct QuestionTasks {
    question_context: QuestionContext,
    /// Tasks that ask, by the request ids of their questions.
    tasks: HashMap<String, Task>,
}

/// Task that asks one question.
struct Task {
    /// Handle by which the task is aborted when another owner may ask the question.
    handle: JoinHandle<()>,
    /// Set once the question has an answer, which is then on its way to the worker.
    has_answer: Rc<Cell<bool>>,
}

/// Context of the task of one question.
#[derive(Clone)]
struct QuestionContext {
    context: Arc<SubscriberContext>,
    /// Slots for questions, [`AT_ONCE`] at the same time.
    slots: Arc<Semaphore>,
}

impl QuestionTasks {
    pub(super) fn new(context: Arc<SubscriberContext>) -> Self {
        let question_context = QuestionContext { context, slots: Arc::new(Semaphore::new(AT_ONCE)) };
        Self { question_context, tasks: HashMap::new() }
    }

    /// Starts a task for each question that has none.
    pub(super) fn ask(&mut self, questions: Vec<Question>, (clock, read): (Timestamp, Instant)) {
        self.tasks.retain(|_, task| !task.handle.is_finished());
        for question in questions {
            let deadline = read + Timestamp::from_system(question.deadline).since(clock) + DEADLINE_GRACE;
            let question_context = self.question_context.clone();
            self.tasks.entry(question.request_id.clone()).or_insert_with(|| {
                let has_answer = Rc::new(Cell::new(false));
                let answered = Rc::clone(&has_answer);
                let handle = actix_rt::spawn(async move { question_context.ask(&question, deadline, &answered).await });
                Task { handle, has_answer }
            });
        }
    }

    /// Drops the tasks whose questions have no answer. Those questions stay open questions of the queue.
    ///
    /// A task with an answer continues: a client may disconnect right after its answer, and must not be asked again
    /// because of that.
    pub(super) fn stop(&mut self) {
        self.tasks.retain(|_, task| {
            let is_kept = task.has_answer.get();
            if !is_kept {
                task.handle.abort();
            }
            is_kept
        });
    }
}

impl Drop for QuestionTasks {
    fn drop(&mut self) {
        self.stop();
    }
}

impl QuestionContext {
    async fn ask(&self, question: &Question, deadline: Instant, has_answer: &Cell<bool>) {
        let _open = Level::of(&metrics::QUESTIONS_OPEN);
        let answer = match tokio::time::timeout_at(deadline.into(), self.ask_until_answered(question)).await {
            Ok(Some(answer)) => answer.within(self.context.common.config.message_max_bytes()),
            // Nobody waits for the answer any more.
            Ok(None) => return close(&*self.context.common.queue, &self.context.session_id, question).await,
            Err(_) => Answer::cancelled("no answer came in time"),
        };
        story::answered(&self.context.session_id, &question.request_id, answer.action());
        has_answer.set(true);
        let _settling = Settling::count(&self.context);
        let patience = deadline.saturating_duration_since(clock::now()).max(BACKOFF.max);
        // The user has answered once and is not asked again, so the answer is sent until it is of no more use.
        if tokio::time::timeout(patience, self.record_answer(question, &answer)).await.is_err() {
            tracing::warn!(session = ?self.context.session_id, "recording an answer failed until its worker's time was over; the answer is lost");
        }
    }

    /// Asks the client until an answer comes, however often the client disconnects meanwhile. Returns `None` where
    /// nobody waits for the answer any more.
    async fn ask_until_answered(&self, question: &Question) -> Option<Answer> {
        let panicked =
            |panic: &(dyn Any + Send)| Answer::cancelled(format!("the session panicked: {}", text_of(panic)));
        // The relay puts the reason into the answer.
        if let Some(why) = question.refused() {
            tracing::warn!(session = ?self.context.session_id, %why, "an open question cannot be opened; it is cancelled");
            return Some(Answer::cancelled(why.to_string()));
        }
        let mut presence = match catch_unwind(AssertUnwindSafe(|| self.context.session.presence())) {
            Ok(presence) => presence,
            Err(panic) => return Some(panicked(&*panic)),
        };
        for failures in 0.. {
            let seen = presence.now();
            let slot = self.slots.acquire().await.ok()?;
            match self.context.common.queue.is_waiting(&question.task, &question.request_id).await {
                Ok(false) => return None,
                Ok(true) => {
                    metrics::QUESTIONS_ASKED.count(1);
                    story::asked(&self.context.session_id, question);
                    let elicit = AssertUnwindSafe(async { self.context.session.elicit(question).await }).catch_unwind();
                    let elicited = tokio::select! {
                        biased;
                        elicited = elicit => elicited,
                        () = self.until_unawaited(question) => return None,
                    };
                    match elicited {
                        Ok(Ok(answer)) => return Some(answer),
                        Ok(Err(AskError::Impossible(why))) => return Some(Answer::cancelled(why)),
                        Ok(Err(AskError::NotReady(why))) => {
                            tracing::debug!(session = ?self.context.session_id, why,
                                "asking a client failed; the question waits for the client");
                        }
                        Err(panic) => return Some(panicked(&*panic)),
                    }
                }
                Err(error) => {
                    tracing::warn!(session = ?self.context.session_id, %error, "reading whether a worker waits failed; the question is asked later")
                }
            }
            drop(slot);
            let pause = tokio::time::sleep(BACKOFF.pause(failures, fastrand::f64()));
            tokio::select! {
                () = presence.changed_from(seen) => {}
                () = pause, if matches!(seen, SessionState::Connected { .. }) => {}
            }
        }
        None
    }

    /// Waits until nobody waits for the answer any more: another server or another way has brought an answer, or the
    /// question was withdrawn.
    ///
    /// The client may never end such a request here. Without this watch the request would hold its slot until the
    /// deadline.
    async fn until_unawaited(&self, question: &Question) {
        for checks in 0.. {
            tokio::time::sleep(BACKOFF.pause(checks, fastrand::f64())).await;
            if let Ok(false) = self.context.common.queue.is_waiting(&question.task, &question.request_id).await {
                return;
            }
        }
    }

    /// Records the answer for its worker. A queue that fails is tried again without end: the caller sets the limit.
    async fn record_answer(&self, question: &Question, answer: &Answer) {
        for failures in 0.. {
            match settle_open(&*self.context.common.queue, &self.context.session_id, question, answer).await {
                Ok(settled) => {
                    tracing::debug!(session = ?self.context.session_id, ?settled, "a question was answered");
                    return;
                }
                Err(error) => {
                    tracing::warn!(session = ?self.context.session_id, %error, "recording an answer failed; trying again");
                    tokio::time::sleep(BACKOFF.pause(failures, fastrand::f64())).await;
                }
            }
        }
    }
}
