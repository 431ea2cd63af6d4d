//! [`Draft`]: a notification on its way into the queue.

use std::time::Duration;

use super::Timestamp;
use crate::json;
use crate::notification::{Notification, NotificationId};

/// A notification that is about to be queued: everything but the times, which the queue stamps by its own clock.
#[derive(Debug, Clone)]
pub struct Draft {
    pub(crate) head: String,
    pub(crate) tail: String,
    pub(crate) time_to_live: Duration,
    /// The id under which its producer asked for a receipt, if it did.
    pub(crate) receipt: Option<NotificationId>,
}

impl Draft {
    /// What stands between the two times.
    pub(crate) const BETWEEN: &str = "\",\"expires_at\":\"";
    const TIMES: usize = 2 * "1970-01-01T00:00:00.000000+00:00".len();

    /// Renders a notification under an id.
    pub fn new(notification: &Notification, id: NotificationId, default_time_to_live: Duration) -> Self {
        let Notification { id: _, method, params, meta, traceparent, time_to_live, receipt } = notification;
        let mut head = String::from("{\"notification\":{\"method\":");
        json::push_string(&mut head, method);
        for (name, object) in [(",\"params\":", params), (",\"_meta\":", meta)] {
            if let Some(object) = object {
                head.push_str(name);
                head.push_str(&object.to_text());
            }
        }
        head.push_str("},\"attempt\":0,\"enqueued_at\":\"");
        let traceparent =
            traceparent.as_ref().map(|t| format!("\"traceparent\":{},", json::quoted(t))).unwrap_or_default();
        Self {
            head,
            tail: format!("\",{traceparent}{}\"id\":\"{id}\"}}", if *receipt { "\"receipt\":true," } else { "" }),
            time_to_live: time_to_live.unwrap_or(default_time_to_live),
            receipt: receipt.then_some(id),
        }
    }

    /// Its size on the wire, in bytes.
    pub fn size(&self) -> usize {
        self.head.len() + Self::BETWEEN.len() + self.tail.len() + Self::TIMES
    }

    /// The message as it is queued at `now`.
    pub fn stamp(&self, now: Timestamp) -> Vec<u8> {
        let expires_at = now.plus(self.time_to_live);
        format!("{}{now}{}{expires_at}{}", self.head, Self::BETWEEN, self.tail).into_bytes()
    }
}
