//! Cost of metrics: the same work with Prometheus' recorder, beside the work with a recorder that takes nothing.
//! `cargo bench -p mcp-courier-testing -- metered`.
//!
//! The recorder is turned on and off in turn, so both figures of a round come from one process and one moment. Its samples
//! are sorted in another thread, as a program does between its scrapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_courier::{Config, Publisher};
use mcp_courier_testing::redis_server::RedisServer;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::drain::{drained, filled};
use crate::support::courier::Mode;
use crate::support::figures::{Bench, Row, Wanted, in_turn, piece_by_piece, print_head, print_row};
use crate::support::load::SIZE;
use crate::support::messages::{message, notification, session};

/// Number of messages in one drained queue.
const DRAINED: usize = 200_000;
/// Number of pushes in one round, with the recorder and without, and in one piece of it.
const PUSHED: usize = 20_000;
const PIECE: usize = 1000;

static IS_ON: AtomicBool = AtomicBool::new(false);

/// Prometheus' recorder behind a switch. Gauges pass it always, as they must not miss a change.
struct Switch(PrometheusRecorder);

/// Handle behind the switch.
struct Switched<H>(H);

impl Recorder for Switch {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_counter(name, unit, text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_gauge(name, unit, text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.0.describe_histogram(name, unit, text);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        Counter::from_arc(Arc::new(Switched(self.0.register_counter(key, metadata))))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.0.register_gauge(key, metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Switched(self.0.register_histogram(key, metadata))))
    }
}

impl CounterFn for Switched<Counter> {
    fn increment(&self, value: u64) {
        if IS_ON.load(Ordering::Relaxed) {
            self.0.increment(value);
        }
    }

    fn absolute(&self, value: u64) {
        self.0.absolute(value);
    }
}

impl HistogramFn for Switched<Histogram> {
    fn record(&self, value: f64) {
        if IS_ON.load(Ordering::Relaxed) {
            self.0.record(value);
        }
    }
}

pub(crate) fn run(bench: &Bench) {
    let delivery = Matcher::Full("mcp_courier_delivery_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(delivery, &[0.001, 0.01, 0.1, 1.0, 10.0]).unwrap();
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(Switch(recorder)).unwrap();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            handle.run_upkeep();
        }
    });
    print_head("no recorder");
    actix::System::new().block_on(async {
        for mode in Mode::BOTH {
            drain(bench, mode).await;
        }
        push(bench, "push, one at a time", 1).await;
        push(bench, "push_many, 1,000 messages", 1000).await;
    });
}

async fn drain(bench: &Bench, mode: Mode) {
    let mut row = Row::new(format!("drain one session, {SIZE} B, {}", mode.name()), "/s").wanted(Wanted::AtLeast(0.95));
    let count = bench.count(DRAINED);
    for round in bench.rounds(std::slice::from_ref(&row)) {
        let [ours, beside] = in_turn(round, async |is_on| {
            let redis = filled(count, || message(SIZE)).await;
            IS_ON.store(is_on, Ordering::Relaxed);
            drained(&redis, mode, count).await
        })
        .await;
        row.add(ours, beside);
    }
    print_row(&row);
}

async fn push(bench: &Bench, name: &str, call: usize) {
    let mut row = Row::new(name, "/s").wanted(Wanted::AtLeast(0.95));
    let count = bench.count(PUSHED);
    for _ in bench.rounds(std::slice::from_ref(&row)) {
        let redis = RedisServer::start();
        let config = Config::builder().queue_max_messages(2 * PUSHED).build().unwrap();
        let publisher = Publisher::connect(&redis.url(), config).await.unwrap();
        let seconds = piece_by_piece(count / PIECE, async |is_on| {
            IS_ON.store(is_on, Ordering::Relaxed);
            for _ in (0..PIECE).step_by(call) {
                for pushed in publisher.push_many((0..call).map(|_| (session(0), notification(SIZE)))).await {
                    pushed.unwrap();
                }
            }
        });
        let [ours, beside] = seconds.await.map(|seconds| count as f64 / seconds);
        row.add(ours, beside);
    }
    print_row(&row);
}
