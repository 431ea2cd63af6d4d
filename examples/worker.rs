//! A worker that has something to say to a client, from a process of its own and without holding any session:
//! `cargo run --example worker -- --redis redis://127.0.0.1/ push SESSION notifications/tools/list_changed '{}'`.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use mcp_courier::{Cause, Config, LoggingLevel, Notification, Publisher, SessionId};
use serde_json::{Value, json};

/// Pushes notifications to a client of an MCP server.
#[derive(Debug, Parser)]
struct Args {
    /// The queue, the same as the servers'.
    #[arg(long, value_name = "URL")]
    redis: String,
    /// What all keys in Redis begin with, the same as the servers'.
    #[arg(long, default_value = "mcp-courier")]
    prefix: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pushes one notification.
    Push {
        /// The id of the client's session.
        session: String,
        /// Any method that begins with notifications/.
        method: String,
        /// A JSON object.
        params: String,
    },
    /// Pushes many notifications/message at once, with the data {"n": 1}, {"n": 2} and so on.
    PushMany {
        /// The id of the client's session.
        session: String,
        /// How many.
        count: usize,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Err(error) = run(Args::parse()).await else { return ExitCode::SUCCESS };
    complain(error.as_ref());
    ExitCode::FAILURE
}

async fn run(args: Args) -> Result<(), Cause> {
    if args.redis.starts_with("memory:") {
        return Err("memory:// is a queue of one process, and the client is another's".into());
    }
    let config = Config::builder().prefix(args.prefix).build()?;
    match args.command {
        Command::Push { session, method, params } => {
            // All that can be wrong without Redis is said without Redis.
            let session = SessionId::new(session)?;
            let params: Value =
                serde_json::from_str(&params).map_err(|error| format!("the params are no JSON: {error}"))?;
            let notification = Notification::new(method)?.with_params(params)?;
            let publisher = Publisher::connect(&args.redis, config).await?;
            let pushed = publisher.push(&session, notification).await?;
            say(&format!("queued {}, {} waiting", pushed.id, pushed.waiting));
        }
        Command::PushMany { session, count } => {
            let session = SessionId::new(session)?;
            let publisher = Publisher::connect(&args.redis, config).await?;
            push_many(&publisher, &session, count).await?;
        }
    }
    Ok(())
}

async fn push_many(publisher: &Publisher, session: &SessionId, count: usize) -> Result<(), Cause> {
    let numbered = (1..=count)
        .map(|n| (session.clone(), Notification::message(LoggingLevel::Info, Some("worker"), json!({"n": n}))));
    let began = Instant::now();
    let results = publisher.push_many(numbered).await;
    let took = began.elapsed();
    let queued = results.iter().filter(|result| result.is_ok()).count();
    say(&format!("queued {queued} of {count} in {took:.3?}"));
    match results.into_iter().find_map(Result::err) {
        // After the first refusal all others are refused for its sake, so that is the one to tell of.
        Some(first) => Err(Box::new(first)),
        None => Ok(()),
    }
}

fn say(line: &str) {
    println!("{line}");
}

fn complain(error: &dyn Error) {
    eprint!("error: {error}");
    // Many errors say their cause themselves.
    let mut said = error.to_string();
    for cause in std::iter::successors(error.source(), |cause| (*cause).source()).map(ToString::to_string) {
        if !said.contains(&cause) {
            eprint!(": {cause}");
        }
        said = cause;
    }
    eprintln!();
}
