//! Links by OpenTelemetry: contexts of spans as they travel, and remote parents.
//!
//! The context is written in W3C's form whatever propagator the application has chosen, because MCP demands that form
//! (SEP-414).

use std::fmt::Write;

use opentelemetry::Context;
use opentelemetry::baggage::{Baggage, BaggageExt};
use opentelemetry::trace::TraceContextExt;
#[cfg(feature = "server")]
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::trace_context::TraceContext;

/// Characters of a baggage's value that W3C has written as percent escapes.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b',').add(b';').add(b'\\').add(b'%');

/// Largest number of links of one span. A batch may have many more messages than a trace's reader looks at.
#[cfg(feature = "server")]
const LINKS: usize = 32;

/// Returns the context of a span, or that of the caller's span where this one is disabled.
pub(super) fn context_of(span: &Span) -> Option<TraceContext> {
    let context = if span.is_disabled() { Span::current().context() } else { span.context() };
    // A program may use OpenTelemetry without tracing. Then its context is that of the thread.
    let context = if has_span(&context) { context } else { Context::current() };
    if !has_span(&context) {
        return None;
    }
    let span = context.span();
    let of_span = span.span_context();
    let (trace, parent, flags) = (of_span.trace_id(), of_span.span_id(), of_span.trace_flags().to_u8());
    let traced = TraceContext::new(format!("00-{trace}-{parent}-{flags:02x}")).ok()?;
    // What exceeds W3C's bounds is left out: it must not keep the rest from travelling.
    let traced = traced.clone().with_tracestate(of_span.trace_state().header()).unwrap_or(traced);
    let baggage = baggage(context.baggage());
    Some(traced.clone().with_baggage(baggage).unwrap_or(traced))
}

fn has_span(context: &Context) -> bool {
    context.span().span_context().is_valid()
}

/// Writes a baggage in W3C's form. Entries that would exceed the bound are left out.
fn baggage(baggage: &Baggage) -> String {
    let mut text = String::new();
    for (key, (value, metadata)) in baggage {
        let before = text.len();
        if before > 0 {
            text.push(',');
        }
        // Writing to a string does not fail.
        let _ = write!(text, "{key}={}", utf8_percent_encode(value.as_str(), ENCODED));
        if !metadata.as_str().is_empty() {
            let _ = write!(text, ";{}", metadata.as_str());
        }
        if text.len() > TraceContext::BAGGAGE_MAX_BYTES {
            text.truncate(before);
        }
    }
    text
}

/// Makes a span the child of the span that pushed a message.
#[cfg(feature = "server")]
pub(super) fn set_parent(span: &Span, pushed: &TraceContext) {
    if let Some(pushed) = span_context(pushed) {
        // An error says that no layer of OpenTelemetry has the span, so there is no trace to take part in.
        let _ = span.set_parent(Context::new().with_remote_span_context(pushed));
    }
}

/// Links a span with the spans that pushed messages: the first [`LINKS`] that differ from their predecessors. Messages
/// that were pushed together have one context.
#[cfg(feature = "server")]
pub(super) fn link<'a>(span: &Span, pushed: impl Iterator<Item = &'a TraceContext>) {
    let mut before = None;
    let differ = pushed.filter(|context| before.replace(context.traceparent()) != Some(context.traceparent()));
    for context in differ.filter_map(span_context).take(LINKS) {
        span.add_link(context);
    }
}

#[cfg(feature = "server")]
fn span_context(context: &TraceContext) -> Option<SpanContext> {
    let trace_id = TraceId::from_hex(context.trace_id()).ok()?;
    let parent_id = SpanId::from_hex(context.parent_id()).ok()?;
    let state: TraceState = context.tracestate().and_then(|state| state.parse().ok()).unwrap_or_default();
    Some(SpanContext::new(trace_id, parent_id, TraceFlags::new(context.flags()), true, state))
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider;
    use opentelemetry::{KeyValue, trace::SpanKind};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::spans;

    #[derive(Debug, Clone, Default)]
    struct Exported(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Exported {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    /// Runs code under tracing with OpenTelemetry up to a level, and returns the exported spans.
    fn exported(level: LevelFilter, code: impl FnOnce()) -> Vec<SpanData> {
        let exported = Exported::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(exported.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer).with(level), code);
        exported.0.lock().unwrap().clone()
    }

    fn context(n: u32) -> TraceContext {
        TraceContext::new(format!("00-{n:032x}-{n:016x}-01")).unwrap()
    }

    #[test]
    fn a_push_carries_the_context_of_its_span_or_else_of_the_callers() {
        for (level, parent) in [(LevelFilter::DEBUG, "push"), (LevelFilter::INFO, "job")] {
            let mut carried = None;
            let spans = exported(level, || {
                let job = tracing::info_span!("job");
                carried = job.in_scope(|| context_of(&spans::push("redis")));
            });
            let carried = carried.unwrap();
            let span = spans.iter().find(|span| span.name == parent).unwrap();
            assert_eq!(carried.parent_id(), span.span_context.span_id().to_string());
            assert_eq!(carried.trace_id(), span.span_context.trace_id().to_string());
            assert!(carried.is_sampled());
        }
        assert_eq!(context_of(&Span::current()), None, "without a span there is none");
    }

    #[test]
    fn a_program_without_tracing_carries_the_context_of_its_thread() {
        let remote = span_context(&context(7).with_tracestate("a=1").unwrap()).unwrap();
        let baggage = [KeyValue::new("k", "a b,c"), KeyValue::new("long", "x".repeat(TraceContext::BAGGAGE_MAX_BYTES))];
        let _guard = Context::new().with_remote_span_context(remote).with_baggage(baggage).attach();
        let carried = context_of(&Span::none()).unwrap();
        assert_eq!((carried.traceparent(), carried.tracestate()), (context(7).traceparent(), Some("a=1")));
        assert_eq!(carried.baggage(), Some("k=a%20b%2Cc"), "what exceeds the bound is left out");
    }

    #[test]
    fn a_span_has_a_bounded_number_of_links_and_one_for_messages_of_one_push() {
        let of = |contexts: Vec<TraceContext>| {
            let spans = exported(LevelFilter::DEBUG, || {
                let span = spans::take("redis", &crate::SessionId::new("s").unwrap(), 0);
                link(&span, contexts.iter());
            });
            let links: Vec<_> = spans[0].links.iter().map(|link| link.span_context.span_id().to_string()).collect();
            links
        };
        assert_eq!(of((1..=1000).map(context).collect()).len(), LINKS);
        assert_eq!(of([1, 1, 1, 2, 2].map(context).to_vec()), ["0000000000000001", "0000000000000002"]);
    }

    #[test]
    fn the_span_of_a_notification_is_a_child_of_its_push_until_its_outcome_is_known() {
        let session = crate::SessionId::new("the-session-id-of-a-client").unwrap();
        let outbound = |context: TraceContext| {
            let notification = crate::Notification::tools_list_changed().with_trace_context(context);
            let (id, life) = (crate::NotificationId(uuid::Uuid::now_v7()), std::time::Duration::from_secs(1));
            let raw = crate::envelope::Draft::new(&notification, id, life).stamp(crate::envelope::Timestamp(1));
            crate::envelope::Envelope::decode("q", raw, life).unwrap().outbound().clone()
        };
        let unrecorded = TraceContext::new(context(8).traceparent().replace("-01", "-00")).unwrap();
        let spans = exported(LevelFilter::DEBUG, || {
            let mut accepted = spans::Accepted::default();
            for context in [context(7), unrecorded] {
                let outbound = outbound(context);
                accepted.add(spans::deliver("redis", &session, &outbound), &outbound, &Ok(()));
            }
            drop(accepted);
        });
        let [deliver] = &spans[..] else { panic!("one is recorded: {spans:?}") };
        assert_eq!(deliver.span_context.trace_id().to_string(), context(7).trace_id());
        assert_eq!(
            (deliver.parent_span_id.to_string().as_str(), &deliver.span_kind),
            (context(7).parent_id(), &SpanKind::Consumer)
        );
        let has = |name: &str, value: &str| {
            deliver.attributes.iter().any(|pair| pair.key.as_str() == name && pair.value.as_str() == value)
        };
        assert!(has("outcome", "unconfirmed") && has("mcp.session.id", "the-sess…"), "{deliver:?}");
        assert!(!format!("{deliver:?}").contains(session.as_str()));
    }
}
