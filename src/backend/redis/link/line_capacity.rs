//! [`LineCapacity`]: knowledge of a shared link about its line, and the time that an answer may therefore take.
//!
//! *Why a link learns*. A fixed timeout either cuts a large answer on a narrow line again and again, or finds a dead
//! connection late. Therefore small requests always have the shortest time, and large ones get more after each timeout,
//! with fewer messages at once (`twelve_notifications_of_100_kb_pass_a_line_of_150_kb_a_second`).
//!
//! *A request behind a large one* waits for the large one's bytes, so it has the same time. Requests that time out
//! together teach once, because they had one cause (`requests_that_time_out_together_are_one_lesson`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::backend::LineLimit;
use crate::lock::lock;

/// Number of bytes from which a request or an answer counts as large. A smaller one passes any line within the time for
/// an answer.
pub(super) const LARGE: usize = 16 * 1024;

/// Capacity of a shared link's line. Large requests and answers get the time that the line needs for them.
pub(super) struct LineCapacity {
    /// Bounds of large requests and answers. Small ones have [`LineLimit::SHORTEST`].
    limit: Mutex<LineLimit>,
    /// Number of large requests without an answer. A request that is sent behind one of them gets its time too.
    large: AtomicUsize,
    /// Time of the last large request whose answer came too late.
    timed_out: Mutex<Option<Instant>>,
}

/// Request without an answer, until the guard is dropped.
pub(in crate::backend::redis) struct PendingRequest<'a> {
    line: &'a LineCapacity,
    is_large: bool,
    /// Set where a large request was sent earlier and has no answer yet, or where this request is large.
    is_behind_large: bool,
}

impl LineCapacity {
    pub(super) fn new(limit: LineLimit) -> Self {
        Self { limit: Mutex::new(limit), large: AtomicUsize::new(0), timed_out: Mutex::default() }
    }

    /// Returns the bounds of the next large request.
    pub(super) fn limit(&self) -> LineLimit {
        *lock(&self.limit)
    }

    /// Learns from a request or an answer that moved this many messages and bytes.
    pub(super) fn learn(&self, messages: usize, bytes: usize, took: Duration) {
        let mut limit = lock(&self.limit);
        // A small request passes any line, and says nothing about the time that large ones need.
        if bytes >= LARGE { limit.succeeded(messages, bytes, took) } else { limit.grow(messages, bytes) }
    }

    /// Learns from an answer of this many bytes to a request that may have a large answer.
    pub(super) fn learn_answer(&self, bytes: usize, took: Duration) {
        // The number of messages is unknown here, so the current bound stands for it.
        self.learn(self.limit().messages(), bytes, took);
        if bytes < LARGE {
            self.shorten(took);
        }
    }

    /// Learns from a small answer to a request that had the time of large ones. A quick answer halves the time.
    ///
    /// Soon after a timeout nothing is learned. The large request is being repeated then, and needs the time that the
    /// limit has reached.
    fn shorten(&self, took: Duration) {
        let timed_out = *lock(&self.timed_out);
        let mut limit = lock(&self.limit);
        if timed_out.is_none_or(|at| at.elapsed() > limit.time()) {
            limit.answered(took);
        }
    }

    /// Begins a request.
    pub(super) fn begin(&self, is_large: bool) -> PendingRequest<'_> {
        if is_large {
            self.large.fetch_add(1, Ordering::Relaxed);
        }
        PendingRequest { line: self, is_large, is_behind_large: self.large.load(Ordering::Relaxed) > 0 }
    }
}

impl PendingRequest<'_> {
    /// Returns the time that the answer may take.
    pub(super) fn time(&self) -> Duration {
        if self.is_behind_large { self.line.limit().time() } else { LineLimit::SHORTEST }
    }

    /// Learns from an answer that did not come in time.
    pub(super) fn timed_out(&self) {
        if self.is_behind_large {
            *lock(&self.line.timed_out) = Some(Instant::now());
            lock(&self.line.limit).timed_out();
        }
    }
}

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        if self.is_large {
            self.line.large.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
