//! What the supervisor keeps of each subscriber: where it runs, and whoever waits for its end.

use tokio::sync::{oneshot, watch};

use super::parked::Parked;
use crate::actors::arbiters::OwnArbiter;
use crate::actors::post::{Forced, Post};
use crate::retry::RestartBudget;

/// One subscriber of the registry.
pub(super) struct Child {
    pub(super) post: Post,
    pub(super) stop: watch::Sender<bool>,
    pub(super) runs: Runs,
    pub(super) restarts: RestartBudget,
}

/// Where a subscriber runs.
pub(super) enum Runs {
    /// On an arbiter of its own.
    OnArbiter(OwnArbiter),
    /// Nowhere: it failed, and pauses before it is started again.
    Pausing,
    /// Nowhere: its client is away.
    Parked(Parked),
}

impl Runs {
    /// Whether it counts against [`Config::dedicated_limit`](crate::Config::dedicated_limit).
    pub(super) fn has_a_place(&self) -> bool {
        !matches!(self, Self::Parked(_))
    }

    /// Stops it without waiting: whatever runs is dropped at its next await point.
    pub(super) fn stop(&self) {
        match self {
            Self::OnArbiter(arbiter) => arbiter.stop(),
            Self::Parked(parked) => parked.abort(),
            Self::Pausing => {}
        }
    }

    /// Stops it and waits until all that ran is dropped.
    pub(super) async fn end(self) {
        if let Self::OnArbiter(arbiter) = self {
            arbiter.end().await;
        }
    }
}

/// A subscriber that was asked to stop, or was replaced, and has not ended yet.
pub(super) struct Ending {
    pub(super) post: Post,
    pub(super) runs: Runs,
    /// Who wants to know of the end: answers to stops, successors, a shutdown. Dropped when it has ended by itself.
    pub(super) waiters: Vec<oneshot::Sender<Forced>>,
}

impl Ending {
    /// Something that ends when this has.
    pub(super) fn watch(&mut self) -> oneshot::Receiver<Forced> {
        let (waiter, end) = oneshot::channel();
        self.waiters.push(waiter);
        end
    }
}
