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
use crate::seal::{Sealed, id_is_possible};
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
        let time_to_live = pass_head(&mut cursor)?;
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
        cursor.expect("}")?;
        let Tail { trace_context, receipt, id, queued_at, .. } = pass_tail(text, &mut cursor)?;
        let parts = Parts { method, fields };
        time_to_live_is_possible(time_to_live).then_some(Self {
            parts,
            queued_at,
            time_to_live,
            trace_context,
            receipt,
            id,
        })
    }
}

/// Parts of a sealed message that has not changed since its push.
#[derive(Debug)]
pub(super) struct DraftedSealed<'a> {
    /// Text in front of the field `sealed`, with the comma before the field.
    pub(super) before: &'a str,
    pub(super) sealed: Sealed<'a>,
    /// Text behind the value of the field.
    pub(super) after: &'a str,
    /// Text of the notification's id.
    pub(super) id: &'a str,
}

impl<'a> DraftedSealed<'a> {
    /// Reads a message of this form. Returns `None` where the message has another form.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let mut cursor = Cursor::new(text);
        let place = |cursor: &Cursor<'_>| text.len() - cursor.left();
        pass_head(&mut cursor)?;
        cursor.expect(",")?;
        let before = &text[..place(&cursor)];
        cursor.expect("\"sealed\":{\"v\":1,\"k\":\"")?;
        let from = place(&cursor);
        let key = &text[from..from + cursor.plain_rest()?];
        cursor.expect(",\"n\":\"")?;
        let from = place(&cursor);
        let data = &text[from..from + cursor.plain_rest()?];
        cursor.expect("}")?;
        let after = &text[place(&cursor)..];
        let id = pass_tail(text, &mut cursor)?.id_text;
        id_is_possible(key).then_some(Self { before, sealed: Sealed { key, data }, after, id: &text[id] })
    }
}

/// Passes over the times in front of a message. Returns the time to live.
fn pass_head(cursor: &mut Cursor<'_>) -> Option<Duration> {
    cursor.expect("{\"ttl\":")?;
    let time_to_live = Duration::from_micros(cursor.integer()?);
    cursor.expect(",\"enqueued_at\":\"")?;
    pass_time(cursor)?;
    cursor.expect(",\"expires_at\":\"")?;
    pass_time(cursor)?;
    Some(time_to_live)
}

/// Fields behind the notification.
struct Tail {
    trace_context: Option<Box<TraceContext>>,
    receipt: bool,
    id: Uuid,
    id_text: Range<usize>,
    queued_at: Timestamp,
}

/// Reads the fields behind the notification of `text`, to the end of the message.
fn pass_tail(text: &str, cursor: &mut Cursor<'_>) -> Option<Tail> {
    cursor.expect(",\"attempt\":0")?;
    let trace_context = trace_context(cursor, text)?;
    let receipt = cursor.eat(",\"receipt\":true");
    cursor.expect(",\"id\":\"")?;
    let from = text.len() - cursor.left();
    let id = Uuid::try_parse_ascii(cursor.take(36)?).ok()?;
    cursor.expect("\",\"at\":")?;
    let queued_at = Timestamp(i64::try_from(cursor.integer()?).ok()?);
    cursor.expect("}")?;
    (cursor.left() == 0).then_some(Tail { trace_context, receipt, id, id_text: from..from + 36, queued_at })
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
