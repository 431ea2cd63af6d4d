//! Clock of the actors: tokio's clock, which tests can pause.

use std::future::pending;
use std::time::Instant;

/// Returns the present moment.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until a moment, or for ever where `moment` is `None`.
pub(super) async fn until(moment: Option<Instant>) {
    match moment {
        // Boxed, because a timer is large: a caller that waits for ever does not hold one.
        Some(at) => Box::pin(tokio::time::sleep_until(at.into())).await,
        None => pending().await,
    }
}
