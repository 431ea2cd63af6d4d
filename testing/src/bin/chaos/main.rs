//! Chaos: `cargo run --release -p mcp-courier-testing --bin chaos -- --seconds 60 --seed 7`.
//!
//! Several servers, workers and clients as processes of their own, and a Redis that writes to its disk whatever it
//! answers. A schedule of faults, the same for the same seed, kills, stops, pauses and cuts them. At last all is
//! healed, and a checker judges: every notification that was pushed with `Ok` reached its client's handler, in the
//! order of its worker's pushes. It came once where the client sends `Last-Event-ID`. The program ends with 1, and
//! names each that is lost, out of order, or came to such a client twice.
//!
//! `chaos failover-times` measures how long a client goes without when its server dies.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mcp_courier::{Cause, Config, ConfigBuilder};

mod check;
mod client;
mod failover;
mod faults;
mod fleet;
mod record;
mod report;
mod roles;
mod run;
mod schedule;
mod server;
mod worker;

#[derive(Debug, Parser)]
#[command(
    about = "Kills, pauses and cuts a fleet, and checks that nothing is lost",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    chaos: Chaos,
}

#[derive(Debug, Clone, Args)]
struct Chaos {
    /// Time with faults, in seconds. Healing and draining follow.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The same seed makes the same schedule of faults. A new one each time if there is none.
    #[arg(long)]
    seed: Option<u64>,
    /// Number of servers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    servers: u16,
    /// Number of workers.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    workers: u16,
    /// Number of clients.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: u16,
    /// Number of notifications that a worker pushes in a second.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Mean time from one fault to the next, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 700, value_parser = clap::value_parser!(u64).range(1..))]
    every: u64,
    /// Longest time until everything that was pushed has arrived, once all faults are healed, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    drain: u64,
    /// Way in which the servers' sessions wait for notifications.
    #[arg(long, value_enum, default_value_t = Waiting::Dedicated)]
    waiting: Waiting,
    /// Percentage of the clients that send no `Last-Event-ID`. The others must get nothing twice.
    #[arg(long, value_name = "PERCENT", default_value_t = 25, value_parser = clap::value_parser!(u16).range(..=100))]
    without_last_event_id: u16,
    /// Leaves the event ids out, from the header or from the events: to see that the checker finds what comes twice.
    #[arg(long, value_enum, hide = true)]
    leave_out_ids: Option<LeftOut>,
    /// In place of the schedule, kills a server by SIGKILL each time that so many milliseconds have passed.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    kill_every: Option<u64>,
    /// Delivers at most once, which is allowed to lose: to see that the checker finds it.
    #[arg(long)]
    at_most_once: bool,
    /// Keeps the records in this directory. Without it they are kept, in a temporary one, only when something is wrong.
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Way in which the sessions of the fleet's servers wait for notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Waiting {
    /// Each over a connection of its own.
    Dedicated,
    /// All of a server over a few connections.
    Shared,
    /// Of every second server dedicated, of the others shared.
    Both,
}

impl Waiting {
    /// Returns whether the sessions of this server share connections.
    fn is_shared(self, server: usize) -> bool {
        self == Self::Shared || self == Self::Both && server % 2 == 1
    }
}

impl Chaos {
    /// Returns whether a client is to send `Last-Event-ID`. Those that are not are spread evenly.
    fn resumes(&self, client: usize) -> bool {
        let without = |clients: usize| clients * usize::from(self.without_last_event_id) / 100;
        without(client) == without(client + 1)
    }
}

/// Place from which event ids are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LeftOut {
    /// The header `Last-Event-ID` of the clients.
    Header,
    /// The events of the servers.
    Events,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Measures the time from the death of a server to the next delivery at another one.
    FailoverTimes {
        /// Number of rounds for each way to die.
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// A server of the fleet.
    #[command(hide = true)]
    Server(server::ServerArgs),
    /// A worker of the fleet.
    #[command(hide = true)]
    Worker(worker::WorkerArgs),
    /// A client of the fleet.
    #[command(hide = true)]
    Client(client::ClientArgs),
    /// The fleet's Redis.
    #[command(hide = true)]
    Redis,
}

fn main() -> ExitCode {
    let Cli { role, chaos } = Cli::parse();
    let done = match role {
        None => run::chaos(chaos),
        Some(Role::FailoverTimes { rounds }) => failover::measure(rounds).map(|()| true),
        Some(Role::Server(args)) => server::run(args).map(|()| true),
        Some(Role::Worker(args)) => worker::run(args).map(|()| true),
        Some(Role::Client(args)) => client::run(args).map(|()| true),
        Some(Role::Redis) => roles::keep_redis().map(|()| true),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prefix of all keys.
const PREFIX: &str = "chaos";

/// Number of notifications that are taken at once.
const BATCH: usize = 100;

/// Number of notifications that may await their confirmation, and so be repeated by a fault.
const WINDOW: usize = 4 * BATCH;

/// Life of a lease without its owner.
const LEASE: Duration = Duration::from_secs(2);

/// The settings of all: short, so that a minute sees what else takes an hour, and with a time to live that nothing
/// outlives.
fn config() -> ConfigBuilder {
    Config::builder()
        .prefix(PREFIX)
        .heartbeat(LEASE / 2)
        .hand_over_timeout(Duration::from_secs(2))
        .backoff_max(Duration::from_millis(500))
        .batch_messages(BATCH)
        .window_messages(WINDOW)
        .queue_max_messages(100_000)
        .time_to_live(Duration::from_secs(24 * 3600))
}

/// Runs on a runtime of this thread, or on several threads.
fn block_on<T>(threads: bool, what: impl Future<Output = Result<T, Cause>>) -> Result<T, Cause> {
    let mut builder = match threads {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build()?.block_on(what)
}
