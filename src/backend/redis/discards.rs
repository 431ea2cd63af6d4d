//! Discards in Redis: their reasons as scripts take them, and the trouble that a script may report.

use crate::backend::MessageOutcome;
use crate::session_id::SessionId;

/// Returns the reason of a discard in the form that a dead letter carries; empty where the message was delivered.
pub(super) fn reason(outcome: &MessageOutcome) -> Vec<u8> {
    outcome.discarded.as_ref().map(|reason| reason.to_wire().into_bytes()).unwrap_or_default()
}

/// Logs that discarded notifications were not kept, where the script reported such trouble.
pub(super) fn not_kept(session: &SessionId, trouble: &[u8]) {
    if !trouble.is_empty() {
        let error = String::from_utf8_lossy(trouble);
        tracing::error!(?session, %error, "keeping dead letters failed; the discarded notifications are lost");
    }
}
