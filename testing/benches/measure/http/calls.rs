//! System calls of the server for a message, as `strace` counts them.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mcp_courier_testing::redis_server::RedisServer;
use tempfile::TempDir;

use super::drain;
use crate::support::figures::{Bench, Row, Wanted, print_figure, print_row};
use crate::support::load::{SIZE, fill};
use crate::support::messages::message;
use crate::web::{Client, Frames, Server};

/// Number of messages of one round: `strace` makes each call take long.
const COUNT: usize = 200_000;

/// Most rounds: the numbers are nearly the same in each.
const ROUNDS: usize = 2;

/// Most system calls for a message.
const WANTED: f64 = 0.2;

/// Measures the calls of both servers.
pub(super) async fn measure(bench: &Bench, frames: &Frames) {
    for clients in [1, 200] {
        let name = drain::name(clients);
        let (mut row, each) = (Row::new(&name, "system calls a message"), bench.count(COUNT) / clients);
        let rounds = bench.rounds([&row]);
        if !rounds.is_empty() && Command::new("strace").arg("-V").output().is_err() {
            println!("| {name}, system calls a message: not measured, as there is no strace | | | | |");
            continue;
        }
        let mut ours = Vec::new();
        for _ in rounds.take(ROUNDS) {
            ours.push(courier(bench, clients, each).await);
            row.add(ours[ours.len() - 1], null(bench, frames, clients, each));
        }
        print_row(&row);
        if !ours.is_empty() {
            print_figure(
                &format!("{name}, of mcp-courier alone, system calls a message"),
                &ours,
                Wanted::AtMost(WANTED),
            );
        }
    }
}

async fn courier(bench: &Bench, clients: usize, each: usize) -> f64 {
    let redis = RedisServer::start();
    let server = Server::courier(&redis.url());
    let (client, sessions) = Client::begin(server.address(), clients);
    fill(&redis.url(), &sessions, each, || message(SIZE)).await;
    calls(bench, &server, client, clients * each)
}

fn null(bench: &Bench, frames: &Frames, clients: usize, each: usize) -> f64 {
    let server = Server::null(frames, each);
    let (client, _) = Client::begin(server.address(), clients);
    calls(bench, &server, client, clients * each)
}

fn calls(bench: &Bench, server: &Server, mut client: Client, count: usize) -> f64 {
    let strace = Strace::of(server);
    client.open();
    client.until(count);
    let text = strace.stop();
    if bench.verbose {
        eprintln!("{text}");
    }
    let total = text.lines().rev().find(|line| line.ends_with("total")).expect("the line of all calls");
    // Percentage, seconds, microseconds a call, calls.
    total.split_whitespace().nth(3).unwrap().parse::<f64>().unwrap() / count as f64
}

/// A `strace` that counts the calls of all threads of a server.
struct Strace {
    child: Child,
    directory: TempDir,
}

impl Strace {
    /// Begins to count.
    fn of(server: &Server) -> Self {
        let directory = TempDir::new().unwrap();
        let child = Command::new("strace")
            .args(["-f", "-c", "-S", "calls", "-p", &server.id().to_string(), "-o"])
            .arg(directory.path().join("calls"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !server.process().is_traced() {
            std::thread::sleep(Duration::from_millis(5));
        }
        // The other threads are traced a moment later.
        std::thread::sleep(Duration::from_millis(200));
        Self { child, directory }
    }

    /// Returns the table of the calls until now.
    fn stop(mut self) -> String {
        Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        self.child.wait().unwrap();
        fs::read_to_string(self.directory.path().join("calls")).unwrap()
    }
}
