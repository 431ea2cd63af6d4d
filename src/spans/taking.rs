//! Spans of takes: each acknowledges delivered messages, and reads the next ones.

use tracing::field::Empty;
use tracing::{Span, debug_span};

use super::{linking, record_failure};
use crate::failure::QueueError;
use crate::session_id::SessionId;
use crate::subscription::Taken;

/// Opens the span of one take. `acknowledged` is the number of messages that the take removes.
pub(crate) fn take(system: &'static str, session: &SessionId, acknowledged: usize) -> Span {
    debug_span!(
        parent: None,
        "take",
        "otel.kind" = "client",
        "otel.status_code" = Empty,
        "otel.status_description" = Empty,
        "messaging.system" = system,
        "messaging.operation.name" = "take",
        "messaging.operation.type" = "receive",
        "messaging.batch.message_count" = Empty,
        "mcp.session.id" = ?session,
        acknowledged,
    )
}

/// Writes the outcome of a take into its span, and links the span with the pushes of the messages.
pub(crate) fn record_taken(take: &Span, taken: &Result<Taken, QueueError>) {
    if take.is_disabled() {
        return;
    }
    let taken = match taken {
        Ok(taken) => taken,
        Err(error) => return record_failure(take, error),
    };
    take.record("messaging.batch.message_count", taken.items.len());
    let envelopes = taken.items.iter().filter_map(|item| item.envelope.as_ref().ok());
    linking::link(take, envelopes.filter_map(|envelope| envelope.trace_context()).filter(|pushed| pushed.is_sampled()));
}
