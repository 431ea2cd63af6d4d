//! Limits of a server: the last attempt to deliver a message, and the last restart of a child.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Backoff;

/// Decision after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another attempt follows after this pause.
    Retry(Duration),
    /// No attempt is left.
    Exhausted,
}

/// Decides what follows a failed attempt. `earlier` is the number of failed attempts before this one.
pub(crate) fn after_failed_attempt(earlier: u32, max_attempts: u32, backoff: Backoff, jitter: f64) -> Verdict {
    if earlier.saturating_add(1) >= max_attempts {
        Verdict::Exhausted
    } else {
        Verdict::Retry(backoff.pause(earlier, jitter))
    }
}

/// Number of restarts that a failing child may use within a time.
#[derive(Debug, Clone)]
pub(crate) struct RestartBudget {
    /// Largest number of restarts within the time.
    max: usize,
    /// Time in which restarts count.
    within: Duration,
    /// Moments of the restarts within the time, the oldest first.
    restarts: VecDeque<Instant>,
}

impl RestartBudget {
    /// Creates a budget of at most `max` restarts in any time of `within`.
    pub(crate) fn new(max: usize, within: Duration) -> Self {
        Self { max, within, restarts: VecDeque::new() }
    }

    /// Spends one restart at `now`. Returns the number of restarts in the time before this one, or `None` where the
    /// budget is spent.
    pub(crate) fn spend(&mut self, now: Instant) -> Option<u32> {
        while self.restarts.front().is_some_and(|&at| now.saturating_duration_since(at) > self.within) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.max {
            return None;
        }
        self.restarts.push_back(now);
        Some(u32::try_from(self.restarts.len() - 1).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exactly_max_attempts_are_made(max in 1..20_u32) {
            let backoff = Backoff { initial: Duration::from_millis(1), max: Duration::from_millis(1) };
            let made = (0..).find(|&n| after_failed_attempt(n, max, backoff, 0.0) == Verdict::Exhausted);
            prop_assert_eq!(made.map(|n| n + 1), Some(max));
        }

        #[test]
        fn a_budget_holds_in_any_span(max in 1..10_usize, gaps in prop::collection::vec(0..30_u64, 1..60)) {
            let within = Duration::from_secs(60);
            let mut budget = RestartBudget::new(max, within);
            let mut now = Instant::now();
            let mut granted = Vec::new();
            for gap in gaps {
                now += Duration::from_secs(gap);
                if budget.spend(now).is_some() {
                    granted.push(now);
                }
            }
            for (i, &at) in granted.iter().enumerate() {
                let in_span = granted[i..].iter().filter(|&&later| later - at <= within).count();
                prop_assert!(in_span <= max);
            }
        }
    }
}
