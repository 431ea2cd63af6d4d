//! Worker that the tests with real clients run: pushes, also many at once, and asks questions of any form.
//! `cargo run -p mcp-courier-testing --bin worker -- --redis redis://127.0.0.1/ push-many SESSION 5000`.
//!
//! The examples `worker` and `ask` are for people: they show less, in fewer lines.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use mcp_courier::{
    Answer, Cause, Config, Elicitation, LoggingLevel, Notification, Publisher, Receipt, SessionId, TaskKey,
};
use serde_json::{Value, json};

/// Pushes notifications to a client of an MCP server, and asks its user.
#[derive(Parser)]
struct Args {
    /// URL of the queue, the same as the servers'.
    #[arg(long, value_name = "URL")]
    redis: String,
    /// Prefix of all keys in Redis, the same as the servers'.
    #[arg(long, default_value = "mcp-courier")]
    prefix: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Pushes one notification.
    Push {
        session: SessionId,
        method: String,
        /// JSON object.
        params: String,
        /// Waits for the receipt, at most this long, and prints it.
        #[arg(long, value_name = "SECONDS")]
        receipt_wait: Option<u64>,
    },
    /// Pushes many notifications/message at once, with the data {"n": 1}, {"n": 2} and so on.
    PushMany { session: SessionId, count: usize },
    /// Asks the client's user by a form or on a page, and prints the outcome as one line of JSON.
    Elicit {
        session: SessionId,
        task: String,
        message: String,
        /// JSON schema: an object with properties of primitive types.
        #[arg(required_unless_present = "url", conflicts_with = "url")]
        schema: Option<String>,
        /// Page that the user shall visit, instead of a form.
        #[arg(long)]
        url: Option<String>,
        /// Time to wait for the answer.
        #[arg(long, value_name = "SECONDS", default_value_t = 300)]
        timeout: u64,
        /// Authorisation scope of the task; none on a server without authentication.
        #[arg(long)]
        scope: Option<String>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Err(error) = run(Args::parse()).await else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn run(args: Args) -> Result<(), Cause> {
    let publisher = Publisher::connect(&args.redis, Config::builder().prefix(args.prefix).build()?).await?;
    match args.command {
        Command::Push { session, method, params, receipt_wait } => {
            let mut notification = Notification::new(method)?.with_params_json(&params)?;
            if receipt_wait.is_some() {
                notification = notification.with_receipt();
            }
            let pushed = publisher.push(&session, notification).await?;
            println!("queued {}, {} waiting", pushed.id, pushed.waiting);
            if let Some(seconds) = receipt_wait {
                let receipt = publisher.until_settled(&session, pushed.id, Duration::from_secs(seconds)).await?;
                println!("{}", outcome_of(&receipt));
            }
        }
        Command::PushMany { session, count } => {
            let numbered = (1..=count)
                .map(|n| (session.clone(), Notification::message(LoggingLevel::Info, Some("worker"), json!({"n": n}))));
            for pushed in publisher.push_many(numbered).await {
                pushed?;
            }
            println!("queued {count} of {count}");
        }
        Command::Elicit { session, task, message, schema, url, timeout, scope } => {
            let task = match scope {
                None => TaskKey::anonymous(task)?,
                Some(scope) => TaskKey::of_scope(scope, task)?,
            };
            let question = match url {
                Some(url) => Elicitation::url(message, url, task.id()),
                None => Elicitation::form(message, serde_json::from_str(&schema.unwrap_or_default())?)?,
            };
            let answer = publisher.elicitor().elicit(&session, &task, question, Duration::from_secs(timeout)).await?;
            println!("{}", result_of(&answer));
        }
    }
    Ok(())
}

fn outcome_of(receipt: &Receipt) -> String {
    match receipt {
        Receipt::Queued { .. } => "still queued".to_owned(),
        Receipt::Delivered { .. } => "delivered".to_owned(),
        Receipt::Discarded { reason, .. } => format!("discarded: {reason}"),
        other => format!("{other:?}"),
    }
}

fn result_of(answer: &Answer) -> Value {
    match answer {
        Answer::Accept(content) => json!({"action": "accept", "content": content}),
        Answer::Decline => json!({"action": "decline"}),
        Answer::Cancel { reason } => json!({"action": "cancel", "reason": reason}),
        other => json!({"action": "cancel", "reason": format!("an answer of a new kind: {other:?}")}),
    }
}
