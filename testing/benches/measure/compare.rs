//! This crate beside other packages that bring messages through Redis: `scripts/benchmark compare`, which installs them.
//!
//! Each row does the same to all sides, in rounds that alternate, each with a `redis-server` of its own. A side is a program that
//! knows the commands of `compare/courier.rs`, which is this crate's side, or refuses a command with the status 3.
//!
//! `cargo bench -p mcp-courier-testing -- compare --side "FastMCP=PYTHON benches/alternatives/fastmcp/side.py"` adds a side.
//! `scripts/python-environment` makes the PYTHON that has its packages.

mod courier;
mod rows;
mod side;

use clap::Args;
use mcp_courier::Cause;
use mcp_courier_testing::redis_server::RedisServer;

use crate::support::figures::Bench;
use courier::Command;
use rows::{Row, rows};
use side::{Kind, Side};

#[derive(Debug, Args)]
pub(crate) struct Comparison {
    #[command(flatten)]
    bench: Bench,
    /// Another side: its name and its program with arguments.
    #[arg(long = "side", value_name = "NAME=PROGRAM")]
    sides: Vec<Side>,
    /// Number of sessions in one process, for the rows that have many; several with commas.
    #[arg(long, default_value = "150,1000", value_delimiter = ',')]
    sessions: Vec<usize>,
}

/// This crate's side of the comparison.
#[derive(Debug, Args)]
pub(crate) struct OwnSide {
    /// URL of Redis.
    #[arg(long)]
    redis: String,
    #[command(subcommand)]
    command: Command,
}

impl OwnSide {
    /// Does what the command says.
    pub(crate) fn run(self) -> Result<(), Cause> {
        actix::System::new().block_on(courier::run(&self.redis, self.command))
    }
}

pub(crate) fn run(Comparison { bench, sides, sessions }: Comparison) -> Result<(), Cause> {
    let own = Side::own(&std::env::current_exe()?);
    let sides: Vec<Side> = [own].into_iter().chain(sides).collect();
    let names: Vec<&str> = sides.iter().map(Side::name).collect();
    println!("| what was done | {} |\n|{}", names.join(" | "), " --- |".repeat(names.len() + 1));
    for row in rows(&bench, &sessions).iter().filter(|row| bench.wants_name(&row.name)) {
        println!("| {} | {} |", row.name, measure(&bench, row, &sides).join(" | "));
    }
    Ok(())
}

/// Does a row to all sides in turn, and returns for each what it gave.
fn measure(bench: &Bench, row: &Row, sides: &[Side]) -> Vec<String> {
    let mut given = vec![Vec::new(); sides.len()];
    for _ in bench.every_round() {
        for (side, given) in sides.iter().zip(&mut given) {
            let redis = RedisServer::with(&["--maxclients", "30000"]);
            given.push((row.does)(&side.on(&redis.url())));
        }
    }
    given.into_iter().map(|given| shown(row, given)).collect()
}

/// Returns what the rounds of one side gave, as text.
fn shown(row: &Row, given: Vec<Result<Vec<f64>, Kind>>) -> String {
    match given.into_iter().collect::<Result<Vec<_>, _>>() {
        Ok(figures) => (row.shown)(&figures),
        Err(Kind::Refused) => "–".to_owned(),
        Err(Kind::Failed) => "fails, or not within 40 s".to_owned(),
    }
}
