//! A worker that has something to say to a client, from a process of its own and without holding any session:
//! `cargo run --example worker -- --redis redis://127.0.0.1/ push SESSION notifications/tools/list_changed '{}'`.

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};
use mcp_courier::{
    Answer, Cause, Config, Elicitation, LoggingLevel, Notification, Principal, Publisher, Receipt, Redriven, SessionId,
    SessionStatus, TaskKey,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Pushes notifications to a client of an MCP server, asks its user, and looks after what was discarded.
#[derive(Parser)]
struct Args {
    /// The queue, the same as the servers'.
    #[arg(long, value_name = "URL")]
    redis: String,
    /// What all keys in Redis begin with, the same as the servers'.
    #[arg(long, default_value = "mcp-courier")]
    prefix: String,
    /// Takes SESSION as the bare value of the header Mcp-Session-Id, and not as what `SessionId` writes.
    #[arg(long, global = true)]
    header: bool,
    /// User to whom the session is bound, for a session id that names none. Needed where the servers authenticate their users.
    #[arg(long, value_name = "USER", global = true)]
    principal: Option<Principal>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pushes one notification.
    Push {
        /// Id of the client's session, as `SessionId` writes it: ID, or PRINCIPAL:ID where it is bound to a user.
        session: String,
        /// Any method that begins with notifications/.
        method: String,
        /// A JSON object.
        params: String,
        /// Waits, at most this long, and prints what became of it.
        #[arg(long, value_name = "SECONDS")]
        receipt_wait: Option<u64>,
    },
    /// Pushes many notifications/message at once, with the data {"n": 1}, {"n": 2} and so on.
    PushMany {
        /// Id of the client's session, as `SessionId` writes it: ID, or PRINCIPAL:ID where it is bound to a user.
        session: String,
        /// How many.
        count: usize,
    },
    /// Asks the client's user by a form, and prints the outcome as one line of JSON.
    Elicit {
        /// Id of the client's session, as `SessionId` writes it: ID, or PRINCIPAL:ID where it is bound to a user.
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
    /// What was discarded, where the servers keep it.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
}

#[derive(Debug, Subcommand)]
enum DeadLetters {
    /// Prints one line of JSON for each, the oldest first.
    List {
        /// Id of the client's session, as `SessionId` writes it: ID, or PRINCIPAL:ID where it is bound to a user.
        session: String,
    },
    /// Queues them again, the oldest first.
    Redrive {
        /// Id of the client's session, as `SessionId` writes it: ID, or PRINCIPAL:ID where it is bound to a user.
        session: String,
    },
    /// Throws them away.
    Purge {
        /// Id of the client's session, as `SessionId` writes it: ID, or PRINCIPAL:ID where it is bound to a user.
        session: String,
    },
}

/// How many letters are read at once.
const PAGE: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::try_parse().unwrap_or_else(|error| without_values(error).exit());
    let Err(error) = run(args).await else { return ExitCode::SUCCESS };
    complain(error.as_ref());
    ExitCode::FAILURE
}

/// Hides the values that clap quotes in its messages: one may be a URL with a password.
fn without_values(mut error: clap::Error) -> clap::Error {
    let mut hidden = vec![ContextKind::InvalidValue, ContextKind::InvalidSubcommand];
    if error.kind() == ErrorKind::UnknownArgument {
        hidden.push(ContextKind::InvalidArg);
    }
    for kind in hidden {
        if error.get(kind).is_some() {
            error.insert(kind, ContextValue::String("…".to_owned()));
        }
    }
    error
}

async fn run(args: Args) -> Result<(), Cause> {
    if args.redis.starts_with("memory:") {
        return Err("memory:// is a queue of one process, and the client is another's".into());
    }
    let config = Config::builder().prefix(args.prefix).build()?;
    let session_of = |id: &str| session_of(id, args.header, args.principal.clone());
    match args.command {
        Command::Push { session, method, params, receipt_wait } => {
            // All that can be wrong without Redis is said without Redis.
            let session = session_of(&session)?;
            let mut notification = Notification::new(method)?.with_params_json(&params)?;
            if receipt_wait.is_some() {
                notification = notification.with_receipt();
            }
            let publisher = Publisher::connect(&args.redis, config).await?;
            let pushed = publisher.push(&session, notification).await?;
            say(&format!("queued {}, {} waiting{}", pushed.id, pushed.waiting, standing(pushed.session)));
            if let Some(seconds) = receipt_wait {
                let told = publisher.until_settled(&session, pushed.id, Duration::from_secs(seconds)).await?;
                say(&what_became(&told));
            }
        }
        Command::PushMany { session, count } => {
            let session = session_of(&session)?;
            let publisher = Publisher::connect(&args.redis, config).await?;
            push_many(&publisher, &session, count).await?;
        }
        Command::Elicit { session, task, message, schema, timeout, scope } => {
            let session = session_of(&session)?;
            let task = match scope {
                None => TaskKey::anonymous(task)?,
                Some(scope) => TaskKey::of_scope(scope, task)?,
            };
            let schema: Value =
                serde_json::from_str(&schema).map_err(|error| format!("the schema is no JSON: {error}"))?;
            let question = Elicitation::form(message, schema)?;
            let publisher = Publisher::connect(&args.redis, config).await?;
            let answer = publisher.elicitor().elicit(&session, &task, question, Duration::from_secs(timeout)).await?;
            say(&outcome(&answer).to_string());
            if publisher.pushed_to_unknown() > 0 {
                // Standard output has the outcome alone, for a script to read.
                eprintln!("asked{}", standing(SessionStatus::Unknown));
            }
        }
        Command::DeadLetters(what) => {
            let (DeadLetters::List { session } | DeadLetters::Redrive { session } | DeadLetters::Purge { session }) =
                &what;
            let session = session_of(session)?;
            dead_letters(&Publisher::connect(&args.redis, config).await?.dead_letters(), &session, what).await?;
        }
    }
    Ok(())
}

/// Reads a session id, and binds one that names no user to the user of `--principal`.
fn session_of(id: &str, is_header: bool, principal: Option<Principal>) -> Result<SessionId, Cause> {
    let session = if is_header { SessionId::new(id)? } else { id.parse()? };
    match (session.principal(), principal) {
        (None, Some(principal)) => Ok(session.bound_to(principal)),
        (Some(own), Some(principal)) if *own != principal => {
            Err("--principal names another user than the session id".into())
        }
        _ => Ok(session),
    }
}

async fn dead_letters(dead: &mcp_courier::DeadLetters, session: &SessionId, what: DeadLetters) -> Result<(), Cause> {
    match what {
        DeadLetters::List { .. } => {
            for page in 0.. {
                let letters = dead.list(session, page * PAGE, PAGE).await?;
                for letter in &letters {
                    let line = json!({
                        "at": shown(letter.at),
                        "id": letter.id.map(|id| id.to_string()),
                        "method": letter.method,
                        "reason": letter.reason.to_string(),
                        "attempts": letter.attempts,
                        "message": String::from_utf8_lossy(&letter.raw),
                    });
                    say(&line.to_string());
                }
                if letters.len() < PAGE {
                    break;
                }
            }
        }
        DeadLetters::Redrive { .. } => {
            let done = dead.redrive(session).await?;
            let Redriven { redriven, undecodable, obsolete, full, .. } = done;
            say(&format!("redriven {redriven}; stayed: {undecodable} undecodable, {obsolete} obsolete questions"));
            if let Some(limit) = full {
                return Err(format!("the queue is full: it may hold {limit}").into());
            }
        }
        DeadLetters::Purge { .. } => say(&format!("purged {}", dead.purge(session).await?)),
    }
    Ok(())
}

/// Says in words what a status means for whoever pushed, to follow another text.
fn standing(session: SessionStatus) -> &'static str {
    match session {
        SessionStatus::Known => "; the client has no stream now, and may come back for it",
        SessionStatus::Unknown => "; no server knows this session: check the id",
        _ => "",
    }
}

/// Returns a time as RFC 3339 text.
fn shown(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

fn what_became(told: &Receipt) -> String {
    match told {
        Receipt::Queued { expires_at } => format!("still queued, until {}", shown(*expires_at)),
        Receipt::Delivered { at } => format!("delivered at {}", shown(*at)),
        Receipt::Discarded { reason, at } => format!("discarded at {}: {reason}", shown(*at)),
        Receipt::Expired => "expired, with no server there".to_owned(),
        other => format!("{other:?}"),
    }
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
    let pushed: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    let standing = pushed.last().map_or("", |last| standing(last.session));
    say(&format!("queued {} of {count} in {took:.3?}{standing}", pushed.len()));
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
