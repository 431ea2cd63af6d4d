//! The clock of the actors: tokio's, which tests may pause.

use std::future::pending;
use std::time::Instant;

/// Returns the present moment.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits until a moment, or for ever where there is none.
pub(super) async fn until(moment: Option<Instant>) {
    match moment {
        // Boxed: a timer is large, and whoever waits for ever has none.
        Some(at) => Box::pin(tokio::time::sleep_until(at.into())).await,
        None => pending().await,
    }
}
