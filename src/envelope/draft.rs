//! [`Draft`]: a notification on its way into the queue.

use std::fmt::Write;
use std::time::Duration;

use super::Timestamp;
use crate::json;
use crate::notification::{Notification, NotificationId};

/// A notification that is about to be queued: everything but its times.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The message behind the pusher's times, from the comma on, up to the queue's time.
    pub(crate) body: String,
    pub(crate) time_to_live: Duration,
    /// The id under which its producer asked for a receipt, if it did.
    pub(crate) receipt: Option<NotificationId>,
}

/// Number of digits of the queue's time, until the year 2286.
const DIGITS: usize = 16;

/// Length of the text of [`Times`] without the digits of the time to live.
const TIMES: usize = "{\"ttl\":,\"enqueued_at\":\"\",\"expires_at\":\"\"".len() + 2 * Timestamp::LENGTH;

/// Times of a message by the pusher's clock: for people, for FastMCP, and for servers of the version before. Nothing expires by
/// them.
///
/// Messages that are sent together mostly live equally long, and have these times in common.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    time_to_live: Duration,
    text: String,
}

impl Times {
    /// Renders the times of messages that are sent at `sent`, and live for `time_to_live` from then on.
    pub(crate) fn new(sent: Timestamp, time_to_live: Duration) -> Self {
        let (micros, expires_at) = (time_to_live.as_micros(), sent.plus(time_to_live));
        let text = format!("{{\"ttl\":{micros},\"enqueued_at\":\"{sent}\",\"expires_at\":\"{expires_at}\"");
        Self { time_to_live, text }
    }

    /// Returns the text of a message before its body.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether a draft has these times.
    pub(crate) fn are_of(&self, draft: &Draft) -> bool {
        self.time_to_live == draft.time_to_live
    }
}

impl Draft {
    /// Renders a notification under an id.
    pub fn new(notification: &Notification, id: NotificationId, default_time_to_live: Duration) -> Self {
        let Notification { id: _, method, params, meta, traceparent, time_to_live, receipt } = notification;
        let objects = [(",\"params\":", params), (",\"_meta\":", meta)]
            .map(|(name, object)| object.as_ref().map(|object| (name, object.to_text())));
        let length = objects.iter().flatten().map(|(name, text)| name.len() + text.len()).sum::<usize>();
        let mut body = String::with_capacity(method.len() + length + 160);
        body.push_str(",\"notification\":{\"method\":");
        json::push_string(&mut body, method);
        for (name, text) in objects.iter().flatten() {
            body.push_str(name);
            body.push_str(text);
        }
        body.push_str("},\"attempt\":0");
        if let Some(traceparent) = traceparent {
            body.push_str(",\"traceparent\":");
            json::push_string(&mut body, traceparent);
        }
        if *receipt {
            body.push_str(",\"receipt\":true");
        }
        Self::ending(body, id, time_to_live.unwrap_or(default_time_to_live), *receipt)
    }

    /// Ends a body with its id, and for the queue's time: by both an acknowledgement tells two messages apart. A push that is
    /// repeated queues the same id twice.
    pub(super) fn ending(mut body: String, id: NotificationId, time_to_live: Duration, receipt: bool) -> Self {
        // Writing to a string does not fail.
        let _ = write!(body, ",\"id\":\"{id}\",\"at\":");
        Self { body, time_to_live, receipt: receipt.then_some(id) }
    }

    /// Returns the size of the message in bytes, as it is queued at any time until the year 2286.
    pub fn size(&self) -> usize {
        let digits = self.time_to_live.as_micros().checked_ilog10().unwrap_or(0) as usize + 1;
        TIMES + digits + self.body.len() + DIGITS + "}".len()
    }

    /// Returns the message as it is queued at `now`, which is also the time of the pusher's clock.
    pub fn stamp(&self, now: Timestamp) -> Vec<u8> {
        format!("{}{}{}}}", Times::new(now, self.time_to_live).text, self.body, now.0).into_bytes()
    }
}
