//! Time from the push of a notification to a bare `McpSession`, at 100 a second: dedicated beside a bare redis-rs `BRPOP`,
//! shared beside a bare loop over client tracking. `cargo bench -p mcp-courier-testing -- latency`.

use std::sync::Arc;
use std::time::Duration;

use mcp_courier_testing::redis_server::RedisServer;

use crate::support::bare;
use crate::support::courier::{self, Mode};
use crate::support::figures::{Bench, Row, Wanted, per_mille, print_head, print_row};
use crate::support::load::{Paced, Spread};
use crate::support::messages::{queue_of, session};
use crate::support::sessions::{Sink, Stopwatch};
use crate::support::tracking::TrackingLoop;

/// Number of messages of one round.
const COUNT: usize = 1000;
const PACE: Duration = Duration::from_millis(10);

/// Percentiles that are shown, in thousandths.
const PERCENTILES: [(usize, &str); 3] = [(500, "p50"), (990, "p99"), (999, "p99.9")];

pub(crate) fn run(bench: &Bench) {
    print_head("bare loop");
    actix::System::new().block_on(async {
        for (mode, sessions, wanted) in [(Mode::Dedicated, 1, 1.25), (Mode::Shared, 1, 1.3), (Mode::Shared, 1000, 1.3)]
        {
            measure(bench, mode, sessions, wanted).await;
        }
    });
}

async fn measure(bench: &Bench, mode: Mode, sessions: usize, wanted: f64) {
    let beside = if mode == Mode::Dedicated { "BRPOP" } else { "tracking" };
    let mut rows = PERCENTILES.map(|(per_mille, name)| {
        let row = Row::new(format!("{name} at 100 a second, {sessions} {}, beside {beside}", mode.name()), "µs");
        if per_mille == 500 { row.wanted(Wanted::AtMost(wanted)) } else { row }
    });
    let count = bench.count(COUNT);
    for _ in bench.rounds(&rows) {
        let ours = time_courier(mode, sessions, count).await;
        let bare = match mode {
            Mode::Dedicated => time_brpop(count).await,
            Mode::Shared => time_tracking(sessions, count).await,
        };
        for ((thousandths, _), row) in PERCENTILES.into_iter().zip(&mut rows) {
            row.add(per_mille(&ours, thousandths), per_mille(&bare, thousandths));
        }
    }
    rows.iter().for_each(print_row);
}

/// Pushes messages at the pace, and returns their times, sorted.
async fn push(redis: &RedisServer, stopwatch: &Stopwatch, sessions: usize, count: usize) -> Vec<f64> {
    let pusher = Paced::start(redis.url(), PACE, Spread::Uniform.sessions(sessions, count).into_iter());
    let times = stopwatch.times(count).await;
    pusher.join();
    times
}

async fn time_courier(mode: Mode, sessions: usize, count: usize) -> Vec<f64> {
    let redis = RedisServer::start();
    let stopwatch = Stopwatch::new();
    let courier = courier::start(&redis.url(), mode).await;
    courier::subscribe(&courier, sessions, stopwatch.clone()).await;
    let times = push(&redis, &stopwatch, sessions, count).await;
    courier::stop(courier).await;
    times
}

async fn time_tracking(sessions: usize, count: usize) -> Vec<f64> {
    let redis = RedisServer::start();
    let stopwatch = Stopwatch::new();
    let running = TrackingLoop::start(redis.url(), sessions, stopwatch.clone()).await;
    let times = push(&redis, &stopwatch, sessions, count).await;
    running.stop();
    times
}

async fn time_brpop(count: usize) -> Vec<f64> {
    let redis = RedisServer::start();
    let stopwatch = Stopwatch::new();
    let running = actix_rt::spawn(pop(redis.url(), Arc::clone(&stopwatch)));
    let times = push(&redis, &stopwatch, 1, count).await;
    running.abort();
    times
}

async fn pop(url: String, stopwatch: Arc<Stopwatch>) {
    let mut connection = bare::connect(&url).await;
    loop {
        let popped = redis::cmd("BRPOP").arg(queue_of(&session(0))).arg(30).query_async(&mut connection).await;
        let (_, message): (String, Vec<u8>) = popped.unwrap();
        stopwatch.take(&message);
    }
}
