//! A neighbour's latency while one session drains a backlog on the same arbiter, beside its latency in quiet.
//! `cargo bench -p mcp-courier-testing -- isolation`.

use std::time::Duration;

use mcp_courier_testing::redis_server::RedisServer;

use crate::support::bare;
use crate::support::courier::{self, Mode};
use crate::support::figures::{Bench, Row, Wanted, per_mille, print_head, print_row};
use crate::support::load::Paced;
use crate::support::messages::{message, queue_of, session};
use crate::support::sessions::{Counter, Stopwatch};

/// Messages that one session drains.
const BACKLOG: usize = 100_000;
/// Neighbours, which are pushed to in turn.
const NEIGHBOURS: usize = 10;
const PACE: Duration = Duration::from_millis(1);
const QUIET: usize = 1000;

pub(crate) fn run(bench: &Bench) {
    print_head("in quiet");
    actix::System::new().block_on(async {
        let names = [(500, "p50"), (990, "p99")];
        let mut rows = names.map(|(_, name)| Row::new(format!("{name} of neighbours while a session drains"), "µs"));
        rows[1] = rows[1].clone().wanted(Wanted::AtMost(3.0));
        for _ in bench.rounds(&rows) {
            let (quiet, busy) = measure(bench.count(BACKLOG)).await;
            for ((thousandths, _), row) in names.iter().zip(&mut rows) {
                row.add(per_mille(&busy, *thousandths), per_mille(&quiet, *thousandths));
            }
        }
        rows.iter().for_each(print_row);
    });
}

/// Returns the sorted times of the neighbours' messages, in quiet and while a session drains.
async fn measure(backlog: usize) -> (Vec<f64>, Vec<f64>) {
    let redis = RedisServer::start();
    let (stopwatch, counter) = (Stopwatch::new(), Counter::new());
    let courier = courier::start(&redis.url(), Mode::Shared).await;
    // There is an arbiter for each core, and sessions go to them in turn: the neighbours are those of the first arbiter, where the
    // session that drains comes too.
    let arbiters = std::thread::available_parallelism().map_or(1, usize::from);
    let all = NEIGHBOURS * arbiters;
    courier::subscribe(&courier, all, stopwatch.clone()).await;
    let neighbours = (0..all).step_by(arbiters).cycle();

    let pusher = Paced::start(redis.url(), PACE, neighbours.clone().take(QUIET));
    let quiet = stopwatch.times(QUIET).await;
    pusher.join();

    let drains = session(all);
    let mut connection = bare::connect(&redis.url()).await;
    for from in (0..backlog).step_by(1000) {
        let messages: Vec<_> = (from..backlog.min(from + 1000)).map(|_| message(300)).collect();
        bare::fill(&mut connection, &queue_of(&drains), &messages).await;
    }
    let pusher = Paced::start(redis.url(), PACE, neighbours);
    stopwatch.times(NEIGHBOURS).await;
    courier.ensure_subscriber(&drains, counter.clone()).await.unwrap();
    counter.until(backlog).await;
    let busy = stopwatch.times_so_far();
    pusher.stop();
    courier::stop(courier).await;
    (quiet, busy)
}
