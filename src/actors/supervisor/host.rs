//! Hosts of subscribers: an arbiter alone for a dedicated subscriber, an arbiter with many others for a shared one.
//!
//! *Choice*. The least loaded arbiter gets the next shared subscriber. An arbiter on which a subscriber has not begun
//! yet comes last: a session there may block the thread, and new sessions would never be served
//! (`g7_sessions_that_are_stuck_hold_up_no_neighbour`).
//!
//! *Ends*. An arbiter may end under its subscribers. Each subscriber's guard reports
//! [`ExitReason::Dropped`](crate::subscription::ExitReason::Dropped), and the supervisor restarts it on another
//! arbiter.

use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use crate::actors::arbiters::{Arbiter, Arbiters};
use crate::actors::subscriber::SessionSubscriberActor;
use crate::backend::{Backend, Queues};
use crate::session::EnsureError;

/// Arbiter on which one subscriber runs.
pub(super) enum Host {
    Dedicated(Arbiter),
    Shared(Rc<SharedArbiter>),
}

/// Arbiter of many subscribers. The load of the arbiter is the number of references to this value.
pub(super) struct SharedArbiter {
    arbiter: Arbiter,
    /// Queues that the arbiter's subscribers share. The first subscriber makes them on the arbiter, because they belong
    /// to its thread.
    queues: Arc<OnceLock<Arc<dyn Queues>>>,
    /// Number of subscribers that were sent to the arbiter and have not begun. The number stays above zero where a
    /// session blocks the thread, so new subscribers avoid that thread.
    unbegun: Arc<AtomicUsize>,
}

impl SharedArbiter {
    /// Returns whether a subscriber was sent to the arbiter and has not begun.
    fn is_behind(&self) -> bool {
        self.unbegun.load(Ordering::Relaxed) > 0
    }
}

/// Arbiters of all shared subscribers, at most one per core. A further arbiter is started when each of the others has a
/// subscriber.
pub(super) struct SharedArbiters {
    running: Vec<Rc<SharedArbiter>>,
    /// Largest number of arbiters: the number of cores, or less where the process could not start a further arbiter.
    largest: usize,
}

impl SharedArbiters {
    pub(super) fn new() -> Self {
        Self { running: Vec::new(), largest: cores() }
    }

    /// Returns the arbiter with the fewest subscribers. An arbiter on which all subscribers have begun comes before one
    /// on which some have not.
    ///
    /// # Errors
    /// [`EnsureError::NoArbiter`] where no arbiter runs and none can be started.
    pub(super) fn least_loaded(&mut self, arbiters: Arbiters) -> Result<Rc<SharedArbiter>, EnsureError> {
        self.forget_ended();
        let least = self.running.iter().min_by_key(|arbiter| (arbiter.is_behind(), Rc::strong_count(arbiter))).cloned();
        // An arbiter without subscribers has two references: one in `running`, and `least` itself.
        if least.as_ref().is_some_and(|least| Rc::strong_count(least) <= 2) || self.running.len() >= self.largest {
            return least.ok_or_else(|| EnsureError::NoArbiter("there is no core".to_owned()));
        }
        match (arbiters.start(), least) {
            (Ok(arbiter), _) => {
                let started = Rc::new(SharedArbiter { arbiter, queues: Arc::default(), unbegun: Arc::default() });
                self.running.push(Rc::clone(&started));
                Ok(started)
            }
            (Err(error), Some(least)) => {
                self.largest = self.running.len();
                tracing::warn!(%error, arbiters = self.largest, "starting an arbiter failed; subscribers share fewer arbiters");
                Ok(least)
            }
            (Err(error), None) => Err(EnsureError::NoArbiter(error.to_string())),
        }
    }

    /// Asks each arbiter that has not ended to answer. Each future ends with the answer of its arbiter.
    pub(super) fn answers(&self) -> impl Iterator<Item = impl Future<Output = ()> + use<>> {
        self.running.iter().filter(|shared| !shared.arbiter.has_ended()).map(|shared| shared.arbiter.answer())
    }

    /// Drops arbiters whose threads have ended. The subscribers there have reported
    /// [`ExitReason::Dropped`](crate::subscription::ExitReason::Dropped) and are restarted elsewhere.
    fn forget_ended(&mut self) {
        let before = self.running.len();
        self.running.retain(|shared| !shared.arbiter.has_ended());
        if self.running.len() < before {
            tracing::error!("an arbiter of shared subscribers has ended; its subscribers are started on others");
            self.largest = cores();
        }
    }

    /// Stops all arbiters. Each returned future ends when all tasks of its arbiter are dropped.
    pub(super) fn end(&mut self) -> impl Iterator<Item = impl Future<Output = ()> + use<>> + use<> {
        std::mem::take(&mut self.running).into_iter().map(|shared| async move { shared.arbiter.end().await })
    }
}

impl Host {
    /// Starts a subscriber on the arbiter. A dedicated subscriber takes from the backend itself, a shared one from the
    /// queues that the arbiter shares.
    pub(super) fn start(&self, subscriber: SessionSubscriberActor, backend: &Arc<dyn Backend>) {
        let backend = Arc::clone(backend);
        match self {
            Self::Dedicated(arbiter) => arbiter.run(move || subscriber.start_over(backend)),
            Self::Shared(shared) => {
                let (queues, unbegun) = (Arc::clone(&shared.queues), Arc::clone(&shared.unbegun));
                unbegun.fetch_add(1, Ordering::Relaxed);
                shared.arbiter.run(move || {
                    unbegun.fetch_sub(1, Ordering::Relaxed);
                    subscriber.start_over(Arc::clone(queues.get_or_init(|| backend.share())));
                });
            }
        }
    }
}

/// Returns the number of cores that this process may use.
fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}
