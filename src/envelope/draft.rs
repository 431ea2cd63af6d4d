//! [`Draft`]: a notification on its way into the queue.

use std::fmt::Write;
use std::time::Duration;

use super::Timestamp;
use crate::json;
use crate::notification::{KeyHash, Notification, NotificationId, Object, TASK_STATUS};
use crate::question::{ASKS, QuestionRoute};
use crate::seal::{Binding, Purpose, SealError, SealingKeys};
use crate::trace_context::TraceContext;

/// Notification that is about to be queued: the message without its times.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Part of the message between the pusher's times and the queue's time. Begins with a comma.
    pub(crate) body: String,
    /// Time to live of the notification, from the push on.
    pub(crate) time_to_live: Duration,
    /// Id under which the producer asked for a receipt; `None` without a receipt.
    pub(crate) receipt: Option<NotificationId>,
    /// Id of the notification.
    pub(crate) id: NotificationId,
    /// Hash of the notification's deduplication key. The message does not contain it.
    pub(crate) deduplication_key: Option<KeyHash>,
    /// Hash of the notification's collapse key. The message does not contain it.
    pub(crate) collapse_key: Option<KeyHash>,
}

/// Number of digits of the queue's time in microseconds, until the year 2286.
const DIGITS: usize = 16;

/// Length of the text of [`Times`] without the digits of the time to live.
const TIMES: usize = "{\"ttl\":,\"enqueued_at\":\"\",\"expires_at\":\"\"".len() + 2 * Timestamp::LENGTH;

/// Times of a message by the pusher's clock, for people, for FastMCP, and for servers of the previous version. No
/// message expires by these times.
///
/// Messages that are pushed together mostly have the same time to live, and share one value of this type.
#[derive(Debug, Clone)]
pub(crate) struct Times {
    time_to_live: Duration,
    /// Beginning of the message, up to its body.
    text: String,
}

impl Times {
    /// Renders the times of messages that are sent at `sent` and live for `time_to_live`.
    pub(crate) fn new(sent: Timestamp, time_to_live: Duration) -> Self {
        let (micros, expires_at) = (time_to_live.as_micros(), sent.plus(time_to_live));
        let text = format!("{{\"ttl\":{micros},\"enqueued_at\":\"{sent}\",\"expires_at\":\"{expires_at}\"");
        Self { time_to_live, text }
    }

    /// Returns the text of a message in front of its body.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Returns whether a draft has these times.
    pub(crate) fn are_of(&self, draft: &Draft) -> bool {
        self.time_to_live == draft.time_to_live
    }
}

/// Renders method, params and `_meta` as an object behind `before`.
fn content(before: &str, notification: &Notification) -> String {
    let Notification { method, params, meta, .. } = notification;
    let objects = [(",\"params\":", params), (",\"_meta\":", meta)]
        .map(|(name, object)| object.as_ref().map(|object| (name, object.to_text())));
    let length = objects.iter().flatten().map(|(name, text)| name.len() + text.len()).sum::<usize>();
    let mut text = String::with_capacity(method.len() + length + 160);
    text.push_str(before);
    text.push_str("{\"method\":");
    json::push_string(&mut text, method);
    for (name, object) in objects.iter().flatten() {
        text.push_str(name);
        text.push_str(object);
    }
    text.push('}');
    text
}

impl Draft {
    /// Renders a notification under an id. `default_time_to_live` applies where the notification has none.
    #[cfg(any(test, all(feature = "server", feature = "testing")))]
    pub fn new(notification: &Notification, id: NotificationId, default_time_to_live: Duration) -> Self {
        let draft = Self::caused_by(notification, id, default_time_to_live, None);
        Self { collapse_key: notification.collapse_key(true), ..draft }
    }

    /// Renders a notification under an id, without a collapse key. `default_time_to_live` applies where the notification
    /// has none, and so does the trace context `cause`.
    pub(crate) fn caused_by(
        notification: &Notification,
        id: NotificationId,
        default_time_to_live: Duration,
        cause: Option<&TraceContext>,
    ) -> Self {
        let body = content(",\"notification\":", notification);
        Self::around(body, notification, id, default_time_to_live, cause)
    }

    /// Seals a notification under the primary key, for the queue of this name, and renders it as
    /// [`caused_by`](Self::caused_by) does. Its id, times, trace context and wish
    /// for a receipt stay in clear, and so does the name of a question that it brings.
    ///
    /// # Errors
    /// [`SealError`] where the notification cannot be sealed.
    pub(crate) fn sealed(
        notification: &Notification,
        id: NotificationId,
        default_time_to_live: Duration,
        cause: Option<&TraceContext>,
        (keys, primary, queue): (&SealingKeys, &str, &str),
    ) -> Result<Self, SealError> {
        let binding = Binding { purpose: Purpose::Notification, owner: queue, id: &id.to_string() };
        let sealed = keys.seal(primary, &binding, &content("", notification))?;
        let mut body = String::with_capacity(sealed.len() + 160);
        body.push_str(",\"sealed\":");
        body.push_str(&sealed);
        let meta = notification.meta.as_ref().filter(|_| notification.method == TASK_STATUS).map(Object::to_text);
        if let Some(route) = meta.and_then(|meta| QuestionRoute::in_meta(&meta)) {
            let _ = write!(body, ",\"{ASKS}\":{}", route.to_json());
        }
        Ok(Self::around(body, notification, id, default_time_to_live, cause))
    }

    /// Adds to a body the fields behind the notification.
    fn around(
        mut body: String,
        notification: &Notification,
        id: NotificationId,
        default_time_to_live: Duration,
        cause: Option<&TraceContext>,
    ) -> Self {
        let Notification { trace_context, time_to_live, receipt, deduplication_key, .. } = notification;
        let trace_context = trace_context.as_deref().or(cause);
        body.push_str(",\"attempt\":0");
        for (name, text) in trace_context.iter().flat_map(|context| context.parts()) {
            body.push_str(",\"");
            body.push_str(name);
            body.push_str("\":");
            json::push_string(&mut body, text);
        }
        if *receipt {
            body.push_str(",\"receipt\":true");
        }
        let draft = Self::ending(body, id, time_to_live.unwrap_or(default_time_to_live), *receipt);
        Self { deduplication_key: *deduplication_key, ..draft }
    }

    /// Ends a body with its id and the name of the queue's time. An acknowledgement distinguishes two messages by both:
    /// a repeated push queues the same id twice.
    pub(super) fn ending(mut body: String, id: NotificationId, time_to_live: Duration, receipt: bool) -> Self {
        // Writing to a string does not fail.
        let _ = write!(body, ",\"id\":\"{id}\",\"at\":");
        Self { body, time_to_live, receipt: receipt.then_some(id), id, deduplication_key: None, collapse_key: None }
    }

    /// Returns whether the notification has a key by which the queue recognises others.
    pub(crate) fn is_keyed(&self) -> bool {
        self.deduplication_key.is_some() || self.collapse_key.is_some()
    }

    /// Returns the size of the queued message in bytes. The size is the same for each push until the year 2286.
    pub fn size(&self) -> usize {
        let digits = self.time_to_live.as_micros().checked_ilog10().unwrap_or(0) as usize + 1;
        TIMES + digits + self.body.len() + DIGITS + "}".len()
    }

    /// Returns the message as it is queued at `now`. `now` is also used as the time of the pusher's clock.
    #[cfg(any(test, feature = "server"))]
    pub fn stamp(&self, now: Timestamp) -> Vec<u8> {
        format!("{}{}{}}}", Times::new(now, self.time_to_live).text, self.body, now.0).into_bytes()
    }
}
