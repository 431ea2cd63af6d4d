//! [`Drafted`]: the parts of a message in the exact form that [`Draft`](super::Draft) writes.
//!
//! Most messages have this form. Their frame is compared from both ends, byte by byte, and what is between is taken for the
//! params. Nothing has checked by then that these are an object: [`Drafted::params_with`] does, for the text that the client
//! gets. A message of any other form is left to [`Wire`](super::wire::Wire), which reads this form too, and the same in it.

use std::time::Duration;

use serde_json::value::RawValue;
use uuid::Uuid;

use super::Timestamp;
use crate::json::{self, MAX_DEPTH};
use crate::notification::time_to_live_is_possible;

/// Parts of a message that is as its draft was queued.
#[derive(Debug)]
pub(super) struct Drafted<'a> {
    pub(super) method: &'a str,
    /// The params up to the brace that closes them.
    params: &'a str,
    pub(super) queued_at: Timestamp,
    pub(super) time_to_live: Duration,
    pub(super) traceparent: Option<&'a str>,
    pub(super) receipt: bool,
    pub(super) id: Uuid,
}

impl<'a> Drafted<'a> {
    /// Returns `None` where the message has another form, or more in it than a text of no interest here.
    pub(super) fn read(raw: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(raw).ok()?;
        let (time_to_live, text) = integer(text.strip_prefix("{\"ttl\":")?)?;
        let text = time(text.strip_prefix(",\"enqueued_at\":\"")?)?;
        let text = time(text.strip_prefix("\",\"expires_at\":\"")?)?;
        let text = text.strip_prefix("\",\"notification\":{\"method\":\"")?;

        let before = text.strip_suffix('}')?.trim_end_matches(|c: char| c.is_ascii_digit());
        let (text, at) = text.split_at(before.len());
        let (at, "}") = integer(at)? else { return None };
        let text = text.strip_suffix("\",\"at\":")?;
        let (text, id) = text.split_at_checked(text.len().checked_sub(36)?)?;
        let id = Uuid::try_parse(id).ok()?;
        let mut text = text.strip_suffix(",\"id\":\"")?;
        let receipt = strip(&mut text, ",\"receipt\":true");
        let traceparent = if strip(&mut text, "\"") {
            let (before, traceparent) = text.rsplit_once('"')?;
            text = before.strip_suffix(",\"traceparent\":")?;
            Some(Some(traceparent).filter(|traceparent| json::is_plain(traceparent))?)
        } else {
            None
        };
        let text = text.strip_suffix("},\"attempt\":0")?;

        let (method, params) = text.split_once('"')?;
        let params = if params.is_empty() { "{" } else { params.strip_prefix(",\"params\":")?.strip_suffix('}')? };
        let is_read_here = json::is_plain(method) && params.starts_with('{') && goes_as_it_is(params);
        let time_to_live = Duration::from_micros(time_to_live);
        (is_read_here && time_to_live_is_possible(time_to_live)).then_some(Self {
            method,
            params,
            queued_at: Timestamp(i64::try_from(at).ok()?),
            time_to_live,
            traceparent,
            receipt,
            id,
        })
    }

    /// Returns the params with `_meta` in them, whose fields are these. `None` where the params are no object.
    pub(super) fn params_with(&self, meta: &[(&str, &str)]) -> Option<Box<RawValue>> {
        let length: usize = meta.iter().map(|(name, value)| name.len() + value.len() + "\"\":\"\",".len()).sum();
        let separator = if self.params.len() > "{".len() { "," } else { "" };
        // Exact: a text that does not fill its memory is copied once more.
        let mut text = String::with_capacity(self.params.len() + separator.len() + "\"_meta\":{}}".len() + length - 1);
        text.push_str(self.params);
        text.push_str(separator);
        text.push_str("\"_meta\":");
        let mut before = '{';
        for (name, value) in meta {
            text.push(before);
            before = ',';
            text.push('"');
            text.push_str(name);
            text.push_str("\":\"");
            text.push_str(value);
            text.push('"');
        }
        text.push_str("}}");
        // The whole is an object only where the params are: at the end of theirs `_meta` must be their next field.
        RawValue::from_string(text).ok()
    }
}

/// Removes what a text ends with, if it does, and returns whether it did.
fn strip(text: &mut &str, end: &str) -> bool {
    let stripped = text.strip_suffix(end);
    *text = stripped.unwrap_or(text);
    stripped.is_some()
}

/// Splits an integer, as JSON writes it, off the beginning of a text.
fn integer(text: &str) -> Option<(u64, &str)> {
    let (integer, behind) = text.split_at_checked(text.bytes().position(|b| !b.is_ascii_digit())?)?;
    let has_leading_zero = integer.len() > 1 && integer.starts_with('0');
    if has_leading_zero { None } else { Some((integer.parse().ok()?, behind)) }
}

/// Splits a time off the beginning of a text. Beside the queue's own time it says nothing, so it may be any string of that length.
fn time(text: &str) -> Option<&str> {
    let (time, behind) = text.split_at_checked(Timestamp::LENGTH)?;
    json::is_plain(time).then_some(behind)
}

/// Tells whether params may go to the client as they are but for `_meta`: they have none, are on one line, and neither nest
/// deeply nor have an escape that may be half of a surrogate pair.
fn goes_as_it_is(params: &str) -> bool {
    // Without an early end and with counts that fit a byte, so that these loops take many bytes at a time.
    let bytes = params.as_bytes();
    let is_opening = |b: &u8| u8::from(*b | (b'[' ^ b'{') == b'{');
    let openings: usize = bytes.chunks(128).map(|some| usize::from(some.iter().map(is_opening).sum::<u8>())).sum();
    let has_control = bytes.iter().fold(false, |found, b| found | (*b < b' '));
    !has_control && openings <= MAX_DEPTH && !params.contains("\\u") && !params.contains("_meta")
}
