//! Cost of tracing: the same work with recorded spans, beside the work with spans disabled.
//! `cargo bench -p mcp-courier-testing -- traced`.
//!
//! Spans go through OpenTelemetry's SDK to a batch exporter that drops them. A filter turns them on and off in turn. With
//! `MEASURE_SAMPLED=0.05` one trace in twenty is recorded.

use mcp_courier::TraceContext;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};
use uuid::Uuid;

use crate::support::figures::{Bench, print_head};
use crate::support::load::SIZE;
use crate::support::messages::{notification, stamped};
use crate::switched;

/// Number of messages in one drained queue.
const DRAINED: usize = 100_000;

/// Trace contexts of the messages in a queue.
#[derive(Debug, Clone, Copy)]
enum Contexts {
    /// None has one.
    None,
    /// Each has one that its worker does not record.
    Unrecorded,
    /// Each has one of its own, and its worker records it.
    Recorded,
}

/// Exporter that drops all spans.
#[derive(Debug)]
struct Nothing;

impl SpanExporter for Nothing {
    async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
        Ok(())
    }
}

/// Filter of the spans.
type Filter = reload::Handle<Targets, Registry>;

pub(crate) fn run(bench: &Bench) {
    let ratio = std::env::var("MEASURE_SAMPLED").map_or(1.0, |ratio| ratio.parse().expect("a ratio from 0 to 1"));
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
    let provider = SdkTracerProvider::builder().with_batch_exporter(Nothing).with_sampler(sampler).build();
    let (filter, handle) = reload::Layer::new(Targets::new());
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("traced"));
    let layer = layer.with_location(false).with_threads(false).with_target(false);
    tracing_subscriber::registry().with(layer.with_filter(filter)).init();
    print_head("spans disabled");
    actix::System::new().block_on(async {
        let switch = |is_on| record(&handle, is_on);
        switched::push(bench, "push, one at a time", 1, switch).await;
        for (name, contexts) in [
            (", without contexts", Contexts::None),
            (", contexts not recorded", Contexts::Unrecorded),
            (", contexts recorded", Contexts::Recorded),
        ] {
            switched::drain(bench, name, DRAINED, || message(contexts), switch).await;
        }
    });
}

/// Turns the spans on or off.
fn record(filter: &Filter, is_on: bool) {
    let level = if is_on { LevelFilter::DEBUG } else { LevelFilter::OFF };
    filter.reload(Targets::new().with_target("mcp_courier::spans", level)).unwrap();
}

fn message(contexts: Contexts) -> Vec<u8> {
    let flags = match contexts {
        Contexts::None => return stamped(&notification(SIZE)),
        Contexts::Unrecorded => "00",
        Contexts::Recorded => "01",
    };
    let (trace, parent) = (Uuid::new_v4().simple(), Uuid::new_v4().simple().to_string());
    let context = TraceContext::new(format!("00-{trace}-{}-{flags}", &parent[..16])).unwrap();
    stamped(&notification(SIZE).with_trace_context(context))
}
