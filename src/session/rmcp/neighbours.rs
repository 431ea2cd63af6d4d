//! [`Neighbours`]: whether this server is one of several, which decides how soon a client may come back.
//!
//! A balancer leads a client whose server died to another server at once. A server that is alone has to be started first, and
//! clients give up after two attempts.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::lock::lock;

/// Time for which an answer holds, however many clients come back meanwhile.
const FRESH: Duration = Duration::from_secs(1);

/// Longest time that a stream waits for the answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is known of the other servers of the fleet.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Whether there was another server, and when that was asked.
    last: Mutex<Option<(bool, Instant)>>,
}

impl Neighbours {
    /// Returns whether another server is there. Where Redis does not say, what it said before counts, or that there is none.
    ///
    /// # Cancellation
    /// Leaves what was known.
    pub(super) async fn any(&self, queue: &dyn Backend) -> bool {
        let before = {
            let mut last = lock(&self.last);
            let before = last.is_some_and(|(any, _)| any);
            if last.is_some_and(|(_, asked)| asked.elapsed() < FRESH) {
                return before;
            }
            *last = Some((before, Instant::now()));
            before
        };
        match tokio::time::timeout(PATIENCE, queue.has_others()).await {
            Ok(Ok(any)) => {
                *lock(&self.last) = Some((any, Instant::now()));
                any
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "counting the servers of the fleet failed; their number is taken to be as before");
                before
            }
            Err(_) => before,
        }
    }
}
