//! Many sessions at once, from push to deliver: shared beside a bare loop over client tracking with the same commands, and
//! dedicated for comparison. `cargo bench -p mcp-courier-testing -- throughput`.
//!
//! Both are pushed to in two ways: by bare `LPUSH`es, which leave nearly all of Redis to the delivering side, and by the same
//! `Publisher`, whose script keeps the bounds.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use mcp_courier_testing::redis_server::RedisServer;

use crate::support::courier::{self, Mode};
use crate::support::figures::{Bench, Row, Wanted, print_head, print_row};
use crate::support::load::{Pusher, Spread, push_all};
use crate::support::sessions::Counter;
use crate::support::tracking::TrackingLoop;

/// Number of messages of one measurement.
const COUNT: usize = 100_000;

/// Measurement: who delivers, to how many sessions, how they are pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Case {
    /// `None` is the bare loop.
    mode: Option<Mode>,
    sessions: usize,
    spread: Spread,
    pusher: Pusher,
}

pub(crate) fn run(bench: &Bench) {
    let mut rows: Vec<_> = rows().into_iter().filter(|(row, ..)| bench.wants(row)).collect();
    actix::System::new().block_on(async {
        for _ in bench.rounds(rows.iter().map(|(row, ..)| row)) {
            // What several rows show is measured once.
            let mut rates = HashMap::new();
            for case in rows.iter().flat_map(|(_, ours, beside)| [*beside, *ours]) {
                if let Entry::Vacant(entry) = rates.entry(case) {
                    entry.insert(rate(case, bench.count(COUNT)).await);
                }
            }
            rows.iter_mut().for_each(|(row, ours, beside)| row.add(rates[ours], rates[beside]));
        }
    });
    print_head("bare tracking loop");
    rows.iter().for_each(|(row, ..)| print_row(row));
}

/// Returns the rows, each with the measurements that it compares.
fn rows() -> Vec<(Row, Case, Case)> {
    let mut rows = Vec::new();
    for sessions in [100, 1000, 10_000] {
        for spread in [Spread::Uniform, Spread::Skewed] {
            let name = |mode: &str| format!("{sessions} sessions, {}, {mode}", spread.name());
            let case = |mode, pusher| Case { mode, sessions, spread, pusher };
            let mut add = |mode: Mode, pusher: Pusher, target: Option<f64>| {
                let row = Row::new(format!("{}, pushed by {}", name(mode.name()), pusher.name()), "/s");
                let row = target.map_or(row.clone(), |target| row.wanted(Wanted::AtLeast(target)));
                rows.push((row, case(Some(mode), pusher), case(None, pusher)));
            };
            add(Mode::Shared, Pusher::Bare, (sessions == 1000 && spread == Spread::Uniform).then_some(0.8));
            add(Mode::Shared, Pusher::Publisher, None);
            if sessions <= 1000 && spread == Spread::Uniform {
                add(Mode::Dedicated, Pusher::Bare, None);
            }
            let row = Row::new(format!("{}, pushed by Publisher, the loop by LPUSH", name("shared")), "/s");
            rows.push((row, case(Some(Mode::Shared), Pusher::Publisher), case(None, Pusher::Bare)));
        }
    }
    let shared = |sessions| Case { mode: Some(Mode::Shared), sessions, spread: Spread::Uniform, pusher: Pusher::Bare };
    let row = Row::new("10,000 sessions, shared, beside 1,000 sessions, shared", "/s").wanted(Wanted::AtLeast(0.8));
    rows.push((row, shared(10_000), shared(1000)));
    rows
}

/// Returns the number of messages a second from the first push to the last delivery.
async fn rate(Case { mode, sessions, spread, pusher }: Case, count: usize) -> f64 {
    let redis = RedisServer::with(&["--maxclients", "20000"]);
    let counter = Counter::new();
    let push = || push_all(redis.url(), pusher, spread.sessions(sessions, count));
    match mode {
        Some(mode) => {
            let courier = courier::start(&redis.url(), mode).await;
            courier::subscribe(&courier, sessions, counter.clone()).await;
            let rate = counter.rate(count, push).await;
            courier::stop(courier).await;
            rate
        }
        None => {
            let running = TrackingLoop::start(redis.url(), sessions, counter.clone()).await;
            let rate = counter.rate(count, push).await;
            running.stop();
            rate
        }
    }
}
