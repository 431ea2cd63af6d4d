//! Decisions about the connections of a link, without I/O and clock: when to check a connection, and when to make the
//! next.
//!
//! *Why a generation counter*. Requests, pushes and attempts of several connections may end at the same time. Each
//! names the number of its connection, and an earlier number changes nothing. Without it a late failure of a dead
//! connection would end its successor, and the link would never settle
//! (`failures_in_a_row_make_the_pause_grow_and_a_primary_ends_it`).
//!
//! *Why checks*. A connection that only reads, publishes or listens gets no refusal from a replica
//! (`a_connection_is_checked_when_it_is_new_then_every_five_seconds_and_after_a_refusal`).

use std::time::{Duration, Instant};

use crate::retry::Backoff;

/// Time after which a connection that is in use is checked again.
pub(in crate::backend::redis) const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Number of a link's connection, and the failures of the connections before it.
///
/// ```text
///           begin()                  mark_primary()
///   none ────────────► connection n ──────────────► connection n, no failures
///     ▲                  │                             │
///     └──────────────────┴─────────────────────────────┘
///       failed(), replace(), or lost
/// ```
#[derive(Debug)]
pub(super) struct Health {
    backoff: Backoff,
    /// Number of connections begun. An error that names an earlier number says nothing about the current connection.
    generation: u64,
    /// Number of failures since the last primary, at most one per pause. Requests may try again during a pause, and
    /// must not make the pauses longer.
    failures: u32,
    /// End of the pause after the last counted failure.
    paused_until: Option<Instant>,
    /// Time of the last check of the current connection; `None` where a check is due.
    checked: Option<Instant>,
}

impl Health {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, generation: 0, failures: 0, paused_until: None, checked: None }
    }

    /// Returns the number of the current connection, or of the last one; 0 where none was begun.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Begins a connection, and returns its number.
    pub(super) fn begin(&mut self) -> u64 {
        self.generation += 1;
        self.checked = None;
        self.generation
    }

    /// Returns whether the connection must be checked now, and notes the check as begun.
    pub(super) fn begin_check(&mut self, now: Instant) -> bool {
        let is_due = self.checked.is_none_or(|at| now.saturating_duration_since(at) >= CHECK_EVERY);
        if is_due {
            self.checked = Some(now);
        }
        is_due
    }

    /// Notes that a connection could not be made. `jitter`, from 0.0 to 1.0, decides the length of the pause.
    pub(super) fn failed(&mut self, now: Instant, jitter: f64) {
        self.count(now, jitter);
    }

    /// Decides what follows the answer of a server that is no primary. Returns the number of failures where the
    /// connection must be replaced now. Returns `None` where the connection serves until the pause is over.
    ///
    /// The first such connection is replaced at once, because it led to a primary until now.
    pub(super) fn replace(&mut self, now: Instant, jitter: f64) -> Option<u32> {
        self.checked = None;
        self.count(now, jitter)
    }

    /// Counts a failure, unless the pause after the failure before lasts. Returns the count.
    fn count(&mut self, now: Instant, jitter: f64) -> Option<u32> {
        if !self.pause(now).is_zero() {
            return None;
        }
        self.paused_until = Some(now + self.backoff.pause(self.failures, jitter));
        self.failures = self.failures.saturating_add(1);
        Some(self.failures)
    }

    /// Resets failures and pauses where this is the current connection: its server is a primary.
    pub(super) fn mark_primary(&mut self, generation: u64) {
        if generation == self.generation {
            (self.failures, self.paused_until) = (0, None);
        }
    }

    /// Returns the rest of the pause before the next connection.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.paused_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { initial: Duration::from_millis(100), max: Duration::from_secs(1) };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn failures_in_a_row_make_the_pause_grow_and_a_primary_ends_it() {
        let (mut health, mut now) = (Health::new(BACKOFF), Instant::now());
        assert_eq!(health.pause(now), Duration::ZERO, "nothing has failed");
        for pause in [100, 200, 400, 800, 1000, 1000] {
            health.begin();
            health.failed(now, 1.0);
            assert_eq!(health.pause(now), ms(pause));
            now += ms(30);
            // Requests try again without heed of the pause.
            (0..100).for_each(|_| health.failed(now, 1.0));
            assert_eq!(health.pause(now), ms(pause - 30), "the pause is no longer for that");
            now += ms(pause - 30);
            assert_eq!(health.pause(now), Duration::ZERO);
        }
        health.failed(now, 1.0);
        let generation = health.begin();
        health.mark_primary(generation - 1);
        assert_ne!(health.pause(now), Duration::ZERO, "an earlier connection says nothing of this one");
        health.mark_primary(generation);
        assert_eq!(health.pause(now), Duration::ZERO);
    }

    #[test]
    fn a_server_that_is_no_primary_is_left_at_once_and_then_with_pauses() {
        let (mut health, start) = (Health::new(BACKOFF), Instant::now());
        health.begin();
        assert_eq!(health.replace(start, 1.0), Some(1));
        health.begin();
        assert_eq!(health.replace(start + ms(99), 1.0), None);
        assert_eq!(health.replace(start + ms(100), 1.0), Some(2));
        health.begin();
        assert_eq!(health.replace(start + ms(299), 1.0), None);
        assert_eq!(health.replace(start + ms(300), 1.0), Some(3));
    }

    #[test]
    fn a_connection_is_checked_when_it_is_new_then_every_five_seconds_and_after_a_refusal() {
        let (mut health, start) = (Health::new(BACKOFF), Instant::now());
        health.begin();
        assert!(health.begin_check(start));
        assert!(!health.begin_check(start + CHECK_EVERY - ms(1)));
        assert!(health.begin_check(start + CHECK_EVERY));
        assert!(!health.begin_check(start + CHECK_EVERY));
        health.replace(start + CHECK_EVERY, 1.0);
        assert!(health.begin_check(start + CHECK_EVERY), "a refusal");
        health.begin();
        assert!(health.begin_check(start + CHECK_EVERY), "a new connection");
    }
}
