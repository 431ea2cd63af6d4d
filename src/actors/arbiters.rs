//! A dedicated arbiter: one thread with its own event loop, given back when it is no longer needed.

use actix::{Arbiter, ArbiterHandle};

/// An arbiter that one subscriber has to itself.
#[derive(Debug)]
pub(super) struct OwnArbiter(Option<Arbiter>);

impl OwnArbiter {
    /// Starts one. It needs a running `System` on this thread and blocks it for about 150 µs.
    pub(super) fn start() -> Self {
        Self(Some(Arbiter::new()))
    }

    pub(super) fn handle(&self) -> Option<ArbiterHandle> {
        self.0.as_ref().map(Arbiter::handle)
    }

    /// Stops it and waits until its thread is gone. What runs on it is dropped at its next await point; where it never
    /// comes to one, its thread stays and so does the blocking thread that waits for it here.
    pub(super) async fn end(mut self) {
        if let Some(arbiter) = self.0.take() {
            arbiter.stop();
            // The thread's own panics were reported where they happened.
            let _ = tokio::task::spawn_blocking(move || arbiter.join()).await;
        }
    }
}

impl Drop for OwnArbiter {
    fn drop(&mut self) {
        // An arbiter that is dropped without being stopped leaks its thread.
        if let Some(arbiter) = &self.0 {
            arbiter.stop();
        }
    }
}
