//! Spans of a notification's way: its push, the takes, the deliveries and their confirmations.
//!
//! | span | in | of | how it belongs to the push |
//! | --- | --- | --- | --- |
//! | `push` | the worker | one call of `push` or `push_many` | its context travels |
//! | `take` | the server | one acknowledgement and read of a queue | by links |
//! | `delivery` | the server | the hand-overs of one batch | by links |
//! | `deliver` | the server | one notification, until its confirmation | as its child |
//! | `confirmation` | the server | the wait for the client's confirmation | by links |
//!
//! Names and fields are those of OpenTelemetry's conventions for messaging, and for MCP, where these fit. All spans have
//! the level debug. A disabled span costs one check of its call site.
//!
//! *Without OpenTelemetry*. `deliver` shows the ids of the trace as fields, also where the feature `opentelemetry` is
//! off. Links, and parents in other processes, need the feature.
//!
//! *Sampling*. A push that its worker does not record gets no `deliver` and no link.
//!
//! *Never entered across an await*. Each span is attached to its future by `Instrument`.

#[cfg(feature = "server")]
mod delivering;
#[cfg(feature = "opentelemetry")]
mod otel;
#[cfg(feature = "server")]
mod taking;
#[cfg(not(feature = "opentelemetry"))]
mod unlinked;

use tracing::field::{Empty, debug, display};
use tracing::{Span, debug_span};

#[cfg(feature = "server")]
pub(crate) use self::delivering::{Accepted, confirmation, deliver, delivery};
#[cfg(feature = "opentelemetry")]
use self::otel as linking;
#[cfg(feature = "server")]
pub(crate) use self::taking::{record_taken, take};
#[cfg(not(feature = "opentelemetry"))]
use self::unlinked as linking;
use crate::envelope::shortened_to;
use crate::notification::{Notification, NotificationId};
use crate::session_id::SessionId;
use crate::trace_context::TraceContext;

/// Opens the span of one push. `system` is the queue's kind, such as `redis`.
pub(crate) fn push(system: &'static str) -> Span {
    debug_span!(
        "push",
        "otel.kind" = "producer",
        "otel.status_code" = Empty,
        "otel.status_description" = Empty,
        "messaging.system" = system,
        "messaging.operation.name" = "push",
        "messaging.operation.type" = "send",
        "messaging.batch.message_count" = Empty,
        "messaging.message.id" = Empty,
        "mcp.method.name" = Empty,
        "mcp.session.id" = Empty,
    )
}

/// Returns the context that the notifications of a push carry: that of its span, or of the caller's span where the
/// push's own is disabled. `None` without an OpenTelemetry context, and without the feature.
pub(crate) fn context_of(push: &Span) -> Option<TraceContext> {
    linking::context_of(push)
}

/// Writes the notifications of a push into its span: the only one with its names, or their number.
pub(crate) fn record_pushed<'a>(
    push: &Span,
    pushed: impl ExactSizeIterator<Item = (&'a SessionId, &'a Notification, NotificationId)>,
) {
    if push.is_disabled() {
        return;
    }
    let mut pushed = pushed;
    if pushed.len() != 1 {
        push.record("messaging.batch.message_count", pushed.len());
    } else if let Some((session, notification, id)) = pushed.next() {
        push.record("messaging.message.id", display(id));
        push.record("mcp.method.name", shown(notification.method()));
        push.record("mcp.session.id", debug(session));
    }
}

/// Writes a failure into a span.
pub(crate) fn record_failure(span: &Span, error: &dyn std::fmt::Display) {
    if !span.is_disabled() {
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", display(error));
    }
}

/// Returns the beginning of a method, which may have any length.
fn shown(method: &str) -> &str {
    shortened_to(64, method)
}
