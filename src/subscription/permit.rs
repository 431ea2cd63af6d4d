//! [`Permit`]: an owner's own knowledge of whether it may still hand over.
//!
//! ```text
//!            renewed(sent, mark)                    suspend()
//!   none ───────────────────────────► valid ──────────────────────────► suspended
//!                                      ▲  │ now ≥ sent + lease − margin      │
//!                                      │  └──────────► run out               │
//!                                      └──────── confirmed(mark) ◄───────────┘
//! ```
//!
//! The time counts from when the renewal was *sent*, so a process that was paused, or whose answer was late, trusts its
//! lease for less time than the queue does, never for more.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Permission of an owner to deliver. Shared by the connection that learns of a takeover, the subscriber that renews,
/// and the session that asks before every hand-over.
#[derive(Debug)]
pub struct Permit {
    /// Moment when the first renewal was sent: this room reads no clock of its own.
    origin: OnceLock<Instant>,
    /// End of the time for which the lease is trusted, in microseconds after `origin`. 0 is never.
    until: AtomicU64,
    /// Number of doubts that came up, and number of the last one that was settled.
    doubts: AtomicU64,
    settled: AtomicU64,
    doubted: Notify,
    closed: AtomicBool,
}

/// Number of doubts at the moment when the lease was asked for. The answer settles these doubts and no later one.
#[derive(Debug, Clone, Copy)]
pub struct DoubtMark(u64);

impl Default for Permit {
    fn default() -> Self {
        Self::new()
    }
}

impl Permit {
    /// A permit that permits nothing yet.
    pub fn new() -> Self {
        Self {
            origin: OnceLock::new(),
            until: AtomicU64::new(0),
            doubts: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            doubted: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// A permit that always holds: for a delivery that no lease guards.
    pub(crate) fn unlimited() -> Self {
        let permit = Self::new();
        permit.until.store(u64::MAX, Ordering::Release);
        permit
    }

    /// Returns whether one more notification may be delivered at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        !self.closed.load(Ordering::Acquire)
            && !self.is_in_doubt()
            && self.micros(now) < self.until.load(Ordering::Acquire)
    }

    /// Returns whether a doubt has come up that is not settled.
    pub fn is_in_doubt(&self) -> bool {
        self.doubts.load(Ordering::Acquire) != self.settled.load(Ordering::Acquire)
    }

    /// Waits until a doubt has come up that is not settled.
    pub async fn doubted(&self) {
        loop {
            let notified = self.doubted.notified();
            if self.is_in_doubt() {
                return;
            }
            notified.await;
        }
    }

    /// The lease may have been taken: nothing more until the queue has been asked.
    pub fn suspend(&self) {
        self.doubts.fetch_add(1, Ordering::AcqRel);
        self.doubted.notify_waiters();
    }

    /// To be read before a question about the lease is sent.
    pub fn mark(&self) -> DoubtMark {
        DoubtMark(self.doubts.load(Ordering::Acquire))
    }

    /// The queue said that the lease is ours.
    pub fn confirmed(&self, mark: DoubtMark) {
        // A doubt that came up after the question stays: doubts is then ahead of what is settled.
        self.settled.fetch_max(mark.0, Ordering::AcqRel);
    }

    /// The queue gave the lease for `lease`, asked at `sent`.
    pub fn renewed(&self, sent: Instant, lease: Duration, mark: DoubtMark) {
        let margin = lease / 8;
        self.origin.get_or_init(|| sent);
        self.until.store(self.micros(sent + (lease - margin)), Ordering::Release);
        self.confirmed(mark);
    }

    /// The queue said that the lease is another's, or it was given up.
    pub fn revoke(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Nothing more, whatever the queue says: its owner stops. The lease is kept, and renewed, until what is under way
    /// has ended.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    fn micros(&self, at: Instant) -> u64 {
        let since = self.origin.get().map_or(Duration::ZERO, |origin| at.saturating_duration_since(*origin));
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(8);

    #[test]
    fn a_lease_is_trusted_from_when_the_renewal_was_sent_less_a_margin() {
        let permit = Permit::new();
        let sent = Instant::now() + Duration::from_secs(1);
        assert!(!permit.holds(sent));
        permit.renewed(sent, LEASE, permit.mark());
        assert!(permit.holds(sent + Duration::from_millis(6999)));
        assert!(!permit.holds(sent + Duration::from_secs(7)));
    }

    #[test]
    fn an_answer_settles_only_the_doubts_that_came_before_its_question() {
        let permit = Permit::new();
        let now = Instant::now();
        permit.suspend();
        let asked = permit.mark();
        permit.suspend();
        permit.renewed(now, LEASE, asked);
        assert!(!permit.holds(now), "the second doubt is newer than the question");
        permit.confirmed(permit.mark());
        assert!(permit.holds(now));
    }

    #[test]
    fn what_was_revoked_is_over() {
        let permit = Permit::new();
        let now = Instant::now();
        permit.renewed(now, LEASE, permit.mark());
        permit.revoke();
        assert!(!permit.holds(now));
    }

    #[test]
    fn what_was_closed_is_over_though_the_lease_is_renewed() {
        let permit = Permit::new();
        let now = Instant::now();
        permit.close();
        permit.renewed(now, LEASE, permit.mark());
        assert!(!permit.holds(now));
    }

    #[tokio::test]
    async fn a_doubt_wakes_who_waits_for_it_also_when_it_came_first() {
        let permit = Permit::new();
        let doubted = permit.doubted();
        tokio::pin!(doubted);
        let none_yet = tokio::time::timeout(Duration::ZERO, &mut doubted).await;
        assert!(none_yet.is_err());
        permit.suspend();
        doubted.await;
        permit.doubted().await;
    }

    #[test]
    fn a_doubt_suspends_until_it_is_settled() {
        let permit = Permit::unlimited();
        let now = Instant::now();
        assert!(permit.holds(now) && !permit.is_in_doubt());
        permit.suspend();
        assert!(!permit.holds(now) && permit.is_in_doubt());
        permit.confirmed(permit.mark());
        assert!(permit.holds(now + 1000 * LEASE));
    }
}
