//! State of each subscriber in the supervisor: its host, its place, and the waiters for its end.

use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::oneshot;

use super::host::Host;
use super::limits::Place;
use super::parked::Parked;
use crate::actors::subscriber_context::{Forced, SubscriberContext};
use crate::retry::RestartBudget;

/// Subscriber in the registry.
pub(super) struct Child {
    pub(super) context: Arc<SubscriberContext>,
    pub(super) run_state: RunState,
    /// Place within the limits of the process; `None` while the client is away, because a parked subscriber holds none.
    pub(super) place: Option<Place>,
    /// Restarts that the subscriber may still use.
    pub(super) restarts: RestartBudget,
}

/// Kind of the futures that a subscriber has now, and their place.
pub(super) enum RunState {
    /// The subscriber runs on an arbiter.
    Running(Host),
    /// The subscriber has failed, and pauses before its next start.
    Pausing,
    /// The client is away. Only the watch of its presence runs.
    Parked(Parked),
}

impl RunState {
    /// Stops the subscriber without waiting. Its futures are dropped at their next await points.
    pub(super) fn stop(&self, context: &SubscriberContext) {
        match self {
            Self::Running(Host::Dedicated(arbiter)) => arbiter.stop(),
            Self::Running(Host::Shared(_)) => context.stop.force(),
            Self::Parked(parked) => parked.abort(),
            Self::Pausing => {}
        }
    }

    /// Stops the arbiter of a dedicated subscriber, and waits until all tasks there are dropped.
    pub(super) async fn end(self) {
        if let Self::Running(Host::Dedicated(arbiter)) = self {
            arbiter.end().await;
        }
    }

    /// Ends as [`end`](Self::end) does, then calls `next`. Where no arbiter is to be stopped, `next` is called at once
    /// and no task is spawned.
    pub(super) fn end_then(self, next: impl FnOnce() + 'static) {
        if matches!(self, Self::Running(Host::Dedicated(_))) {
            actix_rt::spawn(self.end().map(|()| next()));
        } else {
            next();
        }
    }
}

/// Subscriber that was asked to stop or was replaced, and has not ended yet.
pub(super) struct StoppingSubscriber {
    pub(super) context: Arc<SubscriberContext>,
    pub(super) run_state: RunState,
    /// Senders to the stops, successors and shutdowns that wait for the end. They are dropped when the subscriber has
    /// ended by itself, and get [`Forced`] when it was dropped.
    pub(super) waiters: Vec<oneshot::Sender<Forced>>,
}

impl StoppingSubscriber {
    /// Returns a receiver that ends when the subscriber has ended.
    pub(super) fn watch(&mut self) -> oneshot::Receiver<Forced> {
        let (waiter, end) = oneshot::channel();
        self.waiters.push(waiter);
        end
    }
}
