//! Hosts of subscribers: an arbiter of its own for a dedicated one, an arbiter with many others for a shared one.

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

/// Arbiter of many subscribers. Its load is the number of its references.
pub(super) struct SharedArbiter {
    arbiter: Arbiter,
    /// Queues that its subscribers share, made on the arbiter by the first of them.
    queues: Arc<OnceLock<Arc<dyn Queues>>>,
    /// Number of subscribers that were sent there and have not begun: they never begin where a session blocks the thread.
    unbegun: Arc<AtomicUsize>,
}

impl SharedArbiter {
    fn is_behind(&self) -> bool {
        self.unbegun.load(Ordering::Relaxed) > 0
    }
}

/// Arbiters of all shared subscribers: one per core, each started when all before it have subscribers.
pub(super) struct SharedArbiters {
    running: Vec<Rc<SharedArbiter>>,
    /// Largest number of arbiters: less than there are cores where the process could have no further one.
    largest: usize,
}

impl SharedArbiters {
    pub(super) fn new() -> Self {
        Self { running: Vec::new(), largest: cores() }
    }

    /// Returns the arbiter with the fewest subscribers among those that have begun all; where there is none, with the fewest.
    ///
    /// # Errors
    /// [`EnsureError::NoArbiter`] where none runs and none can be started.
    pub(super) fn least_loaded(&mut self, arbiters: Arbiters) -> Result<Rc<SharedArbiter>, EnsureError> {
        self.forget_ended();
        let least = self.running.iter().min_by_key(|arbiter| (arbiter.is_behind(), Rc::strong_count(arbiter))).cloned();
        // Two references: one is kept by `running`, the other is `least` itself.
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

    /// Drops arbiters whose threads have ended. Their subscribers say that they were dropped, and are restarted.
    fn forget_ended(&mut self) {
        let before = self.running.len();
        self.running.retain(|shared| !shared.arbiter.has_ended());
        if self.running.len() < before {
            tracing::error!("an arbiter of shared subscribers has ended; its subscribers are started on others");
            self.largest = cores();
        }
    }

    /// Stops all arbiters. Each of the futures ends when all that ran there is dropped.
    pub(super) fn end(&mut self) -> impl Iterator<Item = impl Future<Output = ()> + use<>> + use<> {
        std::mem::take(&mut self.running).into_iter().map(|shared| async move { shared.arbiter.end().await })
    }
}

impl Host {
    /// Starts a subscriber on the arbiter, over the backend itself or the queues that the arbiter shares.
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

fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}
