//! The clock of the actors: tokio's, which tests may pause.

use std::time::Instant;

/// Returns the present moment.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
