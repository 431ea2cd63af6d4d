//! Standing of sessions that no server owns: whether a session store of the fleet remembers them.

use std::collections::HashMap;

use super::RedisBackend;
use super::link::{Request, read};
use crate::session_id::{SessionId, SessionStatus};

/// Number of sessions that are looked up in one pipeline.
const PIPELINE: usize = 500;

impl RedisBackend {
    /// Reads the status of sessions without a lease. A failed read is no failure of the push before it.
    ///
    /// The key of a stored session lies in another slot than its queue, so the script that pushes cannot read it.
    pub(super) async fn status_of_unowned(&self, sessions: Vec<SessionId>) -> HashMap<SessionId, SessionStatus> {
        let mut found = HashMap::with_capacity(sessions.len());
        for some in sessions.chunks(PIPELINE) {
            let mut request = Request::new();
            for session in some {
                request.add(redis::cmd("STRLEN").arg(self.keys.session(session)));
            }
            let mut lengths = self.link.send(&request).await.unwrap_or_default().into_iter();
            for session in some {
                let status = match lengths.next().map(|length| length.and_then(read::<u64>)) {
                    // The mark of a session that has ended is empty.
                    Some(Ok(0)) => SessionStatus::Unknown,
                    Some(Ok(_)) => SessionStatus::Known,
                    Some(Err(_)) | None => SessionStatus::NotRead,
                };
                found.insert(session.clone(), status);
            }
        }
        found
    }
}
