//! [`Delivery`]: the delivery of one batch to a session, notification by notification.
//!
//! ```text
//!   next() ──► HandOver ── handed_over(Ok) ──► next() … ──► Done
//!                  └────── handed_over(Err), no permit, expired ──► Done
//! ```
//!
//! What was handed over is confirmed later, while the next batch may be delivered already.
//!
//! Nothing is handed over behind a discarded notification. A client that comes back says what it has received last, and what
//! is queued before that is taken for received: a discard has to be acknowledged, and so recorded, before that can be said.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::permit::Permit;
use crate::config::Config;
use crate::envelope::{Envelope, Timestamp};
use crate::fate::DiscardReason;
use crate::lock::lock;
use crate::recent::Recent;
use crate::retry::{Verdict, after_failed_attempt};

/// Number of ended tasks that are remembered for one session.
const ENDED_TASKS: usize = 1024;

/// Ended tasks of one session, the newest ones.
///
/// Each is remembered by a hash under a random key: a foreign producer chooses its task ids and their length.
#[derive(Debug)]
pub struct EndedTasks {
    /// Behind a lock of its own: nearly all notifications are of no task, and need none.
    hashes: Mutex<Recent<u64>>,
    key: RandomState,
}

impl Default for EndedTasks {
    fn default() -> Self {
        Self { hashes: Mutex::new(Recent::new(ENDED_TASKS)), key: RandomState::new() }
    }
}

impl EndedTasks {
    fn contains(&self, task_id: &str) -> bool {
        lock(&self.hashes).contains(&self.key.hash_one(task_id))
    }

    fn insert(&self, task_id: &str) {
        lock(&self.hashes).insert(self.key.hash_one(task_id));
    }
}

/// Refusal of a session to take a notification. The variant says what to do next; the subscriber does it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// The session is over. What is queued stays queued; the subscriber stops.
    #[error("the session is over")]
    Closed,
    /// The session cannot take anything now. What is queued stays queued and is offered again when
    /// [`Presence`](crate::Presence) says that the session is ready. This is no failed attempt.
    #[error("the session is not ready: {0}")]
    NotReady(String),
    /// This attempt failed, and another may succeed. The failure counts against
    /// [`Config::max_attempts`](crate::Config::max_attempts).
    #[error("the attempt failed: {0}")]
    Transient(String),
    /// The session will never take this notification: it is discarded at once, and the next one follows.
    #[error("the session rejected it: {0}")]
    Rejected(String),
}

/// Outcome of a delivery.
#[derive(Debug)]
pub struct Outcome {
    /// Number of notifications, from the first, that the session has accepted.
    pub accepted: usize,
    /// Reason for which no more were delivered.
    pub end: BatchEnd,
    /// Answer of the session to the request to confirm, where it came at once. Else it comes later, as
    /// [`Event::Confirmed`](super::Event::Confirmed).
    pub confirmed: Option<Result<(), HandOverError>>,
}

/// End of a batch, behind the notifications that were accepted.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchEnd {
    /// All were accepted.
    AllAccepted,
    /// The next ones are discarded, for these reasons; at least one.
    Discarded(Vec<DiscardReason>),
    /// The next one failed and is tried again after a pause.
    Failed {
        /// The notification, as it was before this attempt.
        envelope: Box<Envelope>,
        /// Answer of the session.
        error: String,
        /// Pause before the next attempt.
        pause: Duration,
    },
    /// The session has no open stream. The notifications stay queued.
    NotReady(String),
    /// The session is over. The notifications stay queued.
    Closed,
    /// The permit no longer holds: nothing more was handed over.
    NotPermitted,
}

/// Next step of a delivery.
#[derive(Debug)]
pub enum Step<'a> {
    /// Hands this notification to the session; [`Delivery::handed_over`] takes its answer.
    HandOver(&'a Envelope),
    /// The delivery has ended.
    Done(Outcome),
}

/// Delivery of one batch.
#[derive(Debug)]
pub struct Delivery {
    /// Notifications that were not handed over yet, the oldest first.
    waiting: VecDeque<Envelope>,
    read_at: (Timestamp, Instant),
    permit: Arc<Permit>,
    /// Number of notifications that were handed over.
    handed_over: usize,
    end: Option<BatchEnd>,
}

/// Reason for which the next notification is not handed over.
enum Hindrance {
    NotPermitted,
    Discarded(DiscardReason),
}

impl Delivery {
    /// Begins the delivery of a batch that was read at `read_at`, by the queue's clock and by this host's.
    pub fn new(batch: Vec<Envelope>, read_at: (Timestamp, Instant), permit: Arc<Permit>) -> Self {
        Self { waiting: batch.into(), read_at, permit, handed_over: 0, end: None }
    }

    /// Returns the next step. Each answer is given before the next call.
    pub fn next(&mut self, now: Instant, ended: &EndedTasks) -> Step<'_> {
        self.discard(now, ended);
        if self.end.is_none() && !self.waiting.is_empty() {
            return Step::HandOver(&self.waiting[0]);
        }
        let end = self.end.take().unwrap_or(BatchEnd::AllAccepted);
        Step::Done(Outcome { accepted: self.handed_over, end, confirmed: None })
    }

    /// Discards the next notifications as long as they are to be discarded. Ends where the permit does not hold.
    fn discard(&mut self, now: Instant, ended: &EndedTasks) {
        while matches!(self.end, None | Some(BatchEnd::Discarded(_))) {
            match (self.hindrance(now, ended), &mut self.end) {
                (Some(Hindrance::Discarded(reason)), end) => {
                    self.waiting.pop_front();
                    match end {
                        Some(BatchEnd::Discarded(reasons)) => reasons.push(reason),
                        _ => self.end = Some(BatchEnd::Discarded(vec![reason])),
                    }
                }
                (Some(Hindrance::NotPermitted), None) => self.end = Some(BatchEnd::NotPermitted),
                _ => return,
            }
        }
    }

    /// Returns why the next notification must not be handed over, if it must not.
    fn hindrance(&self, now: Instant, ended: &EndedTasks) -> Option<Hindrance> {
        let next = self.waiting.front()?;
        // Before each notification, not once a batch: a process that was paused, or displaced, stops here.
        if !self.permit.holds(now) {
            return Some(Hindrance::NotPermitted);
        }
        let (clock, read) = self.read_at;
        if next.is_expired(clock.plus(now.saturating_duration_since(read))) {
            Some(Hindrance::Discarded(DiscardReason::Expired))
        } else if next.task_status().is_some_and(|(id, is_terminal)| !is_terminal && ended.contains(id)) {
            Some(Hindrance::Discarded(DiscardReason::Superseded))
        } else {
            None
        }
    }

    /// Takes the session's answer to a notification. `lot` is drawn by lot from 0 to 1, for the pause before a next attempt.
    pub fn handed_over(
        &mut self,
        answer: Result<(), HandOverError>,
        config: &Config,
        ended: &EndedTasks,
        lot: impl FnOnce() -> f64,
    ) {
        let Some(envelope) = self.waiting.pop_front() else { return };
        match answer {
            Ok(()) => {
                self.handed_over += 1;
                if let Some((id, true)) = envelope.task_status() {
                    ended.insert(id);
                }
            }
            Err(error) => self.end = Some(after(error, envelope, config, lot())),
        }
    }
}

/// Decides what follows a failed hand-over.
fn after(error: HandOverError, envelope: Envelope, config: &Config, lot: f64) -> BatchEnd {
    match error {
        HandOverError::Closed => BatchEnd::Closed,
        HandOverError::NotReady(why) => BatchEnd::NotReady(why),
        HandOverError::Rejected(why) => BatchEnd::Discarded(vec![DiscardReason::Rejected(why)]),
        HandOverError::Transient(error) => {
            match after_failed_attempt(envelope.attempt, config.max_attempts(), config.backoff(), lot) {
                Verdict::Retry(pause) => BatchEnd::Failed { envelope: Box::new(envelope), error, pause },
                Verdict::Exhausted => BatchEnd::Discarded(vec![DiscardReason::AttemptsExhausted {
                    attempts: envelope.attempt.saturating_add(1),
                    last_error: error,
                }]),
            }
        }
    }
}

#[cfg(test)]
mod tests;
