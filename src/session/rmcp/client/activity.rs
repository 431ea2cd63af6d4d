//! [`Activity`]: number of one session's open requests, and the time of the last sign of life.

use std::sync::Mutex;

use tokio::time::Instant;

use crate::lock::lock;

/// Activity of one client.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Number of requests that have no complete response yet.
    requests: usize,
    /// Time of the last sign of life.
    last: Instant,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(Mutex::new(State { requests: 0, last: Instant::now() }))
    }

    /// Notes a sign of life.
    pub(super) fn touch(&self) {
        lock(&self.0).last = Instant::now();
    }

    pub(super) fn request_began(&self) {
        let mut state = lock(&self.0);
        (state.requests, state.last) = (state.requests + 1, Instant::now());
    }

    pub(super) fn request_ended(&self) {
        let mut state = lock(&self.0);
        (state.requests, state.last) = (state.requests.saturating_sub(1), Instant::now());
    }

    /// Returns the time of the last sign of life, or `None` while a request is open.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.0);
        (state.requests == 0).then_some(state.last)
    }
}
