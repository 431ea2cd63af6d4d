//! `peek` and `purge`: messages of one queue.

use mcp_courier::PeekedMessage;
use serde_json::json;

use super::Outcome;
use crate::arguments::{Peek, Purge};
use crate::settings::Settings;
use crate::{Failure, output};

/// Longest text of a payload in the output, in characters.
const SHOWN: usize = 100;

pub(super) async fn run(arguments: Peek, settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let Peek { session, limit } = arguments;
    let peeked = settings.connect().await?.inspector().peek(&session, limit).await?;
    if is_json {
        output::json(&peeked);
    } else if peeked.messages.is_empty() {
        output::note("the queue is empty");
    } else {
        let rows: Vec<_> = peeked.messages.iter().map(row).collect();
        output::line(output::table(["ID", "AGE", "EXPIRES IN", "ATTEMPTS", "METHOD", "PARAMS"], &rows));
        if peeked.has_more {
            output::note("more messages are queued behind these (--limit)");
        }
    }
    Ok(Outcome::Yes)
}

fn row(peeked: &PeekedMessage) -> [String; 6] {
    let message = &peeked.message;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let method = match (&message.method, &message.undecodable) {
        (Some(method), _) => output::plain(method, SHOWN),
        (None, fault) => format!("undecodable: {}", output::plain(fault.as_deref().unwrap_or_default(), SHOWN)),
    };
    [
        or_dash(message.id.map(|id| id.to_string())),
        or_dash(message.age.map(output::duration)),
        if message.is_expired() { "expired".to_owned() } else { or_dash(message.expires_in.map(output::duration)) },
        message.attempts.to_string(),
        method,
        output::plain(&peeked.payload, SHOWN),
    ]
}

/// Removes all messages of a queue.
pub(super) async fn purge(arguments: Purge, settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let Purge { session } = arguments;
    let removed = settings.connect().await?.inspector().purge(&session).await?;
    if is_json {
        output::json(&json!({"session": session, "removed": removed}));
    } else {
        output::line(format!("{removed} removed"));
    }
    Ok(Outcome::Yes)
}
