//! [`Notification`]: an MCP notification that a worker pushes to a client.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::json::MAX_DEPTH;
use crate::question::RELATED_TASK;
use crate::trace_context::TraceContext;

mod invalid;
mod json;
mod kinds;
mod producer_key;
mod task;

pub use self::invalid::InvalidNotification;
pub(crate) use self::json::Object;
pub use self::kinds::{LoggingLevel, ProgressToken, RequestId};
pub(crate) use self::producer_key::{Collapse, KeyHash};
pub use self::task::{Task, TaskStatus};

/// Method of a notification about a task's status.
pub(crate) const TASK_STATUS: &str = "notifications/tasks/status";

/// Name of the field of `_meta` in which a client finds the id.
pub(crate) const ID_KEY: &str = "mcp-courier/id";

/// Id that one notification keeps for its whole life, from the push to the client's `_meta`.
///
/// Notifications of this crate have UUIDs of version 7. A notification that FastMCP pushed has no id and gets a UUID of
/// version 5. That UUID is derived from its queue, its time, its content, and its position among equal messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NotificationId(pub(crate) Uuid);

impl NotificationId {
    /// Returns the id as a UUID of 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Derives an id from the content of a message that carries none.
    pub(crate) fn derived(content: &[u8]) -> Self {
        Self(Uuid::new_v5(&Uuid::NAMESPACE_OID, content))
    }

    /// Returns the id of the `count`-th of the messages that derive this id, counted from 0.
    #[cfg(feature = "server")]
    pub(crate) fn of_equal(self, count: u32) -> Self {
        if count == 0 { self } else { Self(Uuid::new_v5(&self.0, &count.to_be_bytes())) }
    }

    /// Returns whether the id is derived from the message, and not given by a producer.
    #[cfg(feature = "server")]
    pub(crate) fn is_derived(&self) -> bool {
        self.0.get_version_num() == 5
    }
}

/// Reads the text that `Display` writes.
impl std::str::FromStr for NotificationId {
    type Err = InvalidNotificationId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = Uuid::try_parse(text).map(Self).map_err(|error| InvalidNotificationId { why: error.to_string() })?;
        // Another spelling of the same UUID would name another key in Redis, so it is refused.
        if read.to_string() == text {
            Ok(read)
        } else {
            Err(InvalidNotificationId { why: "it is not in the form".to_owned() })
        }
    }
}

/// Rejection of a text that is no [`NotificationId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a notification's id is a UUID of 36 characters in lower case, as `Pushed::id` shows it, and this text is none: {why}"
)]
#[non_exhaustive]
pub struct InvalidNotificationId {
    /// Reason.
    pub why: String,
}

impl std::fmt::Display for NotificationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// MCP notification: a method that begins with `notifications/`, `params` and `_meta`.
///
/// [`Notification::new`] takes any such method. The other constructors make the notifications of MCP 2025-11-25 with
/// their required fields. On delivery `_meta` becomes `params._meta`, as MCP demands, and gets the notification's id as
/// `mcp-courier/id`.
///
/// ```
/// use mcp_courier::Notification;
/// use serde_json::json;
///
/// let said = Notification::new("notifications/message")?
///     .with_params(json!({"level": "info", "logger": "chat", "data": {"text": "hello"}}))?;
/// assert!(Notification::new("tools/call").is_err());
/// # Ok::<(), mcp_courier::InvalidNotification>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    pub(crate) id: Option<NotificationId>,
    pub(crate) method: String,
    pub(crate) params: Option<Object>,
    pub(crate) meta: Option<Object>,
    /// Boxed, because most notifications have none.
    pub(crate) trace_context: Option<Box<TraceContext>>,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) receipt: bool,
    /// Key by which the queue recognises a repeated push, as its hash.
    pub(crate) deduplication_key: Option<KeyHash>,
    /// Choice of the waiting notifications that this one replaces.
    pub(crate) collapse: Collapse,
}

impl Notification {
    /// Creates a notification of any method, without params.
    ///
    /// # Errors
    /// [`InvalidNotification::Method`] where the method does not begin with `notifications/` or has no name after that.
    pub fn new(method: impl Into<String>) -> Result<Self, InvalidNotification> {
        let method = method.into();
        check_method(&method)?;
        Ok(Self::named(method))
    }

    fn named(method: impl Into<String>) -> Self {
        Self {
            id: None,
            method: method.into(),
            params: None,
            meta: None,
            trace_context: None,
            time_to_live: None,
            receipt: false,
            deduplication_key: None,
            collapse: Collapse::default(),
        }
    }

    /// Creates a notification with these params, and leaves out fields that are null.
    fn with_object(method: &'static str, params: Value) -> Self {
        let mut notification = Self::named(method);
        if let Value::Object(params) = params {
            notification.params = Some(Object::Fields(params.into_iter().filter(|(_, v)| !v.is_null()).collect()));
        }
        notification
    }

    /// Sets `params`. `null` means none.
    ///
    /// A [`Value`] holds whole numbers of 64 bits, and any other number as the nearest `f64`.
    /// [`with_params_json`](Self::with_params_json) keeps every number.
    ///
    /// # Errors
    /// [`InvalidNotification::Params`] for anything but an object or `null`.
    pub fn with_params(mut self, params: Value) -> Result<Self, InvalidNotification> {
        self.params = Object::of(params).map_err(|found| InvalidNotification::Params { found })?;
        Ok(self)
    }

    /// Sets `params` to the JSON of this text. `null` means none.
    ///
    /// The text is delivered unchanged, except for line breaks between its tokens: `100.00` stays `100.00`, with any
    /// number of digits.
    ///
    /// ```
    /// use mcp_courier::Notification;
    ///
    /// let paid = Notification::new("notifications/paid")?.with_params_json(r#"{"wei": 1500000000000000000001}"#)?;
    /// assert_eq!(paid.params().unwrap(), r#"{"wei": 1500000000000000000001}"#);
    /// # Ok::<(), mcp_courier::InvalidNotification>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidNotification::Json`] where the text is no JSON, or contains half of a surrogate pair.
    /// [`InvalidNotification::Params`] for anything but an object or `null`.
    pub fn with_params_json(mut self, params: &str) -> Result<Self, InvalidNotification> {
        self.params = Object::of_text("params", params, |found| InvalidNotification::Params { found })?;
        Ok(self)
    }

    /// Sets `_meta`. On delivery these fields are merged into `params._meta`, and replace fields of the same name
    /// there. `null` means none.
    ///
    /// # Errors
    /// [`InvalidNotification::Meta`] for anything but an object or `null`.
    pub fn with_meta(mut self, meta: Value) -> Result<Self, InvalidNotification> {
        self.meta = Object::of(meta).map_err(|found| InvalidNotification::Meta { found })?;
        Ok(self)
    }

    /// Sets `_meta` to the JSON of this text, as [`with_params_json`](Self::with_params_json) does for `params`.
    ///
    /// # Errors
    /// [`InvalidNotification::Json`] where the text is no JSON, or contains half of a surrogate pair.
    /// [`InvalidNotification::Meta`] for anything but an object or `null`.
    pub fn with_meta_json(mut self, meta: &str) -> Result<Self, InvalidNotification> {
        self.meta = Object::of_text("_meta", meta, |found| InvalidNotification::Meta { found })?;
        Ok(self)
    }

    /// Names the task to which the notification belongs, in `_meta`. MCP demands this of all messages about a task
    /// except its status.
    pub fn related_to(mut self, task_id: &str) -> Self {
        let related = json!({"taskId": task_id});
        self.meta.get_or_insert_default().set(RELATED_TASK, related);
        self
    }

    /// Sets the time for which the notification may wait, from the push on. Defaults to
    /// [`Config::time_to_live`](crate::Config::time_to_live).
    ///
    /// # Errors
    /// [`InvalidNotification::TimeToLive`] outside 1 ms to 365 days.
    pub fn with_time_to_live(mut self, time_to_live: Duration) -> Result<Self, InvalidNotification> {
        if !time_to_live_is_possible(time_to_live) {
            return Err(InvalidNotification::TimeToLive { given: time_to_live });
        }
        self.time_to_live = Some(time_to_live);
        Ok(self)
    }

    /// Sets the W3C trace context of the notification's cause. Defaults to none.
    ///
    /// The client gets the context in `_meta`, under MCP's names `traceparent`, `tracestate` and `baggage`. Where the
    /// producer set `traceparent` or `tracestate` in `_meta` itself, `_meta` keeps the producer's two. The same holds
    /// for `baggage`.
    pub fn with_trace_context(mut self, context: TraceContext) -> Self {
        self.trace_context = Some(Box::new(context));
        self
    }

    /// Asks for a receipt, by which a producer can read and await the outcome
    /// ([`Publisher::receipt`](crate::Publisher::receipt)). Defaults to no receipt.
    ///
    /// A receipt costs a key in Redis, for as long as [`Config::receipt_life`](crate::Config::receipt_life) says. Where
    /// a push got no answer, the receipt shows whether the notification was queued. A FastMCP server settles no
    /// receipts.
    pub fn with_receipt(mut self) -> Self {
        self.receipt = true;
        self
    }

    /// Returns the trace context, if one was set.
    pub fn trace_context(&self) -> Option<&TraceContext> {
        self.trace_context.as_deref()
    }

    /// Returns the id, which the notification gets at its first push, also where that push is refused. `None` before.
    pub fn id(&self) -> Option<NotificationId> {
        self.id
    }

    /// Returns the `taskId` of a task's status, or `None` for any other notification.
    pub(crate) fn task_id(&self) -> Option<Cow<'_, str>> {
        let params = self.params.as_ref().filter(|_| self.method == TASK_STATUS)?;
        params.string("taskId")
    }

    /// Returns whether the nesting is so deep that readers of the queue, or the client, would refuse the notification.
    pub(crate) fn is_too_deep(&self) -> bool {
        self.params.iter().chain(&self.meta).any(|object| object.is_deeper(MAX_DEPTH))
    }

    /// Returns the method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns the params as JSON text; `None` where there are none.
    pub fn params(&self) -> Option<Cow<'_, str>> {
        self.params.as_ref().map(Object::to_text)
    }
}

/// Checks that a method begins with `notifications/` and has a name after that.
pub(crate) fn check_method(method: &str) -> Result<(), InvalidNotification> {
    match method.strip_prefix("notifications/") {
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err(InvalidNotification::Method { method: method.to_owned() }),
    }
}

/// Longest time to live of a notification.
pub(crate) const TIME_TO_LIVE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Returns whether a time to live is 1 ms to 365 days.
pub(crate) fn time_to_live_is_possible(time_to_live: Duration) -> bool {
    (Duration::from_millis(1)..=TIME_TO_LIVE_MAX).contains(&time_to_live)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn value(notification: &Notification) -> Value {
        serde_json::from_str(&notification.params().unwrap()).unwrap()
    }

    #[test]
    fn only_methods_of_notifications_pass() {
        assert!(Notification::new("notifications/x").is_ok());
        for method in ["tools/call", "notifications/", "notifications", "", "Notifications/x"] {
            assert_eq!(Notification::new(method), Err(InvalidNotification::Method { method: method.to_owned() }));
        }
    }

    #[test]
    fn params_must_be_an_object() {
        let new = || Notification::new("notifications/x").unwrap();
        assert_eq!(new().with_params(json!([1])), Err(InvalidNotification::Params { found: "an array" }));
        assert_eq!(new().with_params(Value::Null).unwrap().params, None);
        assert_eq!(new().with_meta(json!("x")), Err(InvalidNotification::Meta { found: "a string" }));
    }

    #[test]
    fn constructors_leave_out_what_is_not_given_and_keep_what_mcp_requires() {
        let progress = Notification::progress("t", 3.0, None, None).unwrap();
        assert_eq!(value(&progress), json!({"progressToken": "t", "progress": 3}));
        assert!(Notification::progress(1, f64::NAN, None, None).is_err());
        let message = Notification::message(LoggingLevel::Info, None, Value::Null);
        assert_eq!(value(&message), json!({"level": "info", "data": null}));
        let task = Task::new("t7", TaskStatus::Working, SystemTime::UNIX_EPOCH);
        assert_eq!(
            value(&Notification::task_status(&task)),
            json!({"taskId": "t7", "status": "working", "createdAt": "1970-01-01T00:00:00Z",
                   "lastUpdatedAt": "1970-01-01T00:00:00Z", "ttl": null})
        );
    }

    #[test]
    fn a_time_to_live_out_of_range_is_refused() {
        let new = || Notification::new("notifications/x").unwrap();
        assert!(new().with_time_to_live(Duration::ZERO).is_err());
        assert!(new().with_time_to_live(Duration::MAX).is_err());
        assert!(new().with_time_to_live(Duration::from_millis(1)).is_ok());
    }
}
