//! [`Permit`]: an owner's local knowledge that its lease still holds.
//!
//! ```text
//!            renewed(sent, mark)                    suspend()
//!   none ───────────────────────────► valid ──────────────────────────► suspended
//!                                      ▲  │ now ≥ sent + lease − margin      │
//!                                      │  └──────────► run out               │
//!                                      └──────── confirmed(mark) ◄───────────┘
//! ```
//!
//! The lease in Redis proves the ownership, but reading the lease costs a round trip. So the owner keeps a permit in
//! memory and checks it before each hand-over.
//!
//! *Time*. The permit counts from the moment when the renewal was *sent*, not from its answer. So a process that was
//! paused, or whose answer was late, trusts its lease for a shorter time than Redis does. No process trusts its lease
//! for longer.
//!
//! *Suspension*. A sign of another owner, as the invalidation of the lease's key, suspends the permit at once. Only an
//! answer to a request that was sent after the sign lifts the suspension. An answer to an earlier request may be older
//! than the sign.
//!
//! *Without the check before each notification* a displaced owner would hand over the rest of its batch, and not one
//! notification at most. With a time that counts from the answer, a process that was paused would trust a lease that
//! has ended (`a_permit_that_is_asked_once_a_batch_breaks_g4`, `a_permit_that_counts_from_the_answer_breaks_g4`).

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Permission of an owner to deliver, shared by three users. The connection hears of a takeover and suspends the
/// permit. The subscriber renews the lease and extends the permit. The delivery checks the permit before each
/// hand-over.
#[derive(Debug)]
pub struct Permit {
    /// Moment when the first renewal was sent. `until` counts from this moment, because an atomic number cannot hold an
    /// [`Instant`].
    origin: OnceLock<Instant>,
    /// End of the time for which the lease is trusted, in microseconds after `origin`. With 0 the lease is not trusted.
    /// With [`u64::MAX`] the permit has no end.
    until: AtomicU64,
    /// Number of suspensions so far. Each follows a sign that another owner may have the lease.
    suspensions: AtomicU64,
    /// Number of suspensions that were lifted. The permit holds only where this number equals `suspensions`.
    lifted: AtomicU64,
    /// Wakes a subscriber that waits when the permit is suspended.
    suspended: Notify,
    /// Set at a stop of the subscriber. A closed permit never holds again.
    closed: AtomicBool,
}

/// Number of suspensions at the moment when a request about the lease was sent. The answer lifts these suspensions and
/// no later one.
#[derive(Debug, Clone, Copy)]
pub struct SuspensionMark(u64);

impl Default for Permit {
    fn default() -> Self {
        Self::new()
    }
}

impl Permit {
    /// Creates a permit that permits nothing yet.
    pub fn new() -> Self {
        Self {
            origin: OnceLock::new(),
            until: AtomicU64::new(0),
            suspensions: AtomicU64::new(0),
            lifted: AtomicU64::new(0),
            suspended: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Creates a permit that always holds, for a delivery that no lease guards.
    pub(crate) fn unlimited() -> Self {
        let permit = Self::new();
        permit.until.store(u64::MAX, Ordering::Release);
        permit
    }

    /// Returns whether one more notification may be handed over at `now`.
    pub fn holds(&self, now: Instant) -> bool {
        !self.closed.load(Ordering::Acquire)
            && !self.is_suspended()
            && self.micros(now) < self.until.load(Ordering::Acquire)
    }

    /// Returns whether the permit is suspended.
    pub fn is_suspended(&self) -> bool {
        self.suspensions.load(Ordering::Acquire) != self.lifted.load(Ordering::Acquire)
    }

    /// Waits until the permit is suspended.
    pub async fn until_suspended(&self) {
        loop {
            let notified = self.suspended.notified();
            if self.is_suspended() {
                return;
            }
            notified.await;
        }
    }

    /// Suspends the permit, because another owner may have claimed the lease. The permit does not hold until an answer
    /// of the queue lifts the suspension.
    pub fn suspend(&self) {
        self.suspensions.fetch_add(1, Ordering::AcqRel);
        self.suspended.notify_waiters();
    }

    /// Returns the number of suspensions so far. The caller reads this mark before it sends a request about the lease.
    pub fn mark(&self) -> SuspensionMark {
        SuspensionMark(self.suspensions.load(Ordering::Acquire))
    }

    /// Lifts the suspensions that came before `mark`: the queue has answered that this owner holds the lease.
    pub fn confirmed(&self, mark: SuspensionMark) {
        // A suspension after the request stays: `suspensions` is then above `lifted`.
        self.lifted.fetch_max(mark.0, Ordering::AcqRel);
    }

    /// Extends the permit: the queue has granted the lease for `lease` in answer to a request that was sent at `sent`.
    ///
    /// The permit ends an eighth of the lease before the lease itself.
    pub fn renewed(&self, sent: Instant, lease: Duration, mark: SuspensionMark) {
        let margin = lease / 8;
        self.origin.get_or_init(|| sent);
        self.until.store(self.micros(sent + (lease - margin)), Ordering::Release);
        self.confirmed(mark);
    }

    /// Ends the permit until the next renewal: the lease belongs to another owner, or was released.
    pub fn revoke(&self) {
        self.until.store(0, Ordering::Release);
    }

    /// Ends the permit for good, because its owner stops. The lease itself is kept and renewed until the running
    /// delivery has ended.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Returns the microseconds from `origin` to a moment.
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
    fn an_answer_lifts_only_the_suspensions_that_came_before_its_question() {
        let permit = Permit::new();
        let now = Instant::now();
        permit.suspend();
        let asked = permit.mark();
        permit.suspend();
        permit.renewed(now, LEASE, asked);
        assert!(!permit.holds(now), "the second suspension is newer than the question");
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
    async fn a_suspension_wakes_who_waits_for_it_also_when_it_came_first() {
        let permit = Permit::new();
        let suspended = permit.until_suspended();
        tokio::pin!(suspended);
        let none_yet = tokio::time::timeout(Duration::ZERO, &mut suspended).await;
        assert!(none_yet.is_err());
        permit.suspend();
        suspended.await;
        permit.until_suspended().await;
    }

    #[test]
    fn a_suspension_holds_until_it_is_lifted() {
        let permit = Permit::unlimited();
        let now = Instant::now();
        assert!(permit.holds(now) && !permit.is_suspended());
        permit.suspend();
        assert!(!permit.holds(now) && permit.is_suspended());
        permit.confirmed(permit.mark());
        assert!(permit.holds(now + 1000 * LEASE));
    }
}
