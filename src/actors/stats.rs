//! What a subscriber has done, readable without asking it: it may be busy, or stuck.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use crate::lock::lock;
use crate::session_id::SessionId;
use crate::subscription::SubscriberState;

/// Arbiter and connection of a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// An arbiter (a thread) and a connection of its own: the lowest latency.
    Dedicated,
    /// An arbiter and connections that it shares with other subscribers.
    Shared,
}

/// One subscriber, as [`ListSubscribers`](super::ListSubscribers) shows it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SubscriberInfo {
    /// Whose.
    pub session: SessionId,
    /// When it was started first. A restart after a failure does not change it.
    pub since: SystemTime,
    /// Arbiter and connection of the subscriber; `None` while its client is away.
    pub placement: Option<Placement>,
    /// What it does.
    pub state: SubscriberState,
    /// How many notifications were delivered.
    pub delivered: u64,
    /// How many were discarded: expired, rejected, attempts exhausted, undecodable.
    pub discarded: u64,
    /// The last thing that went wrong, of the queue or of a hand-over.
    pub last_error: Option<String>,
}

#[derive(Debug)]
pub(super) struct Stats {
    pub(super) since: SystemTime,
    delivered: AtomicU64,
    discarded: AtomicU64,
    rest: Mutex<(SubscriberState, Option<String>)>,
}

impl Stats {
    pub(super) fn new() -> Self {
        Self {
            since: SystemTime::now(),
            delivered: AtomicU64::new(0),
            discarded: AtomicU64::new(0),
            rest: Mutex::new((SubscriberState::Connecting, None)),
        }
    }

    pub(super) fn add_delivered(&self, count: usize) {
        self.delivered.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn add_discarded(&self) {
        self.discarded.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn set_state(&self, state: SubscriberState) {
        self.rest().0 = state;
    }

    pub(super) fn set_error(&self, error: &impl ToString) {
        self.rest().1 = Some(error.to_string());
    }

    pub(super) fn counts(&self) -> (u64, u64) {
        (self.delivered.load(Ordering::Relaxed), self.discarded.load(Ordering::Relaxed))
    }

    pub(super) fn info(&self, session: SessionId, placement: Option<Placement>) -> SubscriberInfo {
        let (delivered, discarded) = self.counts();
        let (state, last_error) = self.rest().clone();
        SubscriberInfo { session, since: self.since, placement, state, delivered, discarded, last_error }
    }

    fn rest(&self) -> std::sync::MutexGuard<'_, (SubscriberState, Option<String>)> {
        lock(&self.rest)
    }
}
