//! The same work with something that costs and without it, in turn, so that both figures of a round come from one process
//! and one moment.

use std::time::Instant;

use mcp_courier::{Config, Publisher};
use mcp_courier_testing::redis_server::RedisServer;

use crate::drain::{drained, filled};
use crate::support::courier::Mode;
use crate::support::figures::{Bench, Row, Wanted, print_row};
use crate::support::load::SIZE;
use crate::support::messages::{notification, session};

/// Number of pushes in one round of each side.
const PUSHED: usize = 20_000;
/// Least number of pushes in a piece, during which one side is on. Short pieces meet the same load.
const PIECE: usize = 200;

/// Measures the draining of one session, with all messages in one queue. `switch` turns on what costs, or off.
pub(crate) async fn drain(
    bench: &Bench,
    name: &str,
    full: usize,
    message: impl Fn() -> Vec<u8>,
    switch: impl Fn(bool),
) {
    let count = bench.count(full);
    for mode in Mode::BOTH {
        let mut row = Row::new(format!("drain one session, {SIZE} B{name}, {}", mode.name()), "/s");
        row = row.wanted(Wanted::AtLeast(0.95));
        for round in bench.rounds(std::slice::from_ref(&row)) {
            let mut rates = [0.0; 2];
            // The order alternates.
            for is_on in [round % 2 == 0, round % 2 == 1] {
                let redis = filled(count, &message).await;
                switch(is_on);
                rates[usize::from(!is_on)] = drained(&redis, mode, count).await;
            }
            row.add(rates[0], rates[1]);
        }
        print_row(&row);
    }
}

/// Measures pushes: so many in each call. `switch` turns on what costs, or off.
pub(crate) async fn push(bench: &Bench, name: &str, call: usize, switch: impl Fn(bool)) {
    let mut row = Row::new(name, "/s").wanted(Wanted::AtLeast(0.95));
    let count = bench.count(PUSHED);
    let piece = PIECE.max(call);
    for _ in bench.rounds(std::slice::from_ref(&row)) {
        let redis = RedisServer::start();
        let config = Config::builder().queue_max_messages(3 * PUSHED).build().unwrap();
        let publisher = Publisher::connect(&redis.url(), config).await.unwrap();
        let push_piece = async || {
            for _ in (0..piece).step_by(call) {
                for pushed in publisher.push_many((0..call).map(|_| (session(0), notification(SIZE)))).await {
                    pushed.unwrap();
                }
            }
        };
        // Connections, scripts and memory are made by then.
        push_piece().await;
        let mut seconds = [0.0; 2];
        for number in 0..count / piece {
            for is_on in [number % 2 == 0, number % 2 == 1] {
                switch(is_on);
                let begun = Instant::now();
                push_piece().await;
                seconds[usize::from(!is_on)] += begun.elapsed().as_secs_f64();
            }
        }
        let [ours, beside] = seconds.map(|seconds| count as f64 / seconds);
        row.add(ours, beside);
    }
    print_row(&row);
}
