//! [`Drafted`]: the parts of a message in the exact form that [`Draft`](super::Draft) writes.
//!
//! Most messages have this form, and are read in one pass. Only a trace context is copied. [`Wire`](super::wire::Wire) reads all other
//! messages, and those that a [`Cursor`] cannot read. Where both can read a message, they read the same.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use uuid::Uuid;

use crate::json::{self, Cursor};
use crate::notification::{TASK_STATUS, check_method, time_to_live_is_possible};
use crate::timestamp::Timestamp;
use crate::trace_context::TraceContext;

/// Parts of a message that has not changed since its push. Each range is of the message's text.
#[derive(Debug)]
pub(super) struct Drafted {
    pub(super) parts: Parts,
    pub(super) queued_at: Timestamp,
    pub(super) time_to_live: Duration,
    pub(super) trace_context: Option<Box<TraceContext>>,
    pub(super) receipt: bool,
    pub(super) id: Uuid,
}

/// Parts that the client gets unchanged. Each range is of the message's text.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    /// Method. It contains no escape.
    pub(super) method: Range<usize>,
    /// Fields of the params without the braces around them. Empty where the notification has no params.
    pub(super) fields: Range<usize>,
}

impl Drafted {
    /// Reads a message of this form. Returns `None` where the message has another form.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut cursor = Cursor::new(text);
        let place = |cursor: &Cursor<'_>| text.len() - cursor.left();
        cursor.expect("{\"ttl\":")?;
        let time_to_live = Duration::from_micros(cursor.integer()?);
        cursor.expect(",\"enqueued_at\":\"")?;
        pass_time(&mut cursor)?;
        cursor.expect(",\"expires_at\":\"")?;
        pass_time(&mut cursor)?;
        cursor.expect(",\"notification\":{\"method\":\"")?;
        let method = place(&cursor);
        let method = method..method + cursor.plain_rest()?;
        // A task's status has fields that [`Wire`](super::wire::Wire) must read.
        if text[method.clone()] == *TASK_STATUS || check_method(&text[method.clone()]).is_err() {
            return None;
        }
        let mut fields = 0..0;
        if cursor.eat(",\"params\":") {
            let from = place(&cursor);
            if cursor.object()? {
                fields = from + 1..place(&cursor) - 1;
            }
        }
        cursor.expect("},\"attempt\":0")?;
        let trace_context = trace_context(&mut cursor, text)?;
        let receipt = cursor.eat(",\"receipt\":true");
        cursor.expect(",\"id\":\"")?;
        let id = Uuid::try_parse_ascii(cursor.take(36)?).ok()?;
        cursor.expect("\",\"at\":")?;
        let queued_at = Timestamp(i64::try_from(cursor.integer()?).ok()?);
        cursor.expect("}")?;
        let is_whole = cursor.left() == 0 && time_to_live_is_possible(time_to_live);
        let parts = Parts { method, fields };
        is_whole.then_some(Self { parts, queued_at, time_to_live, trace_context, receipt, id })
    }
}

/// Reads the trace context, if one comes next. The outer `None` stands for a part that has an escape.
fn trace_context(cursor: &mut Cursor<'_>, text: &str) -> Option<Option<Box<TraceContext>>> {
    let mut part = |name: &str| -> Option<Option<&str>> {
        if !cursor.eat(name) {
            return Some(None);
        }
        let from = text.len() - cursor.left();
        let length = cursor.plain_rest()?;
        Some(Some(&text[from..from + length]))
    };
    let Some(traceparent) = part(",\"traceparent\":\"")? else { return Some(None) };
    let (tracestate, baggage) = (part(",\"tracestate\":\"")?, part(",\"baggage\":\"")?);
    let context = TraceContext::read(|name| {
        let text = match name {
            "traceparent" => Some(traceparent),
            "tracestate" => tracestate,
            _ => baggage,
        };
        text.map(Cow::Borrowed)
    });
    Some(context.map(Box::new))
}

/// Passes over a time of the pusher's clock. The queue's time counts instead, so any string of that length passes.
fn pass_time(cursor: &mut Cursor<'_>) -> Option<()> {
    let time = cursor.take(Timestamp::LENGTH)?;
    json::are_plain(time).then_some(())?;
    cursor.expect("\"")
}
