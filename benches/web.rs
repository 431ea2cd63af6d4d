//! MCP over real HTTP: servers, and a lean client that is many clients, each a process of its own.
//!
//! A benchmark starts itself again for each of them: see [`Part`]. The *null courier* is an actix server that sends the same
//! frames and pings as a courier, and takes the same answers, but has no queue, no rmcp and no Redis: [`null`].

#![allow(dead_code)] // each benchmark uses a part of it

mod client;
pub(crate) mod connection;
mod events;
pub(crate) mod frames;
mod null;
mod part;
mod rmcp_alone;
mod servers;
mod stream;

use clap::{Parser, Subcommand};

pub(crate) use self::client::Client;
pub(crate) use self::frames::Frames;
pub(crate) use self::servers::Server;
use super::support::figures::Bench;

/// Part of a benchmark that is a process of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Serves until the input ends.
    #[command(subcommand)]
    Serve(servers::Kind),
    /// Does what each line of the input asks.
    Clients,
}

#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    bench: Bench,
    /// Part of this process, where it is one of those that the benchmark starts.
    #[command(subcommand)]
    part: Option<Part>,
}

/// Reads the command line. Runs the part that it names, if it names one, and returns the settings of the benchmark else.
pub(crate) fn begin() -> Option<Bench> {
    let Args { bench, part } = Args::parse();
    match part {
        Some(part) => {
            part.run();
            None
        }
        None => Some(bench),
    }
}

impl Part {
    /// Runs this process's part.
    fn run(self) {
        actix::System::new().block_on(async {
            match self {
                Self::Serve(kind) => kind.serve().await,
                Self::Clients => client::serve().await,
            }
        });
    }
}
