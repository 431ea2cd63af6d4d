//! Tool of an operator: lists discarded notifications with their reasons, queues them again, or deletes them. Servers
//! keep them where `Config::dead_letters` is above 0, as the example `rmcp_server` does. With a Redis at
//! 127.0.0.1:6379, and SESSION as the tool `export` of that server returns it, the second status comes too late:
//!
//! ```sh
//! REDIS_URL=redis://127.0.0.1/ cargo run --example rmcp_server
//! cargo run --example worker -- SESSION notifications/tasks/status '{"taskId": "7", "status": "completed"}'
//! cargo run --example worker -- SESSION notifications/tasks/status '{"taskId": "7", "status": "working"}'
//! cargo run --example dead_letters -- list
//! cargo run --example dead_letters -- redrive SESSION
//! cargo run --example dead_letters -- purge SESSION
//! ```
//!
//! The second worker prints `discarded: its task has ended`, and the last three commands print:
//!
//! ```text
//! SESSION notifications/tasks/status 01a2…: its task has ended
//! redriven 1; stayed: 0 undecodable, 0 obsolete questions
//! purged 1
//! ```
//!
//! `REDIS_URL` names another Redis, and `REDIS_PREFIX` another fleet in it than `mcp-courier`.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use mcp_courier::{Config, DeadLetters, Publisher, SessionId};

/// Prints one line for each letter of a session, the oldest first.
async fn list(dead: &DeadLetters, session: &SessionId) -> Result<(), Box<dyn Error>> {
    for page in 0.. {
        let letters = dead.list(session, page * 100, 100).await?;
        for letter in &letters {
            let id = letter.id.map(|id| id.to_string()).unwrap_or_default();
            println!("{session} {} {id}: {}", letter.method.as_deref().unwrap_or("undecodable"), letter.reason);
        }
        if letters.len() < 100 {
            break;
        }
    }
    Ok(())
}

async fn run(arguments: &[&str]) -> Result<(), Box<dyn Error>> {
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1/".to_owned());
    let prefix = env::var("REDIS_PREFIX").unwrap_or_else(|_| "mcp-courier".to_owned());
    let config = Config::builder().prefix(prefix).build()?;
    let dead = Publisher::connect(&url, config).await?.dead_letters();
    match arguments {
        ["list"] => {
            for session in dead.sessions().await? {
                list(&dead, &session).await?;
            }
        }
        ["redrive", session] => {
            let done = dead.redrive(&session.parse()?).await?;
            println!(
                "redriven {}; stayed: {} undecodable, {} obsolete questions",
                done.redriven, done.undecodable, done.obsolete
            );
            if let Some(limit) = done.full {
                return Err(format!("the queue is full: it may hold {limit}").into());
            }
        }
        ["purge", session] => println!("purged {}", dead.purge(&session.parse()?).await?),
        _ => return Err("usage: dead_letters list | redrive SESSION | purge SESSION".into()),
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let Err(error) = run(&arguments).await else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
