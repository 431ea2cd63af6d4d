//! `receipt`: outcome of one notification.

use mcp_courier::{Publisher, Receipt};
use serde_json::{Value, json};

use super::Outcome;
use crate::arguments::Receipt as Arguments;
use crate::settings::Settings;
use crate::{Failure, output};

pub(super) async fn run(arguments: Arguments, settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    let Arguments { session, id, wait } = arguments;
    let publisher: Publisher = settings.connect().await?;
    let receipt = match wait {
        Some(time) => publisher.until_settled(&session, id, time).await?,
        None => publisher.receipt(&session, id).await?,
    };
    if is_json {
        output::json(&to_json(&receipt));
    } else {
        output::line(shown(&receipt));
    }
    Ok(matches!(receipt, Receipt::Delivered { .. }).into())
}

/// Returns a receipt as JSON.
pub(super) fn to_json(receipt: &Receipt) -> Value {
    match receipt {
        Receipt::Queued { expires_at } => json!({"state": "queued", "expires_at": output::time(*expires_at)}),
        Receipt::Delivered { at } => json!({"state": "delivered", "at": output::time(*at)}),
        Receipt::Discarded { reason, at } => {
            json!({"state": "discarded", "at": output::time(*at), "reason": reason.to_string()})
        }
        Receipt::Expired => json!({"state": "expired"}),
        _ => json!({"state": "unknown"}),
    }
}

/// Returns a receipt in words.
pub(super) fn shown(receipt: &Receipt) -> String {
    match receipt {
        Receipt::Queued { expires_at } => format!("queued, expires at {}", output::time(*expires_at)),
        Receipt::Delivered { at } => format!("delivered at {}", output::time(*at)),
        Receipt::Discarded { reason, at } => {
            format!("discarded at {}: {}", output::time(*at), output::plain(&reason.to_string(), 300))
        }
        Receipt::Expired => "expired in the queue, while no server owned its session".to_owned(),
        _ => "no receipt: none was asked for, it was deleted after its time, or session and id do not belong together"
            .to_owned(),
    }
}
