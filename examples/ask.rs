//! Worker that asks a client's user one typed question, and prints the answer. The worker needs a Redis at
//! 127.0.0.1:6379, a server, and the session id of a client that can be asked. The chat's tool `session_id` returns it:
//!
//! ```sh
//! cargo run --example chat -- --redis redis://127.0.0.1/
//! cargo run --example ask -- SESSION task-7
//! ```
//!
//! The client shows a form with three fields. When its user has answered, the worker prints one of:
//!
//! ```text
//! {"action":"accept","content":{"approve":true,"amount":7,"account":"travel"}}
//! {"action":"decline"}
//! {"action":"cancel","reason":"no answer came within 300s"}
//! ```
//!
//! `REDIS_URL` names another Redis, and `REDIS_PREFIX` another fleet in it than `mcp-courier`. The scope of the task
//! follows the task where the server authenticates its users.

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use mcp_courier::{Config, Elicited, Publisher, SessionId, TaskKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Form that the client shows. Its schema is made of this type, and an answer that does not fit is a cancellation.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Approval {
    /// Do you approve?
    approve: bool,
    /// Amount in €
    #[schemars(range(min = 1, max = 100))]
    amount: Option<u8>,
    account: Option<Account>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Account {
    Travel,
    Office,
}

async fn ask(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let (session, task) = match arguments {
        [session, task] => (session.parse::<SessionId>()?, TaskKey::anonymous(task)?),
        [session, task, scope] => (session.parse()?, TaskKey::of_scope(scope, task)?),
        _ => return Err("usage: ask SESSION TASK [SCOPE]".into()),
    };
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1/".to_owned());
    let prefix = env::var("REDIS_PREFIX").unwrap_or_else(|_| "mcp-courier".to_owned());
    let publisher = Publisher::connect(&url, Config::builder().prefix(prefix).build()?).await?;

    let elicitor = publisher.elicitor(); // one for all questions of a process
    let patience = Duration::from_secs(300);
    let outcome = match elicitor.elicit_as::<Approval>(&session, &task, "Pay 7 € to ACME?", patience).await? {
        Elicited::Accepted(approval) => json!({"action": "accept", "content": approval}),
        Elicited::Declined => json!({"action": "decline"}),
        Elicited::Cancelled { reason } => json!({"action": "cancel", "reason": reason}),
        other => return Err(format!("an outcome of a new kind: {other:?}").into()),
    };
    println!("{outcome}");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Err(error) = ask(&arguments).await else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
