//! Time from the crash of a server with open streams until the last client has its next message from another server, beside bare
//! HTTP: the same clients come to a null courier, which answers each with a message at once.

use super::STREAMS;
use super::support::figures::{Bench, Row, Wanted, print_head, print_row};
use super::support::load::{SIZE, fill};
use super::support::messages::{message, now};
use super::support::redis_server::RedisServer;
use super::web::{Client, Frames, Server};

/// Measures the crash of both servers.
pub(super) async fn measure(bench: &Bench) {
    let streams = bench.count(STREAMS);
    let mut row = Row::new(format!("{streams} streams, crash to the last client's next message"), "s");
    row = row.wanted(Wanted::AtMost(1.5));
    let rounds = bench.rounds([&row]);
    if rounds.is_empty() {
        return;
    }
    for _ in rounds {
        let beside = bare(streams);
        row.add(courier(streams).await, beside);
    }
    print_head("bare HTTP");
    print_row(&row);
}

async fn courier(streams: usize) -> f64 {
    let redis = RedisServer::with(&["--maxclients", "20000"]);
    let (first, second) = (Server::courier(&redis.url()), Server::courier(&redis.url()));
    let (mut client, sessions) = Client::begin(first.address(), streams);
    fill(&redis.url(), &sessions, 1, || message(SIZE)).await;
    client.open();
    client.until(streams);
    client.come_back(second.address());
    let crashed = crash(first);
    fill(&redis.url(), &sessions, 1, || message(SIZE)).await;
    (client.caught_up() - crashed) as f64 / 1e9
}

fn bare(streams: usize) -> f64 {
    let data = String::from_utf8(message(SIZE)).unwrap();
    let frames = Frames { notification: format!("event: message\nid: bare-0\ndata: {data}\n\n"), ping: String::new() };
    let (first, second) = (Server::null(&frames, 0), Server::null(&frames, 0));
    let (mut client, _) = Client::begin(first.address(), streams);
    client.open();
    client.come_back(second.address());
    let crashed = crash(first);
    (client.caught_up() - crashed) as f64 / 1e9
}

/// Kills a server, and returns when that was.
fn crash(mut server: Server) -> u64 {
    let crashed = now();
    server.kill();
    crashed
}
