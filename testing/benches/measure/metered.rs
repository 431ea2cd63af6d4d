//! Cost of metrics: the same work with Prometheus' recorder, beside the work with a recorder that takes nothing.
//! `cargo bench -p mcp-courier-testing -- metered`.
//!
//! The recorder is turned on and off in turn. Its samples are sorted in another thread, as a program does between its
//! scrapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::support::figures::{Bench, print_head};
use crate::support::load::SIZE;
use crate::support::messages::message;
use crate::switched;

/// Number of messages in one drained queue.
const DRAINED: usize = 200_000;

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
        let switch = |is_on| IS_ON.store(is_on, Ordering::Relaxed);
        switched::drain(bench, "", DRAINED, || message(SIZE), switch).await;
        switched::push(bench, "push, one at a time", 1, switch).await;
        switched::push(bench, "push_many, 1,000 messages", 1000, switch).await;
    });
}
