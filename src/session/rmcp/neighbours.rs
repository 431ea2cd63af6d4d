//! [`Neighbours`]: whether this server is one of several, which decides how soon a client may come back.
//!
//! A balancer leads a client whose server died to another server at once. A server that is alone has to be started first, and
//! clients give up after two attempts.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::backend::Backend;

/// Time for which an answer holds, however many clients come back meanwhile.
const FRESH: Duration = Duration::from_secs(1);

/// Longest time that a stream waits for the answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is known of the other servers of the fleet.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Whether there was another server, and when that was asked. Locked while Redis is asked: all who come meanwhile get the
    /// same answer.
    last: Mutex<Option<(bool, Instant)>>,
}

impl Neighbours {
    /// Returns whether another server is there. Where Redis does not say, what it said before counts, or that there is none.
    ///
    /// # Cancellation
    /// Leaves what was known.
    pub(super) async fn any(&self, queue: &dyn Backend) -> bool {
        let mut last = self.last.lock().await;
        if let Some((any, asked)) = *last
            && asked.elapsed() < FRESH
        {
            return any;
        }
        let before = last.is_some_and(|(any, _)| any);
        let any = match tokio::time::timeout(PATIENCE, queue.has_others()).await {
            Ok(Ok(any)) => any,
            Ok(Err(error)) => {
                tracing::debug!(%error, "counting the servers of the fleet failed; their number is taken to be as before");
                before
            }
            Err(_) => before,
        };
        *last = Some((any, Instant::now()));
        any
    }
}
