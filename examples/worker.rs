//! A worker that has something to say to a client, from a process of its own and without holding any session:
//! `cargo run --example worker -- --redis redis://127.0.0.1/ push SESSION notifications/tools/list_changed '{}'`.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use mcp_courier::{
    Answer, Cause, Config, Elicitation, LoggingLevel, Notification, Principal, Publisher, SessionId, TaskKey,
};
use serde_json::{Value, json};

/// Pushes notifications to a client of an MCP server, and asks its user.
#[derive(Debug, Parser)]
struct Args {
    /// The queue, the same as the servers'.
    #[arg(long, value_name = "URL")]
    redis: String,
    /// What all keys in Redis begin with, the same as the servers'.
    #[arg(long, default_value = "mcp-courier")]
    prefix: String,
    /// Whose sessions they are, where the servers authenticate their users.
    #[arg(long, value_name = "USER")]
    principal: Option<Principal>,
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
    /// Asks the client's user by a form, and prints the outcome as one line of JSON.
    Elicit {
        /// The id of the client's session.
        session: String,
        /// The id of the task that asks.
        task: String,
        /// What the user reads.
        message: String,
        /// A JSON schema: an object with properties of primitive types.
        schema: String,
        /// How long to wait for the answer.
        #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
        timeout: u64,
        /// The authorisation scope of the task; none on a server without authentication.
        #[arg(long)]
        scope: Option<String>,
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
    let session_of = |id: String| {
        SessionId::new(id).map(|session| match &args.principal {
            Some(principal) => session.bound_to(principal.clone()),
            None => session,
        })
    };
    match args.command {
        Command::Push { session, method, params } => {
            // All that can be wrong without Redis is said without Redis.
            let session = session_of(session)?;
            let params: Value =
                serde_json::from_str(&params).map_err(|error| format!("the params are no JSON: {error}"))?;
            let notification = Notification::new(method)?.with_params(params)?;
            let publisher = Publisher::connect(&args.redis, config).await?;
            let pushed = publisher.push(&session, notification).await?;
            say(&format!("queued {}, {} waiting", pushed.id, pushed.waiting));
        }
        Command::PushMany { session, count } => {
            let session = session_of(session)?;
            let publisher = Publisher::connect(&args.redis, config).await?;
            push_many(&publisher, &session, count).await?;
        }
        Command::Elicit { session, task, message, schema, timeout, scope } => {
            let session = session_of(session)?;
            let task = match scope {
                None => TaskKey::anonymous(task)?,
                Some(scope) => TaskKey::of_scope(scope, task)?,
            };
            let schema: Value =
                serde_json::from_str(&schema).map_err(|error| format!("the schema is no JSON: {error}"))?;
            let question = Elicitation::form(message, schema)?;
            let elicitor = Publisher::connect(&args.redis, config).await?.elicitor();
            let answer = elicitor.elicit(&session, &task, question, Duration::from_secs(timeout)).await?;
            say(&outcome(&answer).to_string());
        }
    }
    Ok(())
}

fn outcome(answer: &Answer) -> Value {
    match answer {
        Answer::Accept(content) => json!({"action": "accept", "content": content}),
        Answer::Decline => json!({"action": "decline"}),
        Answer::Cancel { reason } => json!({"action": "cancel", "reason": reason}),
        other => json!({"action": "cancel", "reason": format!("an answer of a new kind: {other:?}")}),
    }
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
