//! Arguments and answers of the scripts that queue notifications of one session: the push, and the redrive of a dead letter.

use redis::Value;

use super::reply::{self, BadReply};
use crate::backend::{QueueLimit, Redrove};
use crate::config::Config;
use crate::envelope::{Draft, Timestamp};

mod rounds;

/// Most bytes of the notifications of one script call, so that the call does not block Redis for long, and of all calls that
/// travel together. Less where the line to Redis is narrow.
pub(super) const CALL_BYTES: usize = 1024 * 1024;

/// Most notifications of one script call. Fewer where the line to Redis is narrow.
pub(super) const CALL_MESSAGES: usize = 100;

/// Answer of the script.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) queued: usize,
    pub(super) length: usize,
    pub(super) stopped: Option<QueueLimit>,
    pub(super) owned: bool,
    /// Time of the push by the server's clock.
    pub(super) now: Timestamp,
}

/// Returns the arguments of a push at `sent`, by the clock that people read.
pub(super) fn arguments<'a>(
    config: &Config,
    drafts: impl Iterator<Item = &'a Draft> + Clone,
    sent: Timestamp,
) -> Vec<String> {
    let mut arguments = vec![
        config.queue_max_messages().to_string(),
        config.queue_max_bytes().to_string(),
        config.message_max_bytes().to_string(),
        config.expiry_grace().as_millis().to_string(),
        config.receipt_life().as_millis().to_string(),
    ];
    let wanted = drafts.clone().zip(1..).filter(|(draft, _)| draft.receipt.is_some());
    arguments.extend(wanted.map(|(_, number): (_, usize)| number.to_string()));
    for draft in drafts {
        arguments.push(draft.before_time(sent));
        arguments.push(draft.tail.clone());
        arguments.push(draft.time_to_live.as_micros().to_string());
    }
    arguments
}

pub(super) fn answer(config: &Config, value: Value) -> Result<Answer, BadReply> {
    let [queued, length, stopped, owned, now] = reply::array(value)?;
    Ok(Answer {
        queued: reply::number(queued)?,
        length: reply::number(length)?,
        stopped: limit(config, stopped)?,
        owned: reply::number::<i64>(owned)? != 0,
        now: Timestamp(reply::number(now)?),
    })
}

/// Reads the answer to a redrive.
pub(super) fn redrove(config: &Config, value: Value) -> Result<Redrove, BadReply> {
    let [count, stopped] = reply::array(value)?;
    Ok(match (reply::number::<i64>(count)?, limit(config, stopped)?) {
        (1, _) => Redrove::Done,
        (0, stopped) => Redrove::Full(stopped.unwrap_or(QueueLimit::Messages(config.queue_max_messages()))),
        _ => Redrove::Changed,
    })
}

/// Reads the bound that stopped a push, if one did.
fn limit(config: &Config, stopped: Value) -> Result<Option<QueueLimit>, BadReply> {
    Ok(match reply::bytes(stopped)?.as_slice() {
        b"messages" => Some(QueueLimit::Messages(config.queue_max_messages())),
        b"bytes" => Some(QueueLimit::Bytes(config.queue_max_bytes())),
        _ => None,
    })
}
