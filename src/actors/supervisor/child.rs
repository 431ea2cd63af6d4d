//! State of each subscriber in the supervisor: its host, its place, and the waiters for its end.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::host::Host;
use super::limits::Place;
use super::parked::Parked;
use crate::actors::post::{Forced, Post};
use crate::retry::RestartBudget;

/// One subscriber of the registry.
pub(super) struct Child {
    pub(super) post: Arc<Post>,
    pub(super) runs: Runs,
    /// Place within the limits of the process; `None` while the client is away.
    pub(super) place: Option<Place>,
    pub(super) restarts: RestartBudget,
}

/// Where a subscriber runs.
pub(super) enum Runs {
    /// On an arbiter.
    On(Host),
    /// Nowhere: it failed, and pauses before it is started again.
    Pausing,
    /// Nowhere: its client is away.
    Parked(Parked),
}

impl Runs {
    /// Stops it without waiting: whatever runs is dropped at its next await point.
    pub(super) fn stop(&self, post: &Post) {
        match self {
            Self::On(Host::Dedicated(arbiter)) => arbiter.stop(),
            Self::On(Host::Shared(_)) => post.stop.force(),
            Self::Parked(parked) => parked.abort(),
            Self::Pausing => {}
        }
    }

    /// Stops the arbiter of a dedicated subscriber, and waits until all that ran there is dropped.
    pub(super) async fn end(self) {
        if let Self::On(Host::Dedicated(arbiter)) = self {
            arbiter.end().await;
        }
    }

    /// Ends, then calls `next`: at once, and without a task, where no arbiter is to be stopped.
    pub(super) fn end_then(self, next: impl FnOnce() + 'static) {
        if matches!(self, Self::On(Host::Dedicated(_))) {
            actix_rt::spawn(self.end().map(|()| next()));
        } else {
            next();
        }
    }
}

/// A subscriber that was asked to stop, or was replaced, and has not ended yet.
pub(super) struct Ending {
    pub(super) post: Arc<Post>,
    pub(super) runs: Runs,
    /// Answers to stops, successors and shutdowns that wait for the end. Dropped when it has ended by itself.
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
