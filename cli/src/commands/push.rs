//! `push`: notifications from the command line.

use std::io::BufRead;

use mcp_courier::{Notification, PushError, Pushed, SessionStatus};
use serde_json::{Value, json};

use super::receipt::{shown, to_json};
use super::{BadArgument, Outcome};
use crate::arguments::{Push, Target};
use crate::settings::Settings;
use crate::{Failure, output};

/// Number of notifications that are pushed together.
const TOGETHER: usize = 100;

pub(super) async fn run(arguments: Push, settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let Push { to, method, params, ttl, wait } = arguments;
    let make = |params: Option<&str>| -> Result<Notification, Failure> {
        let mut made = Notification::new(&method).map_err(|error| BadArgument::of("METHOD", error))?;
        if let Some(params) = params {
            made = made.with_params_json(params).map_err(|error| BadArgument::of("PARAMS", error))?;
        }
        if let Some(ttl) = ttl {
            made = made.with_time_to_live(ttl).map_err(|error| BadArgument::of("--ttl", error))?;
        }
        Ok(if wait.is_some() { made.with_receipt() } else { made })
    };
    let notifications: Vec<Notification> = match &params[..] {
        [] => vec![make(None)?],
        [only] if only == "-" => {
            std::io::stdin().lock().lines().map(|line| make(Some(&line?))).collect::<Result<_, _>>()?
        }
        params => params.iter().map(|params| make(Some(params))).collect::<Result<_, _>>()?,
    };

    let publisher = settings.connect().await?;
    let bar = output::progress(Some(notifications.len() as u64), "pushing");
    let mut results: Vec<Result<Pushed, PushError>> = Vec::new();
    match &to {
        Target::One(session) => {
            for some in notifications.chunks(TOGETHER) {
                let each = some.iter().map(|notification| (session.clone(), notification.clone()));
                results.extend(publisher.push_many(each).await);
                bar.inc(some.len() as u64);
                // Order comes first: behind a refused notification none is pushed.
                if results.last().is_some_and(Result::is_err) {
                    break;
                }
            }
        }
        Target::All => {
            for notification in &notifications {
                results.extend(publisher.broadcast(notification).await?);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();

    let (mut rows, mut is_done) = (Vec::new(), true);
    for result in results {
        let row = match result {
            Ok(pushed) => {
                let receipt = match (wait, &to) {
                    (Some(time), Target::One(session)) => {
                        Some(publisher.until_settled(session, pushed.id, time).await?)
                    }
                    _ => None,
                };
                is_done &= receipt.as_ref().is_none_or(|r| matches!(r, mcp_courier::Receipt::Delivered { .. }));
                if !is_json {
                    output::line(format!(
                        "{}  queued, {} waiting{}",
                        pushed.id,
                        pushed.waiting,
                        remark(pushed.session)
                    ));
                    if let Some(receipt) = &receipt {
                        output::line(shown(receipt));
                    }
                }
                json!({
                    "id": pushed.id.to_string(),
                    "waiting": pushed.waiting,
                    "session": status(pushed.session),
                    "receipt": receipt.as_ref().map_or(Value::Null, to_json),
                })
            }
            Err(error) => {
                is_done = false;
                let uncertain = error.reason.may_have_been_queued();
                if !is_json {
                    output::note(format!("error: {error}"));
                }
                json!({"error": error.to_string(), "may_have_been_queued": uncertain})
            }
        };
        rows.push(row);
    }
    if is_json {
        output::json(&rows);
    } else if rows.is_empty() {
        output::note("no server owns a session now: nothing was pushed");
    }
    Ok(is_done.into())
}

fn status(status: SessionStatus) -> &'static str {
    match status {
        SessionStatus::Owned => "owned",
        SessionStatus::Known => "known",
        SessionStatus::Unknown => "unknown",
        _ => "not_read",
    }
}

/// Returns a remark about the session, where the notification has to wait.
fn remark(status: SessionStatus) -> &'static str {
    match status {
        SessionStatus::Known => "; the client has no stream now, and may come back for it",
        SessionStatus::Unknown => "; no server knows this session: check the id (mcp-courier why SESSION)",
        _ => "",
    }
}
