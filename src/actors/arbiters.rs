//! A dedicated arbiter: one thread with its own event loop, given back when it is no longer needed.

use std::future::pending;

use actix_rt::{Arbiter, ArbiterHandle};
use tokio::sync::oneshot;

/// An arbiter that one subscriber has to itself.
#[derive(Debug)]
pub(super) struct OwnArbiter {
    arbiter: Arbiter,
    /// Its sender lives on the arbiter and is dropped with all that runs there.
    ended: oneshot::Receiver<()>,
}

impl OwnArbiter {
    /// Starts one. It needs a running `System` on this thread and blocks it for about 150 µs.
    ///
    /// # Errors
    /// Where there is no thread for it, or no descriptor for its event loop.
    pub(super) fn start() -> std::io::Result<Self> {
        let arbiter = Arbiter::try_new()?;
        let (held, ended) = oneshot::channel();
        arbiter.spawn(async move {
            let _held: oneshot::Sender<()> = held;
            pending().await
        });
        Ok(Self { arbiter, ended })
    }

    pub(super) fn handle(&self) -> ArbiterHandle {
        self.arbiter.handle()
    }

    /// Stops it without waiting: what runs on it is dropped at its next await point.
    pub(super) fn stop(&self) {
        self.arbiter.stop();
    }

    /// Stops it and waits until all that ran on it is dropped, and its thread about to be gone.
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
