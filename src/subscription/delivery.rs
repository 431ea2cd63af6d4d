//! [`Delivery`]: the delivery of one batch to a session, notification by notification.
//!
//! ```text
//!   next() ──► HandOver ── handed_over(Ok) ──► next() … ──► Done
//!                  └────── handed_over(Err), no permit, expired ──► Done
//! ```
//!
//! The session confirms the batch later. The next batch may be delivered before that confirmation.
//!
//! Nothing is handed over behind a discarded notification. A client that reconnects names the newest message that it
//! has, and all messages queued before that one count as received. So a discard must be acknowledged, and thereby
//! recorded, before the client can name a later message.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::permit::Permit;
use crate::config::Config;
use crate::envelope::{Envelope, Timestamp};
use crate::lock::lock;
use crate::outcome::DiscardReason;
use crate::recent_set::RecentSet;
use crate::retry::{Verdict, after_failed_attempt};

/// Number of ended tasks that are remembered for one session.
const ENDED_TASKS: usize = 1024;

/// Newest ended tasks of one session.
///
/// A task is remembered by a hash under a random key. A foreign producer chooses the text and the length of its task
/// ids, so the texts themselves could take any amount of memory.
#[derive(Debug)]
pub struct EndedTasks {
    /// Hashes of the ids of ended tasks. They have a lock of their own, because most notifications belong to no task
    /// and need no lock.
    hashes: Mutex<RecentSet<u64>>,
    /// Random key of the hashes, so that a producer cannot choose ids whose hashes collide.
    key: RandomState,
}

impl Default for EndedTasks {
    fn default() -> Self {
        Self { hashes: Mutex::new(RecentSet::new(ENDED_TASKS)), key: RandomState::new() }
    }
}

impl EndedTasks {
    /// Returns the reason why a notification must not be delivered any more, if there is one. `now` is the time by the
    /// queue's clock.
    pub(crate) fn reason_to_discard(&self, envelope: &Envelope, now: Timestamp) -> Option<DiscardReason> {
        if envelope.is_expired(now) {
            Some(DiscardReason::Expired)
        } else if let Some(refused) = envelope.refused() {
            Some(refused.into())
        } else if envelope.task_status().is_some_and(|(id, is_terminal)| !is_terminal && self.contains(id)) {
            Some(DiscardReason::Superseded)
        } else {
            None
        }
    }

    /// Remembers the end of a task where a delivered notification reports it.
    pub(crate) fn note_delivered(&self, envelope: &Envelope) {
        if let Some((id, true)) = envelope.task_status() {
            self.insert(id);
        }
    }

    fn contains(&self, task_id: &str) -> bool {
        lock(&self.hashes).contains(&self.key.hash_one(task_id))
    }

    fn insert(&self, task_id: &str) {
        lock(&self.hashes).insert(self.key.hash_one(task_id));
    }
}

/// Refusal of a session to take a notification. Each variant decides the next step of the subscriber.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// The session has ended. The notifications stay queued, and the subscriber stops.
    #[error("the session has ended")]
    Closed,
    /// The session has no open stream, or cannot take a notification now. The notifications stay queued and are
    /// delivered when [`Presence`](crate::Presence) reports that the session is ready. The refusal does not count as a
    /// failed attempt.
    #[error("the session is not ready: {0}")]
    NotReady(String),
    /// The attempt failed, and another attempt may succeed. The failure counts against
    /// [`Config::max_attempts`](crate::Config::max_attempts).
    #[error("the attempt failed: {0}")]
    Transient(String),
    /// The session will never accept this notification. The notification is discarded at once, and delivery continues
    /// with the next one.
    #[error("the session rejected it: {0}")]
    Rejected(String),
}

/// Outcome of a delivery.
#[derive(Debug)]
pub struct DeliveryOutcome {
    /// Number of notifications that the session has accepted, counted from the first of the batch.
    pub accepted: usize,
    /// Reason why no further notification was handed over.
    pub end: BatchEnd,
    /// Answer of the session to the request to confirm, where the answer came at once. A later answer comes as
    /// [`Event::Confirmed`](super::Event::Confirmed).
    pub confirmed: Option<Result<(), HandOverError>>,
}

impl DeliveryOutcome {
    /// Returns the name of the batch's end, for the log.
    pub(crate) fn end_name(&self) -> &'static str {
        match self.end {
            BatchEnd::AllAccepted => "all accepted",
            BatchEnd::Discarded(_) => "discarded",
            BatchEnd::Failed { .. } => "failed",
            BatchEnd::NotReady(_) => "not ready",
            BatchEnd::Closed => "session over",
            BatchEnd::NotPermitted => "not permitted",
        }
    }
}

/// End of a batch: the outcome of the notifications behind the accepted ones.
#[derive(Debug)]
#[non_exhaustive]
pub enum BatchEnd {
    /// All notifications were accepted.
    AllAccepted,
    /// The next notifications are discarded, for these reasons, of which there is at least one.
    Discarded(Vec<DiscardReason>),
    /// The next notification failed and is tried again after a pause.
    Failed {
        /// Notification as it was before this attempt.
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
    /// The permit no longer holds. No further notification was handed over.
    NotPermitted,
}

/// Next step of a delivery.
#[derive(Debug)]
pub enum Step<'a> {
    /// Hand this notification to the session. [`Delivery::handed_over`] takes the session's answer.
    HandOver(&'a Envelope),
    /// The delivery has ended.
    Done(DeliveryOutcome),
}

/// Delivery of one batch.
#[derive(Debug)]
pub struct Delivery {
    /// Notifications that were not handed over yet, the oldest first.
    waiting: VecDeque<Envelope>,
    read_at: (Timestamp, Instant),
    /// Permit of the owner, which each step checks.
    permit: Arc<Permit>,
    /// Number of notifications that the session has accepted.
    handed_over: usize,
    /// End of the batch, once it is known. No notification is handed over then.
    end: Option<BatchEnd>,
}

/// Reason for which the next notification is not handed over.
enum Hindrance {
    NotPermitted,
    Discarded(DiscardReason),
}

impl Delivery {
    /// Begins the delivery of a batch. `read_at` is the time of the read by the queue's clock, and the same moment by
    /// this host's clock.
    pub fn new(batch: Vec<Envelope>, read_at: (Timestamp, Instant), permit: Arc<Permit>) -> Self {
        Self { waiting: batch.into(), read_at, permit, handed_over: 0, end: None }
    }

    /// Returns the next step. The session's answer to a step comes in before the next call.
    pub fn next(&mut self, now: Instant, ended: &EndedTasks) -> Step<'_> {
        self.discard(now, ended);
        if self.end.is_none() && !self.waiting.is_empty() {
            return Step::HandOver(&self.waiting[0]);
        }
        let end = self.end.take().unwrap_or(BatchEnd::AllAccepted);
        Step::Done(DeliveryOutcome { accepted: self.handed_over, end, confirmed: None })
    }

    /// Discards the next notifications while each has a reason to be discarded. Ends the batch where the permit does
    /// not hold.
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

    /// Returns the reason why the next notification must not be handed over, if there is one.
    fn hindrance(&self, now: Instant, ended: &EndedTasks) -> Option<Hindrance> {
        let next = self.waiting.front()?;
        // The permit is checked before each notification and not once per batch. A process that was paused or displaced
        // stops here.
        if !self.permit.holds(now) {
            return Some(Hindrance::NotPermitted);
        }
        let (clock, read) = self.read_at;
        let clock = clock.plus(now.saturating_duration_since(read));
        ended.reason_to_discard(next, clock).map(Hindrance::Discarded)
    }

    /// Takes the session's answer to a notification. `jitter` draws a number from 0 to 1, for the pause before a
    /// further attempt.
    pub fn handed_over(
        &mut self,
        answer: Result<(), HandOverError>,
        config: &Config,
        ended: &EndedTasks,
        jitter: impl FnOnce() -> f64,
    ) {
        let Some(envelope) = self.waiting.pop_front() else { return };
        match answer {
            Ok(()) => {
                self.handed_over += 1;
                ended.note_delivered(&envelope);
            }
            Err(error) => self.end = Some(after(error, envelope, config, jitter())),
        }
    }
}

/// Decides the end of a batch after a failed hand-over.
fn after(error: HandOverError, envelope: Envelope, config: &Config, jitter: f64) -> BatchEnd {
    match error {
        HandOverError::Closed => BatchEnd::Closed,
        HandOverError::NotReady(why) => BatchEnd::NotReady(why),
        HandOverError::Rejected(why) => BatchEnd::Discarded(vec![DiscardReason::Rejected(why)]),
        HandOverError::Transient(error) => {
            match after_failed_attempt(envelope.attempt, config.max_attempts(), config.backoff(), jitter) {
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
