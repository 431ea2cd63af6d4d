//! Worker that pushes notifications to a client and prints their receipts. It holds no session, and may run anywhere.
//! The worker needs a Redis at 127.0.0.1:6379, a server, and the session id of a client (the chat's tool `session_id`
//! returns the id):
//!
//! ```sh
//! cargo run --example chat -- --redis redis://127.0.0.1/
//! cargo run --example worker -- SESSION notifications/message '{"level": "info", "data": "hello"}'
//! ```
//!
//! The client gets the notification, and the worker prints:
//!
//! ```text
//! queued 01a2…, 1 waiting
//! delivered
//! ```
//!
//! Each further PARAMS is a further notification. `REDIS_URL` names another Redis, and `REDIS_PREFIX` another fleet in
//! it than `mcp-courier`.

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use mcp_courier::{Config, Notification, Publisher, Receipt, SessionId, SessionStatus};

/// Time to wait for a receipt.
const PATIENCE: Duration = Duration::from_secs(5);

async fn push(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let (session, method, params) = match arguments {
        [session, method, params @ ..] if !params.is_empty() => (session, method, params),
        _ => return Err("usage: worker SESSION METHOD PARAMS...".into()),
    };
    // The text of a session id is the one that the server's handler wrote with `to_string` or serde.
    let session: SessionId = session.parse()?;
    let mut notifications = Vec::new();
    for params in params {
        let notification = Notification::new(method)?.with_params_json(params)?;
        notifications.push((session.clone(), notification.with_receipt()));
    }

    let url = env::var("REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1/".to_owned());
    let prefix = env::var("REDIS_PREFIX").unwrap_or_else(|_| "mcp-courier".to_owned());
    let publisher = Publisher::connect(&url, Config::builder().prefix(prefix).build()?).await?;

    let mut queued = Vec::new();
    for pushed in publisher.push_many(notifications).await {
        let pushed = pushed?;
        println!("queued {}, {} waiting", pushed.id, pushed.waiting);
        queued.push(pushed);
    }
    match queued.last().map(|pushed| pushed.session) {
        Some(SessionStatus::Known) => println!("the client has no stream now, and may come back for it"),
        Some(SessionStatus::Unknown) => {
            println!("no server knows this session: check the id");
            return Ok(());
        }
        _ => {}
    }
    for pushed in queued {
        match publisher.until_settled(&session, pushed.id, PATIENCE).await? {
            Receipt::Delivered { .. } => println!("delivered"),
            Receipt::Discarded { reason, .. } => println!("discarded: {reason}"),
            Receipt::Queued { .. } => println!("still queued"),
            other => println!("{other:?}"),
        }
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let Err(error) = push(&arguments).await else { return ExitCode::SUCCESS };
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
