//! Idle sessions: memory, threads, descriptors and connections, and the time to start, renew and stop all of them.
//! `cargo bench -p mcp-courier-testing -- idle`.
//!
//! Each measurement is a process of its own, so that none finds memory that another one left to the allocator.

pub(crate) mod child;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use mcp_courier_testing::redis_server::RedisServer;

use crate::support::courier::Mode;
use crate::support::figures::{Bench, Wanted, print_figure, print_head, spread};

/// Ways and numbers of sessions that are measured.
const CASES: [(Mode, usize); 5] =
    [(Mode::Shared, 0), (Mode::Shared, 1000), (Mode::Shared, 10_000), (Mode::Shared, 100_000), (Mode::Dedicated, 1000)];

/// Figures that are shown of each case.
const COLUMNS: [(&str, &str); 9] = [
    ("idle", "KiB a session"),
    ("used", "KiB after a message each"),
    ("most", "largest KiB"),
    ("threads", "threads"),
    ("descriptors", "descriptors"),
    ("connections", "Redis connections"),
    ("start", "start all, s"),
    ("renew", "renew all, s"),
    ("stop", "stop all, s"),
];

/// Figures of the largest case that are to be reached.
const WANTED: [(&str, &str, f64); 4] = [
    ("idle", "memory a session, actors included, KiB", 4.0),
    ("start", "start all, s", 3.0),
    ("renew", "renew all, s", 1.0),
    ("stop", "stop all, s", 3.0),
];

type Given = BTreeMap<String, Vec<f64>>;

pub(crate) fn run(bench: &Bench) {
    let mut cases: Vec<(Mode, usize, Given)> = CASES.map(|(mode, sessions)| (mode, sessions, Given::new())).into();
    cases.retain(|(mode, sessions, _)| bench.wants_name(&name(*mode, *sessions)));
    for _ in bench.every_round() {
        for (mode, sessions, given) in &mut cases {
            let commands: &[&str] = if *sessions == 0 { &["rest"] } else { &["rest", "renew"] };
            for (field, figure) in commands.iter().flat_map(|command| measure(command, *mode, *sessions)) {
                given.entry(field).or_default().push(figure);
            }
        }
    }
    print(&cases);
}

/// Measures in a process of its own.
fn measure(command: &str, mode: Mode, sessions: usize) -> BTreeMap<String, f64> {
    let redis = RedisServer::with(&["--maxclients", "20000"]);
    let program = std::env::current_exe().unwrap();
    let arguments = ["idle-part", command, mode.name(), &sessions.to_string(), &redis.url()].map(str::to_owned);
    let child = Command::new(program).args(arguments).stderr(Stdio::inherit()).output().unwrap();
    assert!(child.status.success(), "{} {command} failed", name(mode, sessions));
    serde_json::from_slice(&child.stdout).unwrap()
}

fn print(cases: &[(Mode, usize, Given)]) {
    println!("| idle sessions | {} |", COLUMNS.map(|(_, title)| title).join(" | "));
    println!("|{}", " --- |".repeat(COLUMNS.len() + 1));
    for (mode, sessions, given) in cases {
        let cells = COLUMNS.map(|(field, _)| spread(given.get(field).into_iter().flatten().copied()));
        println!("| {} | {} |", name(*mode, *sessions), cells.join(" | "));
    }
    let largest = CASES.iter().map(|(_, sessions)| *sessions).max();
    let Some((mode, sessions, given)) = cases.iter().find(|(_, sessions, _)| Some(*sessions) == largest) else {
        return;
    };
    println!();
    print_head("");
    for (field, title, most) in WANTED {
        print_figure(&format!("{}, {title}", name(*mode, *sessions)), &given[field], Wanted::AtMost(most));
    }
    let arbiters = std::thread::available_parallelism().map_or(1, usize::from);
    let connections: Vec<f64> = given["connections"].iter().map(|all| all / arbiters as f64).collect();
    print_figure("Redis connections an arbiter", &connections, Wanted::AtMost(2.0));
}

fn name(mode: Mode, sessions: usize) -> String {
    format!("{sessions} {}", mode.name())
}
