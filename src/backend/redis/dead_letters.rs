//! Storage of dead letters in Redis: arguments of every script that discards, and the trouble that it may report.

use crate::backend::MessageOutcome;
use crate::config::Config;
use crate::session_id::SessionId;

/// Returns the settings that scripts take: most dead letters, their life in ms, most bytes of them, and the life of a
/// receipt in ms.
pub(super) fn settings(config: &Config) -> [Vec<u8>; 4] {
    let text = |n: u128| n.to_string().into_bytes();
    [
        text(config.dead_letters() as u128),
        text(config.dead_letter_life().as_millis()),
        text(config.queue_max_bytes() as u128),
        text(config.receipt_life().as_millis()),
    ]
}

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
