//! Statistics of one subscriber. Reading them sends no message to the subscriber, because a busy or stuck subscriber
//! would not answer.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use crate::lock::lock;
use crate::session_id::SessionId;
use crate::subscription::SubscriberState;

/// Arbiter and connection of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Own arbiter (a thread) and own connection, for the lowest latency.
    Dedicated,
    /// Arbiter and connections in common with other subscribers.
    Shared,
}

/// State and statistics of one subscriber, as [`ListSubscribers`](super::ListSubscribers) returns them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SubscriberInfo {
    /// Session whose queue the subscriber owns.
    pub session: SessionId,
    /// Time at which the subscriber was first started, by this host's clock. A restart after a failure does not change
    /// this time.
    pub since: SystemTime,
    /// Arbiter and connection of the subscriber; `None` while its client is away.
    pub placement: Option<Placement>,
    /// Present state of the subscriber's machine.
    pub state: SubscriberState,
    /// Number of notifications that were delivered and confirmed since `since`.
    pub delivered: u64,
    /// Number of notifications that were discarded since `since`, for any reason: expired, rejected, attempts
    /// exhausted, superseded, undecodable, cannot be opened, not sealed.
    pub discarded: u64,
    /// Text of the newest failure of the queue or of a hand-over; `None` before the first.
    pub last_error: Option<String>,
}

/// Counters of one subscriber, or of all subscribers of a supervisor, those that have ended included.
#[derive(Debug, Default)]
pub(super) struct Totals {
    delivered: AtomicU64,
    discarded: AtomicU64,
}

impl Totals {
    pub(super) fn add_delivered(&self, count: usize) {
        self.delivered.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn add_discarded(&self) {
        self.discarded.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the numbers of delivered and of discarded notifications.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.delivered.load(Ordering::Relaxed), self.discarded.load(Ordering::Relaxed))
    }
}

/// Counters and texts behind a [`SubscriberInfo`]. The subscriber's arbiter writes them and the supervisor's reads
/// them.
#[derive(Debug)]
pub(super) struct Stats {
    pub(super) since: SystemTime,
    pub(super) totals: Totals,
    /// Present state and newest failure. Both change rarely, so a lock costs nothing.
    rest: Mutex<Rest>,
}

/// Part of the statistics that is no counter.
#[derive(Debug)]
struct Rest {
    state: SubscriberState,
    /// Text of the newest failure, and its time by this host's clock.
    error: Option<(String, SystemTime)>,
    /// Moment of the push of the oldest notification that is known to wait.
    #[cfg(feature = "metrics")]
    oldest_since: Option<Instant>,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            since: SystemTime::now(),
            totals: Totals::default(),
            rest: Mutex::new(Rest {
                state: SubscriberState::Connecting,
                error: None,
                #[cfg(feature = "metrics")]
                oldest_since: None,
            }),
        }
    }

    /// Sets the state, and the moment of the push of the oldest notification where that is known.
    pub(super) fn set_state(&self, state: SubscriberState, oldest_since: Option<Instant>) {
        let mut rest = lock(&self.rest);
        rest.state = state;
        #[cfg(not(feature = "metrics"))]
        let _ = oldest_since;
        #[cfg(feature = "metrics")]
        match state {
            // The queue is empty, or is not this subscriber's.
            SubscriberState::Waiting
            | SubscriberState::StandingBy
            | SubscriberState::Parked
            | SubscriberState::Stopping => rest.oldest_since = None,
            // Between two reads of the queue nothing is known. Until the next one, the oldest stays what it was.
            _ if oldest_since.is_some() => rest.oldest_since = oldest_since,
            _ => {}
        }
    }

    /// Returns the state, and the moment of the push of the oldest notification that is known to wait.
    #[cfg(feature = "metrics")]
    pub(super) fn state_and_oldest(&self) -> (SubscriberState, Option<Instant>) {
        let rest = lock(&self.rest);
        (rest.state, rest.oldest_since)
    }

    pub(super) fn set_error(&self, error: &impl ToString) {
        lock(&self.rest).error = Some((error.to_string(), SystemTime::now()));
    }

    pub(super) fn info(&self, session: SessionId, placement: Option<Placement>) -> SubscriberInfo {
        let (delivered, discarded) = self.totals.counts();
        let Rest { state, error, .. } = &*lock(&self.rest);
        let (state, last_error) = (*state, error.as_ref().map(|(text, _)| text.clone()));
        SubscriberInfo { session, since: self.since, placement, state, delivered, discarded, last_error }
    }

    /// Returns the present state, and the time of the newest failure.
    pub(super) fn state_and_time_of_error(&self) -> (SubscriberState, Option<SystemTime>) {
        let Rest { state, error, .. } = &*lock(&self.rest);
        (*state, error.as_ref().map(|(_, at)| *at))
    }

    /// Returns the newest failure and its time.
    pub(super) fn error(&self) -> Option<(String, SystemTime)> {
        lock(&self.rest).error.clone()
    }
}
