//! [`OtherServers`]: knowledge whether this server is one of several, which decides how soon a client may come back.
//!
//! A balancer sends a client whose server died to another server at once. A server that runs alone must be started
//! again first, and clients give up after two attempts.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::backend::Backend;

/// Time for which an answer is valid, however many clients come back meanwhile.
const FRESH: Duration = Duration::from_secs(1);

/// Longest time for which a stream waits for the answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// Knowledge about the other servers of the fleet.
#[derive(Debug, Default)]
pub(super) struct OtherServers {
    /// Last answer of Redis and its time: set where there was another server. Locked while Redis is asked, so that all
    /// who come meanwhile get the same answer.
    last: Mutex<Option<(bool, Instant)>>,
}

impl OtherServers {
    /// Returns whether there is another server. Where Redis does not answer, its last answer counts, or else "none".
    ///
    /// # Cancellation
    /// The last answer stays.
    pub(super) async fn exist(&self, queue: &dyn Backend) -> bool {
        let mut last = self.last.lock().await;
        if let Some((exist, asked)) = *last
            && asked.elapsed() < FRESH
        {
            return exist;
        }
        let before = last.is_some_and(|(exist, _)| exist);
        let exist = match tokio::time::timeout(PATIENCE, queue.has_others()).await {
            Ok(Ok(exist)) => exist,
            Ok(Err(error)) => {
                tracing::debug!(%error, "counting the servers of the fleet failed; the last count is used");
                before
            }
            Err(_) => before,
        };
        *last = Some((exist, Instant::now()));
        exist
    }
}
