//! Reader of a message of the queue. It reads all fields, also those that this crate does not know.
//!
//! An unknown field that was skipped could not be written back with a failed attempt. The attempts of its message would
//! then never be counted, and never end.

use std::borrow::Cow;
use std::time::Duration;

use super::{Timestamp, Undecodable};
use crate::json::{self, Fields, NoObject};
use crate::notification::{TASK_STATUS, time_to_live_is_possible};
use crate::trace_context::TraceContext;

/// Parts of a message, before they are checked.
pub(super) struct Wire<'a> {
    pub(super) method: Cow<'a, str>,
    pub(super) params: Fields<'a>,
    pub(super) meta: Fields<'a>,
    pub(super) attempt: u32,
    pub(super) enqueued_at: Option<Cow<'a, str>>,
    pub(super) expires_at: Option<Cow<'a, str>>,
    /// Time of the push by the queue's clock, and the time to live from then on. `None` where the message has not both.
    pub(super) stamp: Option<(Timestamp, Duration)>,
    /// Trace context of the message. A bad one is dropped: it must not cost the notification.
    pub(super) trace_context: Option<TraceContext>,
    pub(super) last_error: Option<Cow<'a, str>>,
    pub(super) receipt: bool,
    pub(super) id: Option<Cow<'a, str>>,
    /// Text of the notification. The id is derived from this text where the message carries none.
    pub(super) content: &'a str,
}

impl<'a> Wire<'a> {
    /// Checks the kinds of all fields of a message.
    pub(super) fn of(fields: &Fields<'a>) -> Result<Self, Undecodable> {
        let content = fields.get("notification").unwrap_or("null");
        let notification = match Fields::of(content) {
            Ok(notification) => notification,
            Err(_) => return Err(wrong("notification", content, "an object")),
        };
        Ok(Self {
            // FastMCP's subscriber takes a missing method for this one.
            method: text(&notification, "method")?.unwrap_or(Cow::Borrowed(TASK_STATUS)),
            params: object(&notification, "params")?,
            meta: object(&notification, "_meta")?,
            attempt: attempt(fields.get("attempt"))?,
            enqueued_at: text(fields, "enqueued_at")?,
            expires_at: text(fields, "expires_at")?,
            stamp: stamp(fields),
            trace_context: trace_context(fields),
            last_error: text(fields, "last_error")?,
            // The field is this crate's. Any other value asks for no receipt.
            receipt: fields.get("receipt") == Some("true"),
            id: text(fields, "id")?,
            content,
        })
    }
}

/// Reads the trace context of a message, or of a `_meta`.
pub(super) fn trace_context(fields: &Fields<'_>) -> Option<TraceContext> {
    TraceContext::read(|name| fields.get(name).and_then(json::string))
}

/// Number of levels to which a message may be nested. Other readers of the queue stop at the same number.
const MAX_DEPTH: usize = 127;

/// Returns the fields of a message. Checks the nesting and the strings, at which other readers would fail.
pub(super) fn fields_of(text: &str) -> Result<Fields<'_>, Undecodable> {
    let refused = |why: String| Err(Undecodable::Json(why));
    match Fields::of(text) {
        Err(NoObject::Syntax(error)) => refused(error.to_string()),
        Err(NoObject::Kind(kind)) => refused(format!("it is {kind}, and must be an object")),
        Ok(fields) => match json::survey(text) {
            found if found.depth > MAX_DEPTH => refused(format!("it is nested deeper than {MAX_DEPTH} levels")),
            found if found.has_half_a_pair => refused(json::HALF_A_PAIR.to_owned()),
            _ => Ok(fields),
        },
    }
}

fn attempt(value: Option<&str>) -> Result<u32, Undecodable> {
    match value {
        None | Some("null") => Ok(0),
        Some(value) => value.parse().map_err(|_| match json::kind_of(value) {
            "a number" => {
                let shown: String = value.chars().take(32).collect();
                Undecodable::Json(format!("attempt is {shown}, and must be {ATTEMPTS}"))
            }
            _ => wrong("attempt", value, ATTEMPTS),
        }),
    }
}

const ATTEMPTS: &str = "a whole number from 0 to 4294967295";

/// Reads the queue's time and the time to live, both integers in µs. Both must be present: another program may use
/// these names for other fields.
fn stamp(fields: &Fields<'_>) -> Option<(Timestamp, Duration)> {
    let at = fields.get("at")?.parse().ok().filter(|at| *at >= 0)?;
    let time_to_live = Duration::from_micros(fields.get("ttl")?.parse().ok()?);
    time_to_live_is_possible(time_to_live).then_some((Timestamp(at), time_to_live))
}

fn text<'a>(fields: &Fields<'a>, name: &str) -> Result<Option<Cow<'a, str>>, Undecodable> {
    match fields.get(name) {
        None | Some("null") => Ok(None),
        Some(value) => json::string(value).map(Some).ok_or_else(|| wrong(name, value, "a string")),
    }
}

fn object<'a>(fields: &Fields<'a>, name: &str) -> Result<Fields<'a>, Undecodable> {
    match fields.get(name) {
        None | Some("null") => Ok(Fields::default()),
        Some(value) => Fields::of(value).map_err(|_| wrong(name, value, "an object")),
    }
}

fn wrong(name: &str, found: &str, allowed: &str) -> Undecodable {
    Undecodable::Json(format!("{name} is {}, and must be {allowed}", json::kind_of(found)))
}
