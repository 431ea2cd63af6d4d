//! Status of sessions that no server owns: whether a session store of the fleet remembers them.
//!
//! *Callers*. A push, for the sessions whose queue had no lease: [`Pushed::session`](crate::Pushed::session) tells the
//! caller whether anybody knows the session. The answer is advice. The notification is queued either way, as the
//! session may begin before it expires.

use redis::Cmd;

use super::RedisBackend;
use super::link::{Answer, Request, read};
use crate::session_id::{SessionId, SessionStatus};

/// Number of sessions per pipeline.
const PIPELINE: usize = 500;

impl RedisBackend {
    /// Reads the status of sessions without a lease, in their order. A failed read does not fail the push before it.
    pub(super) async fn status_of_unowned(&self, sessions: &[&SessionId]) -> Vec<SessionStatus> {
        let mut found = Vec::with_capacity(sessions.len());
        for some in sessions.chunks(PIPELINE) {
            let mut request = Request::new();
            for session in some {
                request.add(self.status_command(session));
            }
            let answers = self.link.send(&request).await.unwrap_or_default();
            let mut statuses = answers.into_iter().map(status);
            found.extend(some.iter().map(|_| statuses.next().unwrap_or(SessionStatus::NotRead)));
        }
        found
    }

    /// Returns the command whose answer [`status`] reads.
    ///
    /// The key of a stored session lies in another slot than its queue, so the script that pushes cannot read it.
    pub(super) fn status_command(&self, session: &SessionId) -> Cmd {
        redis::cmd("STRLEN").arg(self.keys.session(session)).take()
    }
}

/// Reads the status of a session without a lease.
pub(super) fn status(answer: Answer) -> SessionStatus {
    match answer.and_then(read::<u64>) {
        // The mark of a session that has ended is empty.
        Ok(0) => SessionStatus::Unknown,
        Ok(_) => SessionStatus::Known,
        Err(_) => SessionStatus::NotRead,
    }
}
