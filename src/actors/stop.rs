//! [`StopSignal`]: what a supervisor asks of one subscriber.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::Notify;

const ASKED: u8 = 1;
const FORCED: u8 = 2;

/// Request to stop, which only ever grows: first the subscriber is asked, and dropped where it takes too long.
#[derive(Debug, Default)]
pub(super) struct StopSignal {
    level: AtomicU8,
    raised: Notify,
}

impl StopSignal {
    /// Asks the subscriber to end by itself.
    pub(super) fn ask(&self) {
        self.raise(ASKED);
    }

    /// Has the subscriber, and all that runs for it, dropped at its next await point.
    pub(super) fn force(&self) {
        self.raise(FORCED);
    }

    /// Returns whether the subscriber is asked to stop.
    pub(super) fn is_asked(&self) -> bool {
        self.is(ASKED)
    }

    /// Ends when the subscriber is asked to stop.
    pub(super) async fn asked(&self) {
        self.reached(ASKED).await;
    }

    /// Ends when the subscriber is to be dropped.
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
