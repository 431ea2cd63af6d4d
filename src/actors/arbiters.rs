//! Arbiters of subscribers: one thread with its own event loop each, given back when it is no longer needed.

use std::future::pending;

use actix_rt::Arbiter;
use tokio::sync::oneshot;
#[cfg(feature = "testing")]
use tokio::{sync::mpsc, task::JoinHandle, task::LocalSet};

/// Kind of the arbiters that a supervisor starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arbiters {
    /// A thread for each.
    Threads,
    /// A set of tasks on the supervisor's thread for each, so that tests can pause the time of all.
    #[cfg(feature = "testing")]
    Here,
}

/// Arbiter that one subscriber has to itself.
#[derive(Debug)]
pub(super) struct OwnArbiter {
    place: Place,
    /// Closed when all that ran on the arbiter is dropped: its sender lives there.
    ended: oneshot::Receiver<()>,
}

#[cfg(feature = "testing")]
type Start = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
enum Place {
    Thread(Arbiter),
    #[cfg(feature = "testing")]
    Here(mpsc::UnboundedSender<Start>, JoinHandle<()>),
}

impl Arbiters {
    /// Starts an arbiter. Needs a running `System` on this thread and blocks the thread for about 150 µs.
    ///
    /// # Errors
    /// Where there is no thread for the arbiter, or no descriptor for its event loop.
    pub(super) fn start(self) -> std::io::Result<OwnArbiter> {
        let (held, ended) = oneshot::channel();
        let place = match self {
            Self::Threads => {
                let arbiter = Arbiter::try_new()?;
                arbiter.spawn(hold(held));
                Place::Thread(arbiter)
            }
            #[cfg(feature = "testing")]
            Self::Here => {
                let (starts, mut started) = mpsc::unbounded_channel::<Start>();
                let tasks = tokio::task::spawn_local(async move {
                    let run = async move {
                        while let Some(start) = started.recv().await {
                            start();
                        }
                        hold(held).await;
                    };
                    LocalSet::new().run_until(run).await;
                });
                Place::Here(starts, tasks)
            }
        };
        Ok(OwnArbiter { place, ended })
    }
}

/// Keeps a sender for as long as its arbiter lives.
async fn hold(_held: oneshot::Sender<()>) {
    pending().await
}

impl OwnArbiter {
    /// Calls a function on the arbiter, which spawns what is to run there.
    pub(super) fn run(&self, start: impl FnOnce() + Send + 'static) {
        match &self.place {
            Place::Thread(arbiter) => drop(arbiter.spawn_fn(start)),
            #[cfg(feature = "testing")]
            Place::Here(starts, _) => drop(starts.send(Box::new(start))),
        }
    }

    /// Stops the arbiter without waiting: what runs on it is dropped at its next await point.
    pub(super) fn stop(&self) {
        match &self.place {
            Place::Thread(arbiter) => drop(arbiter.stop()),
            #[cfg(feature = "testing")]
            Place::Here(_, tasks) => tasks.abort(),
        }
    }

    /// Stops the arbiter and waits until all that ran on it is dropped, and its thread about to be gone.
    ///
    /// The thread itself is not joined: where what runs on it never comes to an await point, whoever joined it would be
    /// stuck too, and a runtime that is dropped waits for all of its blocking threads.
    pub(super) async fn end(mut self) {
        self.stop();
        let _ = (&mut self.ended).await;
    }
}

impl Drop for OwnArbiter {
    fn drop(&mut self) {
        // An arbiter that is dropped without being stopped leaks its thread.
        self.stop();
    }
}
