//! Waiting for what another task, thread or process does, without guessing how long it takes.

#![allow(dead_code)] // each suite uses a part of it

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Long enough for a busy machine; whoever is right ends much sooner.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Asks again and again until the answer is yes.
///
/// # Panics
/// After `deadline`, saying what did not come.
#[track_caller]
pub(crate) fn eventually<F: Future<Output = bool>>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !ask().await {
            assert!(begun.elapsed() < deadline, "{caller}: not within {deadline:?}: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
