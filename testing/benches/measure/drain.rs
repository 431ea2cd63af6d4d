//! Draining one session into a bare `McpSession`, beside a bare redis-rs loop whose one script acknowledges a batch and takes
//! the next: `cargo bench -p mcp-courier-testing -- drain`. Each draining has a `redis-server` of its own.

use std::time::Instant;

use mcp_courier_testing::redis_server::RedisServer;

use crate::support::courier::Mode;
use crate::support::figures::{Bench, Row, Wanted, print_head, print_row};
use crate::support::messages::{message, queue_of, session};
use crate::support::sessions::Counter;
use crate::support::{bare, courier};

/// Sizes of the messages in the queue, in bytes, and their numbers.
const LOADS: [(usize, usize); 5] =
    [(100, 200_000), (300, 200_000), (1024, 100_000), (10 * 1024, 10_000), (100 * 1024, 1000)];

pub(crate) fn run(bench: &Bench) {
    print_head("bare batch script");
    actix::System::new().block_on(async {
        for (size, count) in LOADS {
            measure(bench, size, bench.count(count)).await;
        }
    });
}

async fn measure(bench: &Bench, size: usize, count: usize) {
    let row = |mode: Mode| {
        let row = Row::new(format!("drain one session, {}, {}", size_of_one(size), mode.name()), "/s");
        if size == 300 { row.wanted(Wanted::AtLeast(0.6)) } else { row }
    };
    let mut rows = Mode::BOTH.map(row);
    for _ in bench.rounds(&rows) {
        let beside = drain_bare(size, count).await;
        for (mode, row) in Mode::BOTH.into_iter().zip(&mut rows).filter(|(_, row)| bench.wants(row)) {
            let redis = filled(count, || message(size)).await;
            row.add(drained(&redis, mode, count).await, beside);
        }
    }
    rows.iter().for_each(print_row);
}

fn size_of_one(size: usize) -> String {
    if size < 1024 { format!("{size} B") } else { format!("{} KiB", size / 1024) }
}

/// Starts a server with messages in the queue of one session.
pub(crate) async fn filled(count: usize, message: impl Fn() -> Vec<u8>) -> RedisServer {
    let redis = RedisServer::start();
    let mut connection = bare::connect(&redis.url()).await;
    for from in (0..count).step_by(1000) {
        let messages: Vec<_> = (from..count.min(from + 1000)).map(|_| message()).collect();
        bare::fill(&mut connection, &queue_of(&session(0)), &messages).await;
    }
    redis
}

/// Returns the number of messages a second that a subscriber takes from a full queue, its start included.
pub(crate) async fn drained(redis: &RedisServer, mode: Mode, count: usize) -> f64 {
    let courier = courier::start(&redis.url(), mode).await;
    let counter = Counter::new();
    let begun = Instant::now();
    courier.ensure_subscriber(&session(0), counter.clone()).await.unwrap();
    counter.until(count).await;
    let rate = count as f64 / begun.elapsed().as_secs_f64();
    courier::stop(courier).await;
    rate
}

/// Returns the number of messages a second that the bare script takes from a full queue, its connecting included.
async fn drain_bare(size: usize, count: usize) -> f64 {
    let redis = filled(count, || message(size)).await;
    let begun = Instant::now();
    let mut connection = bare::connect(&redis.url()).await;
    bare::drain(&mut connection, &session(0), count).await;
    count as f64 / begun.elapsed().as_secs_f64()
}
