//! Readers of the scripts' answers.
//!
//! An answer of another form means that another program lies behind the address, or that a script and its reader
//! differ. It is an error of that operation and never a panic. Errors show the form of the answer only.

use redis::Value;
use uuid::Uuid;

use crate::failure::QueueErrorKind;
use crate::notification::NotificationId;

/// Answer of a script in a form that no script of ours has.
#[derive(Debug, thiserror::Error)]
#[error("an answer of an unexpected form: {0}")]
pub(super) struct BadReply(String);

impl From<BadReply> for QueueErrorKind {
    fn from(error: BadReply) -> Self {
        Self::Refused(error.to_string())
    }
}

fn bad(value: &Value) -> BadReply {
    // Names the form only: the content may be secret.
    BadReply(match value {
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Int(_) => "an integer".to_owned(),
        Value::Nil => "nil".to_owned(),
        _ => "another kind of value".to_owned(),
    })
}

pub(super) fn array<const N: usize>(value: Value) -> Result<[Value; N], BadReply> {
    match value {
        Value::Array(items) => items.try_into().map_err(|items| bad(&Value::Array(items))),
        other => Err(bad(&other)),
    }
}

pub(super) fn list(value: Value) -> Result<Vec<Value>, BadReply> {
    match value {
        Value::Array(items) => Ok(items),
        other => Err(bad(&other)),
    }
}

pub(super) fn number<T: TryFrom<i64>>(value: Value) -> Result<T, BadReply> {
    match value {
        Value::Int(n) => T::try_from(n).map_err(|_| BadReply(format!("the integer {n}"))),
        other => Err(bad(&other)),
    }
}

pub(super) fn bytes(value: Value) -> Result<Vec<u8>, BadReply> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        other => Err(bad(&other)),
    }
}

/// Reads the id of a notification; `None` for an empty text.
pub(super) fn id(value: Value) -> Result<Option<NotificationId>, BadReply> {
    let text = bytes(value)?;
    if text.is_empty() {
        return Ok(None);
    }
    let id = Uuid::try_parse_ascii(&text).map_err(|_| BadReply("a text that is no id".to_owned()))?;
    Ok(Some(NotificationId(id)))
}

/// Reads the answer to `TIME`: seconds, and microseconds within the second.
#[cfg(feature = "server")]
pub(super) fn time(value: Value) -> Result<crate::envelope::Timestamp, BadReply> {
    let [seconds, micros] = array::<2>(value)?.map(decimal);
    Ok(crate::envelope::Timestamp(seconds?.saturating_mul(1_000_000).saturating_add(micros?)))
}

/// Reads an integer that was answered as text.
pub(super) fn decimal(value: Value) -> Result<i64, BadReply> {
    let text = bytes(value)?;
    let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| BadReply("a text that is no integer".to_owned()))
}
