//! Messages a second that clients get from full queues.

use mcp_courier_testing::redis_server::RedisServer;

use crate::support::figures::{Bench, Row, Wanted, print_row};
use crate::support::load::{SIZE, fill};
use crate::support::messages::{message, now};
use crate::web::{Client, Frames, Server};

/// Numbers of clients, and of all messages of one measurement.
const CLIENTS: [(usize, usize); 2] = [(1, 200_000), (200, 200_000)];

/// Factor by which the null courier has more to send, so that its time can be measured too.
const FASTER: usize = 5;

/// Returns the name of the rows of so many clients.
pub(super) fn name(clients: usize) -> String {
    if clients == 1 { "1 client, full queue".to_owned() } else { format!("{clients} clients, full queues") }
}

/// Measures what each number of clients gets.
pub(super) async fn measure(bench: &Bench, frames: &Frames) {
    for (clients, count) in CLIENTS {
        let each = bench.count(count) / clients;
        let mut rate = Row::new(name(clients), "/s").wanted(Wanted::AtLeast(0.5));
        let mut time = Row::new(name(clients), "µs of the server's processor time a message");
        for _ in bench.rounds([&rate]) {
            let beside = null(bench, frames, clients, each * FASTER);
            let ours = courier(bench, clients, each).await;
            rate.add(ours.rate, beside.rate);
            time.add(ours.time, beside.time);
        }
        print_row(&rate);
        print_row(&time);
    }
}

/// Figures of one measurement.
struct Drained {
    /// Messages a second from the opening of the streams to the last message.
    rate: f64,
    /// Processor time of the server for a message, in microseconds.
    time: f64,
}

async fn courier(bench: &Bench, clients: usize, each: usize) -> Drained {
    let redis = RedisServer::start();
    let server = Server::courier(&redis.url());
    let (mut client, sessions) = Client::begin(server.address(), clients);
    fill(&redis.url(), &sessions, each, || message(SIZE)).await;
    drained(bench, &server, &mut client, clients * each)
}

fn null(bench: &Bench, frames: &Frames, clients: usize, each: usize) -> Drained {
    let server = Server::null(frames, each);
    let (mut client, _) = Client::begin(server.address(), clients);
    drained(bench, &server, &mut client, clients * each)
}

fn drained(bench: &Bench, server: &Server, client: &mut Client, count: usize) -> Drained {
    let (process, clients) = (server.process(), client.process());
    let (begun, before, clients_before) = (now(), process.processor_time(), clients.processor_time());
    client.open();
    let seconds = (client.until(count) - begun) as f64 / 1e9;
    let (after, clients_after) = (process.processor_time(), clients.processor_time());
    if bench.verbose {
        let share = |before: f64, after: f64| 100.0 * (after - before) / seconds;
        eprintln!(
            "{count} in {seconds:.2} s; of a core: server {:.0} %, clients {:.0} %",
            share(before, after),
            share(clients_before, clients_after)
        );
    }
    Drained { rate: count as f64 / seconds, time: 1e6 * (after - before) / count as f64 }
}
