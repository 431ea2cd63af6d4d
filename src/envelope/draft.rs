//! [`Draft`]: a notification on its way into the queue.

use std::time::Duration;

use super::Timestamp;
use crate::json;
use crate::notification::{Notification, NotificationId};

/// A notification that is about to be queued: everything but its times.
#[derive(Debug, Clone)]
pub struct Draft {
    pub(crate) head: String,
    pub(crate) tail: String,
    pub(crate) time_to_live: Duration,
    /// The id under which its producer asked for a receipt, if it did.
    pub(crate) receipt: Option<NotificationId>,
}

impl Draft {
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
        head.push_str("},\"attempt\":0,");
        let traceparent =
            traceparent.as_ref().map(|t| format!("\"traceparent\":{},", json::quoted(t))).unwrap_or_default();
        Self {
            head,
            tail: format!(",{traceparent}{}\"id\":\"{id}\"}}", if *receipt { "\"receipt\":true," } else { "" }),
            time_to_live: time_to_live.unwrap_or(default_time_to_live),
            receipt: receipt.then_some(id),
        }
    }

    /// Returns the size of the message in bytes, as it is queued at any time until the year 2286.
    pub fn size(&self) -> usize {
        self.before_time(Timestamp(0)).len() + "1767225600000000".len() + self.tail.len()
    }

    /// Returns the message up to the integer that is the queue's time.
    ///
    /// The times in it are of the pusher's clock: for people, for FastMCP, and for servers of the version before. Nothing
    /// expires by them.
    pub(crate) fn before_time(&self, sent: Timestamp) -> String {
        let (expires_at, micros) = (sent.plus(self.time_to_live), self.time_to_live.as_micros());
        format!("{}\"enqueued_at\":\"{sent}\",\"expires_at\":\"{expires_at}\",\"ttl\":{micros},\"at\":", self.head)
    }

    /// Returns the message as it is queued at `now`, which is also the time of the pusher's clock.
    pub fn stamp(&self, now: Timestamp) -> Vec<u8> {
        format!("{}{}{}", self.before_time(now), now.0, self.tail).into_bytes()
    }
}
