//! Limits of the log. One fault of Redis hits up to a hundred thousand shared subscribers at once, and each would log
//! its own line.
//!
//! A gate passes the first line of a row, and then each line at which the number of lines has doubled. A quiet time
//! ends the row (`a_hundred_thousand_events_of_a_row_are_logged_17_times`).

use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::clock;
use crate::lock::lock;

/// Time without an event after which a gate counts from zero again.
const QUIET: Duration = Duration::from_secs(60);

/// Gates for the lines of shared subscribers, one for each kind of trouble.
#[derive(Debug, Default)]
pub(super) struct LogGates {
    pub(super) queue_failed: LogGate,
    pub(super) recovered: LogGate,
    pub(super) reclaimed: LogGate,
    pub(super) changed: LogGate,
    pub(super) taken_over: LogGate,
    pub(super) not_released: LogGate,
    pub(super) not_settled: LogGate,
    pub(super) restarted: LogGate,
    pub(super) given_up: LogGate,
    pub(super) dropped: LogGate,
    /// Gate for all subscribers, dedicated ones too: one wrong key concerns every notification.
    pub(super) not_opened: LogGate,
}

/// Counter that lets the first, second, fourth, eighth event of a row pass, and so on. The other events are logged at
/// the level debug.
#[derive(Debug, Default)]
pub(super) struct LogGate(Mutex<Row>);

/// Events that follow each other by less than [`QUIET`].
#[derive(Debug, Default)]
struct Row {
    events: u64,
    /// Moment of the newest event, from which [`QUIET`] counts.
    newest: Option<Instant>,
}

impl LogGate {
    /// Counts an event, and returns whether it passes.
    pub(super) fn passes(&self) -> bool {
        self.passes_at(clock::now())
    }

    fn passes_at(&self, now: Instant) -> bool {
        let mut row = lock(&self.0);
        if row.newest.is_some_and(|newest| now.saturating_duration_since(newest) > QUIET) {
            row.events = 0;
        }
        row.newest = Some(now);
        row.events += 1;
        row.events.is_power_of_two()
    }
}

/// Logs a line at its level, or at the level debug where a gate does not let the line pass.
macro_rules! log_through {
    ($passes:expr, $level:ident, $($line:tt)*) => {
        if $passes {
            tracing::$level!($($line)*);
        } else {
            tracing::debug!($($line)*);
        }
    };
}

pub(super) use log_through;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_events_of_a_row_are_logged_17_times() {
        let (gate, now) = (LogGate::default(), Instant::now());
        let passed = (0..100_000).filter(|_| gate.passes_at(now)).count();
        assert_eq!(passed, 17);
    }

    #[test]
    fn a_row_begins_anew_when_it_was_quiet() {
        let (gate, mut now) = (LogGate::default(), Instant::now());
        let mut passed = Vec::new();
        for _ in 0..5 {
            passed.push(gate.passes_at(now));
        }
        now += QUIET + Duration::from_millis(1);
        passed.push(gate.passes_at(now));
        assert_eq!(passed, [true, true, false, true, false, true]);
    }
}
