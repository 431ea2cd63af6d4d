//! Waits for a condition that another task, thread or process makes true, and not for a time.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

/// Time limit of a wait on a busy machine. A correct program takes much less.
pub const SOON: Duration = Duration::from_secs(5);

/// Checks a condition again and again until it holds.
///
/// # Panics
/// At the deadline. The message names the condition.
#[track_caller]
pub fn eventually<F: Future<Output = bool>>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    eventually_some(what, deadline, move || {
        let asked = ask();
        async move { asked.await.then_some(()) }
    })
}

/// Asks again and again until there is an answer, and returns the answer.
///
/// # Panics
/// At the deadline. The message names the answer that is waited for.
#[track_caller]
pub fn eventually_some<T, F: Future<Output = Option<T>>>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> F,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            assert!(begun.elapsed() < deadline, "{caller}: not within {deadline:?}: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
