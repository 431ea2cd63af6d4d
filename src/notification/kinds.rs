//! Constructors of the notifications that MCP names.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Notification, Task};
use crate::notification::InvalidNotification;

impl Notification {
    /// Creates `notifications/message`: a line of the log for the client, by MCP's logging utility. `data` may be any
    /// JSON.
    pub fn message(level: LoggingLevel, logger: Option<&str>, data: Value) -> Self {
        // `data` is required, so it stays even where it is null.
        let mut notification =
            Self::with_object("notifications/message", json!({"level": level.as_str(), "logger": logger}));
        if let Some(params) = &mut notification.params {
            params.set("data", data);
        }
        notification
    }

    /// Creates `notifications/progress` for the request or the task that has the token.
    ///
    /// # Errors
    /// [`InvalidNotification::NotFinite`] where a number is infinite or not a number.
    pub fn progress(
        token: impl Into<ProgressToken>,
        progress: f64,
        total: Option<f64>,
        message: Option<&str>,
    ) -> Result<Self, InvalidNotification> {
        for (field, number) in [("progress", Some(progress)), ("total", total)] {
            if number.is_some_and(|n| !n.is_finite()) {
                return Err(InvalidNotification::NotFinite { field });
            }
        }
        Ok(Self::finite_progress(token.into(), progress, total, message))
    }

    /// Creates a notification as [`progress`](Self::progress) does, and leaves out numbers that JSON cannot hold.
    pub(crate) fn finite_progress(
        token: ProgressToken,
        progress: f64,
        total: Option<f64>,
        message: Option<&str>,
    ) -> Self {
        Self::with_object(
            "notifications/progress",
            json!({"progressToken": token.to_json(), "progress": number(progress),
                   "total": total.map(number), "message": message}),
        )
    }

    /// Creates `notifications/resources/updated`: a resource to which the client has subscribed has changed.
    pub fn resource_updated(uri: impl Into<String>) -> Self {
        Self::with_object("notifications/resources/updated", json!({"uri": uri.into()}))
    }

    /// Creates `notifications/resources/list_changed`: the list of resources has changed.
    pub fn resources_list_changed() -> Self {
        Self::named("notifications/resources/list_changed")
    }

    /// Creates `notifications/tools/list_changed`: the list of tools has changed.
    pub fn tools_list_changed() -> Self {
        Self::named("notifications/tools/list_changed")
    }

    /// Creates `notifications/prompts/list_changed`: the list of prompts has changed.
    pub fn prompts_list_changed() -> Self {
        Self::named("notifications/prompts/list_changed")
    }

    /// Creates `notifications/cancelled`: the server withdraws a request that it has sent.
    pub fn cancelled(request: impl Into<RequestId>, reason: Option<&str>) -> Self {
        Self::with_object("notifications/cancelled", json!({"requestId": request.into().to_json(), "reason": reason}))
    }

    /// Creates `notifications/elicitation/complete`: the user has completed a question of URL mode on its page.
    pub fn elicitation_complete(elicitation_id: impl Into<String>) -> Self {
        Self::with_object("notifications/elicitation/complete", json!({"elicitationId": elicitation_id.into()}))
    }

    /// Creates `notifications/tasks/status`: a whole task of MCP 2025-11-25, as `tasks/get` would return it.
    pub fn task_status(task: &Task) -> Self {
        let mut notification = Self::with_object(
            "notifications/tasks/status",
            json!({
                "taskId": task.task_id,
                "status": task.status.as_str(),
                "statusMessage": task.status_message,
                "createdAt": rfc3339(task.created_at),
                "lastUpdatedAt": rfc3339(task.last_updated_at),
                "pollInterval": task.poll_interval.map(millis),
            }),
        );
        // `ttl` is required and may be null: the task is then kept without a limit.
        if let Some(params) = &mut notification.params {
            params.set("ttl", task.ttl.map_or(Value::Null, |d| json!(millis(d))));
        }
        notification
    }
}

/// Severity of a [`Notification::message`]: the syslog levels that MCP names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the names are RFC 5424's
pub enum LoggingLevel {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl LoggingLevel {
    /// Returns the level's name in MCP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
            Self::Alert => "alert",
            Self::Emergency => "emergency",
        }
    }
}

/// JSON-RPC request id: an integer or a string. The number 1 and the string "1" are different ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum RequestId {
    Number(i64),
    String(String),
}

/// Progress token, which has the form of a request id.
pub type ProgressToken = RequestId;

impl RequestId {
    fn to_json(&self) -> Value {
        match self {
            Self::Number(n) => json!(n),
            Self::String(s) => json!(s),
        }
    }
}

impl From<i64> for RequestId {
    fn from(n: i64) -> Self {
        Self::Number(n)
    }
}

impl From<String> for RequestId {
    fn from(s: String) -> Self {
        Self::String(s)
    }
}

impl From<&str> for RequestId {
    fn from(s: &str) -> Self {
        Self::String(s.to_owned())
    }
}

/// Returns a number as JSON. Whole numbers have no decimal point: `3` and not `3.0`.
fn number(n: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if n.fract() == 0.0 && n.abs() < EXACT { json!(n as i64) } else { json!(n) }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

fn rfc3339(at: SystemTime) -> String {
    // `OffsetDateTime::from` panics outside its range, so it is not used.
    let nanos = |d: Duration| i128::try_from(d.as_nanos()).unwrap_or(i128::MAX);
    let nanos = at.duration_since(SystemTime::UNIX_EPOCH).map_or_else(|before| -nanos(before.duration()), nanos);
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok().and_then(|at| at.format(&Rfc3339).ok());
    // A time outside the years 0 to 9999 has no RFC 3339 form and becomes the epoch.
    at.unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}
