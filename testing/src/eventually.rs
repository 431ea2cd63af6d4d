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
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !ask().await {
            assert!(begun.elapsed() < deadline, "{caller}: not within {deadline:?}: {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}
