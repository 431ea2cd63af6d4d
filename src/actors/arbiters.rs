//! Arbiters of subscribers. Each is a thread with its own event loop, and ends when no subscriber needs it.

use std::future::pending;

use tokio::sync::{mpsc, watch};
#[cfg(feature = "testing")]
use tokio::{task::JoinHandle, task::LocalSet};

/// Kind of the arbiters that a supervisor starts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Arbiters {
    /// Thread for each arbiter.
    Threads,
    /// Set of tasks on the supervisor's thread for each arbiter, so that tests can pause the time of all.
    #[cfg(feature = "testing")]
    Here,
}

/// Arbiter on which subscribers are started. Dropping the value stops the arbiter.
#[derive(Debug)]
pub(super) struct Arbiter {
    /// Functions on their way to the arbiter. The receiver lives in a task of the arbiter, so this channel closes when
    /// all tasks there are dropped.
    starts: mpsc::UnboundedSender<Start>,
    /// Set to `false` while the arbiter owes an answer, so that at most one question is on its way.
    answered: watch::Sender<bool>,
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
                arbiter.spawn(call_functions(started));
                Kind::Thread(arbiter)
            }
            #[cfg(feature = "testing")]
            Self::Here => Kind::Here(tokio::task::spawn_local(async move {
                LocalSet::new().run_until(call_functions(started)).await;
            })),
        };
        Ok(Arbiter { starts, answered: watch::Sender::new(true), kind })
    }
}

/// Calls the functions that are sent to an arbiter, for as long as the arbiter lives.
async fn call_functions(mut started: mpsc::UnboundedReceiver<Start>) {
    while let Some(start) = started.recv().await {
        start();
    }
    pending().await
}

impl Arbiter {
    /// Calls a function on the arbiter. The function spawns the tasks that are to run there. An arbiter that has ended
    /// drops the function.
    pub(super) fn run(&self, start: impl FnOnce() + Send + 'static) {
        drop(self.starts.send(Box::new(start)));
    }

    /// Asks the arbiter for an answer. The returned future ends with the answer, and never where the arbiter has ended.
    pub(super) fn answer(&self) -> impl Future<Output = ()> + use<> {
        let mut answered = self.answered.subscribe();
        if self.answered.send_replace(false) {
            let owed = self.answered.clone();
            self.run(move || {
                owed.send_replace(true);
            });
        }
        async move {
            if answered.wait_for(|is_answered| *is_answered).await.is_err() {
                pending().await
            }
        }
    }

    /// Returns whether all tasks of the arbiter are dropped.
    pub(super) fn has_ended(&self) -> bool {
        self.starts.is_closed()
    }

    /// Stops the arbiter without waiting. The arbiter's tasks are dropped at their next await points.
    pub(super) fn stop(&self) {
        match &self.kind {
            Kind::Thread(arbiter) => drop(arbiter.stop()),
            #[cfg(feature = "testing")]
            Kind::Here(tasks) => tasks.abort(),
        }
    }

    /// Stops the arbiter and waits until all its tasks are dropped. The thread ends shortly after.
    ///
    /// The thread itself is not joined. A task that never reaches an await point would block the joining thread too.
    /// That thread would be one of the runtime's blocking threads, and a dropped runtime waits for all of those.
    pub(super) async fn end(&self) {
        self.stop();
        self.starts.closed().await;
    }
}

impl Drop for Arbiter {
    fn drop(&mut self) {
        // An arbiter that is dropped without a stop leaks its thread.
        self.stop();
    }
}
