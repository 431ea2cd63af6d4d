//! Spans of deliveries: a batch, each of its notifications, and the confirmation.

use tracing::field::Empty;
use tracing::{Span, debug_span};

use super::{linking, record_failure, shown};
use crate::envelope::{Envelope, Outbound};
use crate::session_id::SessionId;
use crate::subscription::HandOverError;
use crate::trace_context::TraceContext;

/// Opens the span of the hand-overs of one batch.
pub(crate) fn delivery(system: &'static str, session: &SessionId, batch: &[Envelope]) -> Span {
    let span = debug_span!(
        parent: None,
        "delivery",
        "otel.kind" = "consumer",
        "messaging.system" = system,
        "messaging.operation.name" = "deliver",
        "messaging.operation.type" = "process",
        "messaging.batch.message_count" = batch.len(),
        "mcp.session.id" = ?session,
        accepted = Empty,
    );
    if !span.is_disabled() {
        linking::link(&span, batch.iter().filter_map(|envelope| recorded(envelope)));
    }
    span
}

/// Opens the span of one notification, as a child of the span that pushed it. Returns a disabled span where the push is
/// in no trace, or its worker does not record the trace.
pub(crate) fn deliver(system: &'static str, session: &SessionId, notification: &Outbound) -> Span {
    let Some(pushed) = recorded(notification) else { return Span::none() };
    let span = debug_span!(
        parent: None,
        "deliver",
        "otel.kind" = "consumer",
        "otel.status_code" = Empty,
        "otel.status_description" = Empty,
        "messaging.system" = system,
        "messaging.operation.name" = "deliver",
        "messaging.operation.type" = "process",
        "messaging.message.id" = %notification.id,
        "mcp.method.name" = shown(notification.method()),
        "mcp.session.id" = ?session,
        attempt = notification.attempt,
        trace_id = pushed.trace_id(),
        parent_id = pushed.parent_id(),
        outcome = Empty,
    );
    if !span.is_disabled() {
        linking::set_parent(&span, pushed);
    }
    span
}

/// Opens the span of one confirmation, as a child of the current span, which is that of the batch's delivery.
pub(crate) fn confirmation(system: &'static str, session: &SessionId, accepted: &Accepted) -> Span {
    let span = debug_span!(
        "confirmation",
        "otel.kind" = "client",
        "otel.status_code" = Empty,
        "otel.status_description" = Empty,
        "messaging.system" = system,
        "messaging.operation.name" = "confirm",
        "mcp.method.name" = "ping",
        "mcp.session.id" = ?session,
    );
    if !span.is_disabled() {
        linking::link(&span, accepted.0.iter().map(|(_, pushed)| pushed));
    }
    span
}

/// Returns the trace context of a notification whose worker records its trace.
fn recorded(notification: &Outbound) -> Option<&TraceContext> {
    notification.trace_context().filter(|pushed| pushed.is_sampled())
}

/// Spans of notifications that the session has accepted, until the client has confirmed them. Dropping the value ends
/// the spans as unconfirmed.
#[derive(Debug, Default)]
pub(crate) struct Accepted(Vec<(Span, TraceContext)>);

impl Accepted {
    /// Keeps the span of a notification that the session has accepted, if the span is enabled. The span of any other
    /// notification ends as failed.
    pub(crate) fn add(&mut self, span: Span, notification: &Outbound, answer: &Result<(), HandOverError>) {
        if span.is_disabled() {
            return;
        }
        match (answer, recorded(notification)) {
            (Ok(()), Some(pushed)) => self.0.push((span, pushed.clone())),
            (Err(error), _) => {
                span.record("outcome", "failed");
                record_failure(&span, error);
            }
            (Ok(()), None) => {}
        }
    }

    /// Ends the spans with the answer to the request to confirm.
    pub(crate) fn end(mut self, answer: &Result<(), HandOverError>) {
        for (span, _) in self.0.drain(..) {
            end(&span, if answer.is_ok() { "confirmed" } else { "unconfirmed" });
            if let Err(error) = answer {
                record_failure(&span, error);
            }
        }
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        for (span, _) in &self.0 {
            end(span, "unconfirmed");
        }
    }
}

/// Ends the span of a notification with its outcome.
fn end(span: &Span, outcome: &'static str) {
    // Entered once more, because the layer of OpenTelemetry takes the last exit from a span for its end.
    span.in_scope(|| {
        span.record("outcome", outcome);
    });
}
