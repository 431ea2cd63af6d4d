//! [`Scheduler`]: simulated time, and what happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// Moment of a simulation, in microseconds after its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0 + span.as_micros() as u64)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        write!(f, "{}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

/// Queue of events, in the order of their times; events of the same time happen in the order of their scheduling.
pub(crate) struct Scheduler<E> {
    now: Time,
    scheduled: u64,
    heap: BinaryHeap<Reverse<Entry<E>>>,
}

struct Entry<E> {
    at: (Time, u64),
    event: E,
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl<E> Eq for Entry<E> {}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Entry<E> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl<E> Scheduler<E> {
    pub(crate) fn new() -> Self {
        Self { now: Time(0), scheduled: 0, heap: BinaryHeap::new() }
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    /// Schedules an event. A time that has passed is now.
    pub(crate) fn at(&mut self, time: Time, event: E) {
        self.scheduled += 1;
        self.heap.push(Reverse(Entry { at: (time.max(self.now), self.scheduled), event }));
    }

    /// Goes on to the next event that is not later than `end`, or to `end`.
    pub(crate) fn next(&mut self, end: Time) -> Option<E> {
        match self.heap.peek() {
            Some(Reverse(entry)) if entry.at.0 <= end => {
                let Reverse(entry) = self.heap.pop()?;
                self.now = entry.at.0;
                Some(entry.event)
            }
            _ => {
                self.now = end;
                None
            }
        }
    }
}
