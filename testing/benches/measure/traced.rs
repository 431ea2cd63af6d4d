//! Cost of tracing: the same work with recorded spans, beside the work with spans disabled.
//! `cargo bench -p mcp-courier-testing -- traced`.
//!
//! Spans go through OpenTelemetry's SDK to a batch exporter that drops them. A filter turns them on and off in turn, so
//! both figures of a round come from one process and one moment. With `MEASURE_SAMPLED=0.05` one trace in twenty is
//! recorded.

use mcp_courier::{Config, Publisher, TraceContext};
use mcp_courier_testing::redis_server::RedisServer;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};
use uuid::Uuid;

use crate::drain::{drained, filled};
use crate::support::courier::Mode;
use crate::support::figures::{Bench, Row, Wanted, in_turn, piece_by_piece, print_head, print_row};
use crate::support::load::SIZE;
use crate::support::messages::{notification, session, stamped};

/// Number of messages in one drained queue.
const DRAINED: usize = 100_000;
/// Number of pushes in one round, with spans and without, and in one piece of it.
const PUSHED: usize = 20_000;
const PIECE: usize = 200;

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
        push(bench, &handle).await;
        for (name, contexts) in [
            ("without contexts", Contexts::None),
            ("contexts not recorded", Contexts::Unrecorded),
            ("contexts recorded", Contexts::Recorded),
        ] {
            drain(bench, &handle, name, contexts).await;
        }
    });
}

/// Turns the spans on or off.
fn record(filter: &Filter, is_on: bool) {
    let level = if is_on { LevelFilter::DEBUG } else { LevelFilter::OFF };
    filter.reload(Targets::new().with_target("mcp_courier::spans", level)).unwrap();
}

async fn push(bench: &Bench, filter: &Filter) {
    let mut row = Row::new("push, one at a time", "/s").wanted(Wanted::AtLeast(0.95));
    let count = bench.count(PUSHED);
    for _ in bench.rounds(std::slice::from_ref(&row)) {
        let redis = RedisServer::start();
        let config = Config::builder().queue_max_messages(2 * PUSHED).build().unwrap();
        let publisher = Publisher::connect(&redis.url(), config).await.unwrap();
        let seconds = piece_by_piece(count / PIECE, async |is_on| {
            record(filter, is_on);
            for _ in 0..PIECE {
                publisher.push(&session(0), notification(SIZE)).await.unwrap();
            }
        });
        let [ours, beside] = seconds.await.map(|seconds| count as f64 / seconds);
        row.add(ours, beside);
    }
    print_row(&row);
}

async fn drain(bench: &Bench, filter: &Filter, name: &str, contexts: Contexts) {
    let rows = Mode::BOTH.map(|mode| Row::new(format!("drain one session, {SIZE} B, {name}, {}", mode.name()), "/s"));
    let count = bench.count(DRAINED);
    for (mode, row) in Mode::BOTH.into_iter().zip(rows) {
        let mut row = row.wanted(Wanted::AtLeast(0.95));
        for round in bench.rounds(std::slice::from_ref(&row)) {
            let [ours, beside] = in_turn(round, async |is_on| {
                let redis = filled(count, || message(contexts)).await;
                record(filter, is_on);
                drained(&redis, mode, count).await
            })
            .await;
            row.add(ours, beside);
        }
        print_row(&row);
    }
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
