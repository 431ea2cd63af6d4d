//! `dead`: dead letters.

use mcp_courier::{DeadLetter, DeadLetters, Redriven, SessionId};
use serde_json::{Value, json};

use super::Outcome;
use crate::arguments::{Chosen, Dead};
use crate::settings::Settings;
use crate::{Failure, output};

/// Number of letters that are read at once. Each may be as large as the largest notification.
const PAGE: usize = 20;

/// Longest text of a payload in the output, in characters.
const SHOWN: usize = 100;

pub(super) async fn run(command: Dead, settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let dead = settings.connect().await?.dead_letters();
    match command {
        Dead::List { session, limit } => list(&dead, session, limit, is_json).await,
        Dead::Redrive { of, ids } => {
            let (mut rows, mut is_done) = (Vec::new(), true);
            for session in walk(&dead, of, "redriving").await? {
                let done = match &ids[..] {
                    [] => dead.redrive(&session).await?,
                    ids => dead.redrive_only(&session, ids).await?,
                };
                is_done &= done.full.is_none() && done.undecodable == 0;
                if !is_json {
                    output::line(format!("{session}: {}", redriven(&done)));
                }
                rows.push(json!({
                    "session": session, "redriven": done.redriven, "undecodable": done.undecodable,
                    "obsolete": done.obsolete, "full": done.full.map(|limit| limit.to_string()),
                }));
            }
            if is_json {
                output::json(&rows);
            }
            Ok(is_done.into())
        }
        Dead::Purge { of } => {
            let mut rows = Vec::new();
            for session in walk(&dead, of, "deleting").await? {
                let deleted = dead.purge(&session).await?;
                if !is_json {
                    output::line(format!("{session}: {deleted} deleted"));
                }
                rows.push(json!({"session": session, "deleted": deleted}));
            }
            if is_json {
                output::json(&rows);
            }
            Ok(Outcome::Yes)
        }
    }
}

/// Returns the session that was named, or else all that have dead letters.
async fn chosen(dead: &DeadLetters, session: Option<SessionId>) -> Result<Vec<SessionId>, Failure> {
    Ok(match session {
        Some(session) => vec![session],
        None => dead.sessions().await?,
    })
}

/// Returns the sessions, whose treatment a progress bar shows.
async fn walk(
    dead: &DeadLetters,
    of: Chosen,
    doing: &'static str,
) -> Result<impl Iterator<Item = SessionId> + use<>, Failure> {
    let sessions = chosen(dead, of.session).await?;
    let bar = output::progress(Some(sessions.len() as u64), doing);
    Ok(bar.wrap_iter(sessions.into_iter()))
}

async fn list(dead: &DeadLetters, session: Option<SessionId>, limit: usize, is_json: bool) -> Result<Outcome, Failure> {
    let sessions = chosen(dead, session).await?;
    let (mut values, mut rows) = (Vec::new(), Vec::new());
    for session in sessions {
        let mut read = 0;
        while read < limit {
            let letters = dead.list(&session, read, PAGE.min(limit - read)).await?;
            if letters.is_empty() {
                break;
            }
            read += letters.len();
            for letter in &letters {
                if is_json { values.push(to_json(&session, letter)) } else { rows.push(row(&session, letter)) }
            }
        }
    }
    if is_json {
        output::json(&values);
    } else if rows.is_empty() {
        output::note("no dead letters; servers keep them where dead_letters is above 0");
    } else {
        output::line(output::table(["SESSION", "DISCARDED", "ID", "METHOD", "REASON"], &rows));
    }
    Ok(Outcome::Yes)
}

fn to_json(session: &SessionId, letter: &DeadLetter) -> Value {
    json!({
        "session": session,
        "id": letter.id.map(|id| id.to_string()),
        "method": letter.method,
        "reason": letter.reason.to_string(),
        "at": output::time(letter.at),
        "attempts": letter.attempts,
        "last_error": letter.last_error,
        "raw": String::from_utf8_lossy(&letter.raw),
    })
}

fn row(session: &SessionId, letter: &DeadLetter) -> [String; 5] {
    [
        session.to_string(),
        output::time(letter.at),
        letter.id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
        output::plain(letter.method.as_deref().unwrap_or("undecodable"), SHOWN),
        output::plain(&letter.reason.to_string(), SHOWN),
    ]
}

fn redriven(done: &Redriven) -> String {
    let mut text = format!("{} redriven", done.redriven);
    if done.undecodable > 0 {
        text += &format!(", {} stay because they cannot be decoded", done.undecodable);
    }
    if done.obsolete > 0 {
        text += &format!(", {} stay because nobody waits for the answer to their question", done.obsolete);
    }
    if let Some(limit) = done.full {
        text += &format!("; the rest stays because the queue is full: it may hold {limit}");
    }
    text
}
