//! [`Drafted`]: the parts of a message in the exact form that [`Draft`](super::Draft) writes.
//!
//! Most messages have this form, and are read in one pass. A message of any other form, or with more in it than a [`Cursor`] reads, is
//! left to [`Wire`](super::wire::Wire), which reads this form too, and the same in it.

use std::ops::Range;
use std::time::Duration;

use uuid::Uuid;

use crate::json::{self, Cursor};
use crate::notification::{TASK_STATUS, check_method, time_to_live_is_possible};
use crate::timestamp::Timestamp;

/// Parts of a message that is as its draft was queued. Ranges are of its text.
#[derive(Debug)]
pub(super) struct Drafted {
    pub(super) parts: Parts,
    pub(super) queued_at: Timestamp,
    pub(super) time_to_live: Duration,
    pub(super) receipt: bool,
    pub(super) id: Uuid,
}

/// Parts that go to the client as they stand in the message.
#[derive(Debug, Clone)]
pub(super) struct Parts {
    /// Method, which needs no escape.
    pub(super) method: Range<usize>,
    /// Fields of the params, without the braces around them. Empty where there are none.
    pub(super) fields: Range<usize>,
    /// Trace context, which needs no escape.
    pub(super) traceparent: Option<Range<usize>>,
}

impl Drafted {
    /// Returns `None` where the message has another form.
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
        // A task's status is looked into.
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
        let mut traceparent = None;
        if cursor.eat(",\"traceparent\":\"") {
            let from = place(&cursor);
            traceparent = Some(from..from + cursor.plain_rest()?);
        }
        let receipt = cursor.eat(",\"receipt\":true");
        cursor.expect(",\"id\":\"")?;
        let id = Uuid::try_parse_ascii(cursor.take(36)?).ok()?;
        cursor.expect("\",\"at\":")?;
        let queued_at = Timestamp(i64::try_from(cursor.integer()?).ok()?);
        cursor.expect("}")?;
        let is_whole = cursor.left() == 0 && time_to_live_is_possible(time_to_live);
        let parts = Parts { method, fields, traceparent };
        is_whole.then_some(Self { parts, queued_at, time_to_live, receipt, id })
    }
}

/// Passes over a time. Beside the queue's own time it says nothing, so it may be any string of that length.
fn pass_time(cursor: &mut Cursor<'_>) -> Option<()> {
    let time = cursor.take(Timestamp::LENGTH)?;
    json::are_plain(time).then_some(())?;
    cursor.expect("\"")
}
