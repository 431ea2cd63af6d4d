//! Export of spans as lines of a process, and their reader.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanKind, Status, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use serde_json::{Value, json};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Mark in front of a span on the standard output.
pub(super) const SPAN: &str = "SPAN ";

/// Writes each span to the standard output when it ends.
#[derive(Debug)]
struct Lines;

impl SpanExporter for Lines {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut out = std::io::stdout().lock();
        for span in batch {
            writeln!(out, "\n{SPAN}{}", line(&span)).unwrap();
        }
        out.flush().unwrap();
        Ok(())
    }
}

/// Sets tracing and OpenTelemetry up, as a program does at its start. The provider must live as long as the process.
pub(super) fn set_up() -> SdkTracerProvider {
    let provider = SdkTracerProvider::builder().with_simple_exporter(Lines).build();
    let tracer = provider.tracer("traces");
    let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
    let layer = layer.with_target(false).with_level(false);
    tracing_subscriber::registry().with(EnvFilter::new("mcp_courier=debug,fleet=info")).with(layer).init();
    provider
}

fn line(span: &SpanData) -> Value {
    let micros = |at: SystemTime| u64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
    let attributes = span.attributes.iter().map(|pair| (pair.key.to_string(), json!(pair.value.to_string())));
    let links = span
        .links
        .iter()
        .map(|link| json!([link.span_context.trace_id().to_string(), link.span_context.span_id().to_string()]));
    json!({
        "name": span.name,
        "kind": match span.span_kind {
            SpanKind::Producer => "producer",
            SpanKind::Consumer => "consumer",
            SpanKind::Client => "client",
            SpanKind::Server => "server",
            SpanKind::Internal => "internal",
        },
        "trace": span.span_context.trace_id().to_string(),
        "id": span.span_context.span_id().to_string(),
        "parent": span.parent_span_id.to_string(),
        "is_remote": span.parent_span_is_remote,
        "links": links.collect::<Vec<_>>(),
        "attributes": attributes.collect::<serde_json::Map<_, _>>(),
        "is_failed": matches!(span.status, Status::Error { .. }),
        "from": micros(span.start_time),
        "to": micros(span.end_time),
    })
}

/// Span that a process has exported.
#[derive(Debug, Clone)]
pub(super) struct Exported {
    pub(super) process: &'static str,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) is_remote: bool,
    /// Trace and span of each link.
    pub(super) links: Vec<(String, String)>,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) is_failed: bool,
    /// Beginning and end in µs since 1970.
    pub(super) from: u64,
    pub(super) to: u64,
}

impl Exported {
    /// Reads the line of a span.
    pub(super) fn read(process: &'static str, line: &str) -> Self {
        let span: Value = serde_json::from_str(line).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let links = span["links"].as_array().unwrap().iter().map(|link| (text(&link[0]), text(&link[1])));
        let attributes =
            span["attributes"].as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value)));
        Self {
            process,
            name: text(&span["name"]),
            kind: text(&span["kind"]),
            trace: text(&span["trace"]),
            id: text(&span["id"]),
            parent: text(&span["parent"]),
            is_remote: span["is_remote"].as_bool().unwrap(),
            links: links.collect(),
            attributes: attributes.collect(),
            is_failed: span["is_failed"].as_bool().unwrap(),
            from: span["from"].as_u64().unwrap(),
            to: span["to"].as_u64().unwrap(),
        }
    }

    /// Returns whether a link leads to another span.
    pub(super) fn is_linked_with(&self, other: &Self) -> bool {
        self.links.iter().any(|(trace, id)| *trace == other.trace && *id == other.id)
    }
}

/// Prints spans as a tree of each process, with their times in µs since the first.
pub(super) fn print(spans: &[Exported]) {
    let zero = spans.iter().map(|span| span.from).min().unwrap_or_default();
    let mut sorted: Vec<_> = spans.iter().collect();
    sorted.sort_by_key(|span| (span.from, span.to));
    println!(
        "{:>8} {:>8}  process  span          kind      trace     id                parent            links",
        "from", "to"
    );
    for span in sorted {
        let parent = if span.parent == "0000000000000000" { "-" } else { &span.parent };
        let links = span.links.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>().join(" ");
        println!(
            "{:>8} {:>8}  {:<7}  {:<12}  {:<8}  {}…  {}  {parent:<16}  {links}",
            span.from - zero,
            span.to - zero,
            span.process,
            span.name,
            span.kind,
            &span.trace[..8],
            span.id
        );
    }
}
