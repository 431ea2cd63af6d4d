//! Time from the crash of a server with open streams until the last client has its next message from another server, beside bare
//! HTTP: the same clients come to a null courier, which answers each with a message at once.

use mcp_courier_testing::process::Process;
use mcp_courier_testing::redis_server::RedisServer;

use super::STREAMS;
use crate::support::figures::{Bench, Row, Wanted, print_head, print_row};
use crate::support::load::{SIZE, fill};
use crate::support::messages::{message, now};
use crate::web::{Client, Frames, Server};

/// Measures the crashes, in rounds.
pub(super) async fn measure(bench: &Bench) {
    let streams = bench.count(STREAMS);
    let name = format!("{streams} streams, crash to the last client's next message");
    let mut beside_bare = Row::new(format!("{name}, beside bare HTTP"), "s").wanted(Wanted::AtMost(1.5));
    let mut beside_rmcp = Row::new(format!("{name}, beside rmcp alone"), "s");
    for _ in bench.rounds([&beside_bare, &beside_rmcp]) {
        let (bare, rmcp, ours) = (bare(streams), rmcp_alone(bench, streams), courier(bench, streams).await);
        beside_bare.add(ours, bare);
        beside_rmcp.add(ours, rmcp);
    }
    print_head("alternative");
    print_row(&beside_bare);
    print_row(&beside_rmcp);
}

async fn courier(bench: &Bench, streams: usize) -> f64 {
    let redis = RedisServer::with(&["--maxclients", "20000"]);
    let (first, second) = (Server::courier(&redis.url()), Server::courier(&redis.url()));
    let (mut client, sessions) = Client::begin(first.address(), streams);
    fill(&redis.url(), &sessions, 1, || message(SIZE)).await;
    client.open();
    client.until(streams);
    client.come_back(second.address());
    let usage = Usage::of(&second, &client);
    let crashed = crash(first);
    fill(&redis.url(), &sessions, 1, || message(SIZE)).await;
    let seconds = (client.caught_up() - crashed) as f64 / 1e9;
    usage.say(bench, "mcp-courier", streams, seconds);
    seconds
}

/// Sessions of rmcp's come back too, with a message that the new server makes itself.
fn rmcp_alone(bench: &Bench, streams: usize) -> f64 {
    let redis = RedisServer::start();
    let (first, second) = (Server::rmcp(&redis.url()), Server::rmcp(&redis.url()));
    let (mut client, _) = Client::begin(first.address(), streams);
    client.open();
    client.until(streams);
    client.come_back(second.address());
    let usage = Usage::of(&second, &client);
    let crashed = crash(first);
    let seconds = (client.caught_up() - crashed) as f64 / 1e9;
    usage.say(bench, "rmcp alone", streams, seconds);
    seconds
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

/// Processor time of a server and of its clients until now.
struct Usage([(Process, f64); 2]);

impl Usage {
    fn of(server: &Server, client: &Client) -> Self {
        Self([server.process(), client.process()].map(|process| {
            let so_far = process.processor_time();
            (process, so_far)
        }))
    }

    /// Says what was used since then, for each stream.
    fn say(&self, bench: &Bench, name: &str, streams: usize, seconds: f64) {
        let [server, clients] =
            self.0.each_ref().map(|(process, before)| (process.processor_time() - before) * 1e6 / streams as f64);
        if bench.verbose {
            eprintln!("{name}: {seconds:.2} s; processor time a stream: server {server:.0} µs, client {clients:.0} µs");
        }
    }
}
