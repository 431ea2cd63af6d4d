//! Decisions on retries: the pause before the next attempt, and the end of the attempts and restarts. Callers bring the
//! numbers and the clock.

use std::time::Duration;

#[cfg(any(test, feature = "server"))]
mod limits;

#[cfg(feature = "server")]
pub(crate) use self::limits::{RestartBudget, Verdict, after_failed_attempt};

/// Exponential backoff with jitter. The n-th pause is `initial` doubled n times, at most `max`. The last quarter of the
/// pause is random, so that subscribers that failed together do not retry together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    /// First pause.
    pub(crate) initial: Duration,
    /// Longest pause.
    pub(crate) max: Duration,
}

impl Backoff {
    /// Returns the pause after `failures` earlier failures. `jitter` is a random number from 0.0 to 1.0.
    pub(crate) fn pause(&self, failures: u32, jitter: f64) -> Duration {
        let doubled = self.initial.saturating_mul(2_u32.saturating_pow(failures.min(31)));
        doubled.min(self.max).mul_f64(0.75 + 0.25 * jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_pause_is_within_its_bounds_and_never_shrinks(
            initial in 1..10_000_u64, more in 0..100_000_u64, failures in 0..200_u32, jitter in 0.0..=1.0_f64,
        ) {
            let backoff = Backoff {
                initial: Duration::from_millis(initial),
                max: Duration::from_millis(initial + more),
            };
            let pause = backoff.pause(failures, jitter);
            prop_assert!(pause <= backoff.max);
            prop_assert!(pause >= backoff.initial.mul_f64(0.75));
            prop_assert!(backoff.pause(failures + 1, jitter) >= pause);
        }
    }
}
