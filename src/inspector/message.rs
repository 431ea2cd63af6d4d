//! Messages of a queue, as operators see them.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::Config;
use crate::envelope::{Envelope, Timestamp, Undecodable};
use crate::keys::Keys;
use crate::notification::NotificationId;
use crate::session_id::SessionId;
use crate::timestamp::serial;

/// Message of a queue, without its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct QueuedMessage {
    /// Id of the notification; `None` where the message cannot be decoded.
    #[serde(serialize_with = "text")]
    pub id: Option<NotificationId>,
    /// Method of the notification; `None` where the message cannot be decoded.
    pub method: Option<String>,
    /// Time since the push, by the queue's clock. In seconds as JSON. `None` where the message names no time.
    #[serde(serialize_with = "serial::optional_seconds::serialize", rename = "age_seconds")]
    pub age: Option<Duration>,
    /// Time until the message expires, and zero where it has expired. In seconds as JSON. `None` where the message
    /// names no time.
    #[serde(serialize_with = "serial::optional_seconds::serialize", rename = "expires_in_seconds")]
    pub expires_in: Option<Duration>,
    /// Number of attempts that have failed.
    pub attempts: u32,
    /// Text of the last failed attempt, if there was one.
    pub last_error: Option<String>,
    /// Size of the message in the queue, in bytes.
    pub bytes: usize,
    /// Fault of a message that cannot be decoded; `None` for all others. The owner discards such a message. A sealed
    /// message that this process cannot open has its reason here, and its owner may have the key.
    pub undecodable: Option<String>,
}

impl QueuedMessage {
    /// Returns whether the message's time to live is over. The owner discards such a message, and does not deliver it.
    pub fn is_expired(&self) -> bool {
        self.expires_in.is_some_and(|rest| rest.is_zero())
    }
}

/// Message of a queue with its payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PeekedMessage {
    /// Facts about the message.
    #[serde(flatten)]
    pub message: QueuedMessage,
    /// Params of the notification as JSON text, or the whole message where it cannot be decoded. Bytes that are no text
    /// are replaced by `U+FFFD`.
    pub payload: String,
}

/// Result of [`Inspector::peek`](crate::Inspector::peek).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PeekedMessages {
    /// Messages, the oldest first.
    pub messages: Vec<PeekedMessage>,
    /// Set where more messages are queued behind these.
    pub has_more: bool,
}

pub(super) fn text<S: Serializer>(text: &Option<impl fmt::Display>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_ref().map(ToString::to_string).serialize(serializer)
}

/// Reads a message of a session's queue.
pub(crate) fn decode(config: &Config, session: &SessionId, raw: Vec<u8>) -> Result<Envelope, (Undecodable, Vec<u8>)> {
    let queue = Keys::new(config.prefix()).queue(session);
    Envelope::decode_or_give_back(&queue, raw, config.time_to_live(), config.sealing_keys())
}

impl PeekedMessage {
    /// Reads a message of a session's queue as it is at `now`.
    pub(super) fn read(config: &Config, session: &SessionId, raw: Vec<u8>, now: Timestamp) -> Self {
        let bytes = raw.len();
        match decode(config, session, raw) {
            Ok(envelope) => Self {
                message: QueuedMessage {
                    id: Some(envelope.id),
                    method: envelope.refused().is_none().then(|| envelope.method().to_owned()),
                    age: envelope.enqueued_at.map(|at| now.since(at)),
                    expires_in: envelope.expires_at.map(|at| at.since(now)),
                    attempts: envelope.attempt,
                    last_error: envelope.last_error.clone(),
                    bytes,
                    undecodable: envelope.refused().map(ToString::to_string),
                },
                payload: match envelope.refused() {
                    Some(_) => envelope.stored().to_owned(),
                    None => envelope.params().into_owned(),
                },
            },
            Err((fault, raw)) => Self {
                message: QueuedMessage {
                    id: None,
                    method: None,
                    age: None,
                    expires_in: None,
                    attempts: 0,
                    last_error: None,
                    bytes,
                    undecodable: Some(fault.to_string()),
                },
                payload: String::from_utf8_lossy(&raw).into_owned(),
            },
        }
    }
}
