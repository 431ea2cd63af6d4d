//! [`StopSignal`]: request of a supervisor to one subscriber to end.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

const ASKED: u8 = 1;
const FORCED: u8 = 2;

/// Request to stop. The request only ever rises: the supervisor first asks, and later forces a subscriber that takes
/// too long.
#[derive(Debug, Default)]
pub(super) struct StopSignal {
    /// Level of the request: 0, [`ASKED`] or [`FORCED`].
    level: AtomicU8,
    /// Wakes the waiters when the level rises.
    raised: Notify,
}

impl StopSignal {
    /// Asks the subscriber to end by itself.
    pub(super) fn ask(&self) {
        self.raise(ASKED);
    }

    /// Has the subscriber, and all tasks that run for it, dropped at their next await points.
    pub(super) fn force(&self) {
        self.raise(FORCED);
    }

    /// Returns whether the subscriber is asked to stop.
    pub(super) fn is_asked(&self) -> bool {
        self.is(ASKED)
    }

    /// Waits until the subscriber is asked to stop.
    pub(super) async fn asked(&self) {
        self.reached(ASKED).await;
    }

    /// Waits until the subscriber is to be dropped.
    pub(super) async fn forced(&self) {
        self.reached(FORCED).await;
    }

    fn raise(&self, level: u8) {
        self.level.fetch_max(level, Ordering::AcqRel);
        self.raised.notify_waiters();
    }

    fn is(&self, level: u8) -> bool {
        self.level.load(Ordering::Acquire) >= level
    }

    /// Waits until the level is at least `level`. The waiter registers before it checks, so no rise is missed.
    async fn reached(&self, level: u8) {
        loop {
            let raised = self.raised.notified();
            if self.is(level) {
                return;
            }
            raised.await;
        }
    }
}
