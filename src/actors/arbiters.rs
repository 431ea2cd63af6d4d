//! Arbiters of subscribers: one thread with its own event loop each, ended when it is no longer needed.

use std::future::pending;

use tokio::sync::mpsc;
#[cfg(feature = "testing")]
use tokio::{task::JoinHandle, task::LocalSet};

/// Kind of the arbiters that a supervisor starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arbiters {
    /// A thread for each.
    Threads,
    /// A set of tasks on the supervisor's thread for each, so that tests can pause the time of all.
    #[cfg(feature = "testing")]
    Here,
}

/// Arbiter that subscribers are started on. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Arbiter {
    /// Functions on their way to the arbiter. Closed when all that ran there is dropped: the receiver lives there.
    starts: mpsc::UnboundedSender<Start>,
    kind: Kind,
}

type Start = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
enum Kind {
    Thread(actix_rt::Arbiter),
    #[cfg(feature = "testing")]
    Here(JoinHandle<()>),
}

impl Arbiters {
    /// Starts an arbiter. Needs a running `System` on this thread and blocks the thread for about 150 µs.
    ///
    /// # Errors
    /// Where there is no thread for the arbiter, or no descriptor for its event loop.
    pub(super) fn start(self) -> std::io::Result<Arbiter> {
        let (starts, started) = mpsc::unbounded_channel();
        let kind = match self {
            Self::Threads => {
                let arbiter = actix_rt::Arbiter::try_new()?;
                arbiter.spawn(call(started));
                Kind::Thread(arbiter)
            }
            #[cfg(feature = "testing")]
            Self::Here => Kind::Here(tokio::task::spawn_local(async move {
                LocalSet::new().run_until(call(started)).await;
            })),
        };
        Ok(Arbiter { starts, kind })
    }
}

/// Calls what is sent to an arbiter, for as long as the arbiter lives.
async fn call(mut started: mpsc::UnboundedReceiver<Start>) {
    while let Some(start) = started.recv().await {
        start();
    }
    pending().await
}

impl Arbiter {
    /// Calls a function on the arbiter, which spawns what is to run there. An arbiter that has ended drops the function.
    pub(super) fn run(&self, start: impl FnOnce() + Send + 'static) {
        drop(self.starts.send(Box::new(start)));
    }

    /// Returns whether all that ran on the arbiter is dropped.
    pub(super) fn has_ended(&self) -> bool {
        self.starts.is_closed()
    }

    /// Stops the arbiter without waiting: what runs on it is dropped at its next await point.
    pub(super) fn stop(&self) {
        match &self.kind {
            Kind::Thread(arbiter) => drop(arbiter.stop()),
            #[cfg(feature = "testing")]
            Kind::Here(tasks) => tasks.abort(),
        }
    }

    /// Stops the arbiter and waits until all that ran on it is dropped, and its thread about to be gone.
    ///
    /// The thread itself is not joined: where what runs on it never comes to an await point, whoever joined it would be
    /// stuck too, and a runtime that is dropped waits for all of its blocking threads.
    pub(super) async fn end(&self) {
        self.stop();
        self.starts.closed().await;
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        // An arbiter that is dropped without being stopped leaks its thread.
        self.stop();
    }
}
