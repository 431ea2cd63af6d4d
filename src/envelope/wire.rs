//! Reading a message of the queue: all of it, also what we do not know. What is passed over unread could not be written
//! again after a failure, and its attempts would never end.

use serde_json::{Map, Value};

use super::Undecodable;
use crate::notification::kind;

/// The parts of a message, none of them judged.
pub(super) struct Wire {
    pub(super) method: String,
    pub(super) params: Map<String, Value>,
    pub(super) meta: Map<String, Value>,
    pub(super) attempt: u32,
    pub(super) enqueued_at: Option<String>,
    pub(super) expires_at: Option<String>,
    pub(super) traceparent: Option<String>,
    pub(super) last_error: Option<String>,
    pub(super) id: Option<String>,
    /// The whole notification as text, where there is no id: one is derived from it.
    pub(super) content: String,
}

impl Wire {
    pub(super) fn read(raw: &[u8]) -> Result<Self, Undecodable> {
        let mut fields = fields_of(raw)?;
        let id = text(&mut fields, "id")?;
        let notification = fields.swap_remove("notification").unwrap_or_default();
        let content = if id.as_deref().is_some_and(super::is_uuid) { String::new() } else { notification.to_string() };
        let Value::Object(mut notification) = notification else {
            return Err(wrong("notification", &notification, "an object"));
        };
        Ok(Self {
            // FastMCP's subscriber reads a missing method as this one.
            method: text(&mut notification, "method")?.unwrap_or_else(|| "notifications/tasks/status".to_owned()),
            params: object(&mut notification, "params")?,
            meta: object(&mut notification, "_meta")?,
            attempt: attempt(fields.get("attempt"))?,
            enqueued_at: text(&mut fields, "enqueued_at")?,
            expires_at: text(&mut fields, "expires_at")?,
            traceparent: text(&mut fields, "traceparent")?,
            last_error: text(&mut fields, "last_error")?,
            id,
            content,
        })
    }
}

pub(super) fn fields_of(raw: &[u8]) -> Result<Map<String, Value>, Undecodable> {
    match serde_json::from_slice(raw) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(Undecodable::Json(format!("it is {}, and must be an object", kind(&other)))),
        Err(error) => Err(Undecodable::Json(error.to_string())),
    }
}

fn attempt(value: Option<&Value>) -> Result<u32, Undecodable> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(0) };
    let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
    number.ok_or_else(|| match value {
        // A number's text is short.
        Value::Number(n) => Undecodable::Json(format!("attempt is {n}, and must be {ATTEMPTS}")),
        other => wrong("attempt", other, ATTEMPTS),
    })
}

const ATTEMPTS: &str = "a whole number from 0 to 4294967295";

fn text(fields: &mut Map<String, Value>, key: &str) -> Result<Option<String>, Undecodable> {
    match fields.swap_remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong(key, &other, "a string")),
    }
}

fn object(fields: &mut Map<String, Value>, key: &str) -> Result<Map<String, Value>, Undecodable> {
    match fields.swap_remove(key) {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(other) => Err(wrong(key, &other, "an object")),
    }
}

fn wrong(key: &str, found: &Value, allowed: &str) -> Undecodable {
    Undecodable::Json(format!("{key} is {}, and must be {allowed}", kind(found)))
}
