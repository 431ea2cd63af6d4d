//! Waits for a condition that another task, thread or process makes true, and not for a time.

use std::future::Future;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Time limit of a wait on a busy machine. A correct program takes much less.
pub const SOON: Duration = Duration::from_secs(5);

/// Checks that two times of day are of one moment: at most [`SOON`] apart, in whichever order.
///
/// The later reading of a clock may be the lower one, as the clock of a host can be set back.
#[track_caller]
pub fn assert_about(a: SystemTime, b: SystemTime) {
    assert!(are_about(a, b), "{a:?} and {b:?} are more than {SOON:?} apart");
}

/// Returns whether two times of day are of one moment, as [`assert_about`] understands it.
pub fn are_about(a: SystemTime, b: SystemTime) -> bool {
    a.duration_since(b).unwrap_or_else(|earlier| earlier.duration()) <= SOON
}

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
