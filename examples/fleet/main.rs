//! All that a service with MCP clients runs, on one machine: two MCP servers behind nginx, a worker in another process,
//! and users with bearer tokens. One server is killed on the way, and each user gets everything once:
//!
//! ```sh
//! cargo run --example fleet
//! ```
//!
//! Needs `nginx` and `redis-server`. On Debian: `apt-get install nginx-light redis-server`. Everything listens on
//! 127.0.0.1 at free ports, and ends with this program, also at ctrl-c.
//!
//! To copy: `server.rs`, with authentication; `worker.rs`; `client.rs`; and `docs/proxies/nginx.conf`.

use std::time::Duration;

use clap::{Parser, Subcommand};
use mcp_courier::Cause;
use tokio::signal::unix::{SignalKind, signal};

mod client;
mod programs;
mod server;
mod worker;

/// Runs a fleet of two servers behind nginx, a worker and clients, and kills a server on the way.
#[derive(Parser)]
struct Args {
    /// Number of users, each with a client.
    #[arg(long, default_value_t = 3)]
    users: u8,
    /// Number of notifications for each user.
    #[arg(long, default_value_t = 40)]
    notifications: usize,
    #[command(subcommand)]
    role: Option<Role>,
}

/// Processes that this program starts of itself.
#[derive(Subcommand)]
enum Role {
    #[command(hide = true)]
    Server { redis: String },
    #[command(hide = true)]
    Worker { redis: String },
}

fn main() -> Result<(), Cause> {
    let args = Args::parse();
    match &args.role {
        Some(Role::Server { redis }) => actix_web::rt::System::new().block_on(server::serve(redis)),
        Some(Role::Worker { redis }) => tokio::runtime::Runtime::new()?.block_on(worker::work(redis)),
        None => tokio::runtime::Runtime::new()?.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            // A signal drops what `run` has started, and so ends it.
            tokio::select! {
                outcome = run(args.users, args.notifications) => outcome,
                _ = interrupt.recv() => Err("interrupted".into()),
                _ = terminate.recv() => Err("terminated".into()),
            }
        }),
    }
}

async fn run(users: u8, notifications: usize) -> Result<(), Cause> {
    let directory = programs::directory()?;
    let users: Vec<_> = (1..=users).map(|n| (uuid::Uuid::new_v4().to_string(), format!("user-{n}"))).collect();
    // Each ends when it is dropped: nginx first, Redis last.
    let (_redis, redis) = programs::redis(directory.path())?;
    let (mut first, first_port) = programs::server(&redis, &users)?;
    let (_second, second_port) = programs::server(&redis, &users)?;
    let _worker = programs::worker(&redis)?;
    let (_nginx, url) = programs::nginx(directory.path(), [first_port, second_port])?;
    println!("{redis} and two servers, at ports {first_port} and {second_port}, behind nginx at {url}");

    let mut clients = Vec::new();
    for (token, user) in users {
        clients.push(client::Client::start_report(&url, user, token, notifications).await?);
    }
    for client in &clients {
        client.until_received(notifications / 2).await?;
    }
    println!("the server at port {first_port} is killed (SIGKILL)");
    first.kill()?;
    for client in &clients {
        client.until_received(notifications).await?;
    }
    // A repeat would arrive soon.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let outcomes: Vec<_> = clients.iter().map(|client| client.outcome(notifications)).collect();
    println!("{}", outcomes.iter().map(|(_, said)| said.as_str()).collect::<Vec<_>>().join("\n"));
    if outcomes.iter().all(|(once, _)| *once) { Ok(()) } else { Err("a user did not get everything once".into()) }
}
