//! Memory, descriptors and threads of servers with open streams.

use std::collections::BTreeMap;

use mcp_courier_testing::redis_server::RedisServer;

use super::STREAMS;
use crate::support::figures::{Bench, spread};
use crate::support::load::{SIZE, fill};
use crate::support::messages::message;
use crate::web::{Client, Frames, Server};

/// Servers that are measured.
const SERVERS: [&str; 3] = ["actix alone", "rmcp alone", "mcp-courier"];

/// Figures that are shown of each.
const COLUMNS: [(&str, &str); 5] = [
    ("begun", "KiB a session without a stream"),
    ("open", "KiB with its stream"),
    ("used", "KiB after a message each"),
    ("descriptors", "descriptors"),
    ("threads", "threads"),
];

/// Most rounds: the figures are nearly the same in each.
const ROUNDS: usize = 2;

type Given = BTreeMap<&'static str, Vec<f64>>;

/// Measures the servers, and prints a table of their own.
pub(super) async fn measure(bench: &Bench) {
    if !bench.wants_name("memory") {
        return;
    }
    let streams = bench.count(STREAMS);
    let mut given: BTreeMap<&str, Given> = BTreeMap::new();
    for _ in bench.every_round().take(ROUNDS) {
        for name in SERVERS {
            for (field, figure) in of(name, streams).await {
                given.entry(name).or_default().entry(field).or_default().push(figure);
            }
        }
    }
    println!("| memory of {streams} streams | {} |", COLUMNS.map(|(_, title)| title).join(" | "));
    println!("|{}", " --- |".repeat(COLUMNS.len() + 1));
    for name in SERVERS {
        let cells = COLUMNS.map(|(field, _)| spread(given[name].get(field).into_iter().flatten().copied()));
        println!("| {name} | {} |", cells.join(" | "));
    }
    println!();
}

async fn of(name: &str, streams: usize) -> BTreeMap<&'static str, f64> {
    let redis = RedisServer::start();
    let server = match name {
        "mcp-courier" => Server::courier(&redis.url()),
        "rmcp alone" => Server::rmcp(&redis.url()),
        _ => Server::null(&Frames::default(), 0),
    };
    let process = server.process();
    let before = process.resident() as f64;
    let kib = || (process.resident() as f64 - before) / 1024.0 / streams as f64;
    let (mut client, sessions) = Client::begin(server.address(), streams);
    let mut figures = BTreeMap::from([("begun", kib())]);
    client.open();
    figures.extend([
        ("open", kib()),
        ("descriptors", process.descriptors() as f64),
        ("threads", process.threads() as f64),
    ]);
    if name == "mcp-courier" {
        fill(&redis.url(), &sessions, 1, || message(SIZE)).await;
        client.until(streams);
        figures.insert("used", kib());
    }
    figures
}
