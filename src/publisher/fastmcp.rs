//! Check for the sessions of FastMCP 3 servers, whose subscriber fails three times on other notifications and drops
//! them.

use crate::json::Fields;
use crate::notification::Notification;

/// Fields that MCP's type for a task's status requires.
const REQUIRED: [&str; 4] = ["taskId", "status", "createdAt", "lastUpdatedAt"];

/// Returns the reason why FastMCP's subscriber would fail on a notification, if there is one.
pub(super) fn unsupported_reason(notification: &Notification) -> Option<String> {
    if notification.method() != "notifications/tasks/status" {
        return Some(format!("this is {}", notification.method()));
    }
    let params = notification.params().unwrap_or_default();
    let fields = Fields::of(&params).unwrap_or_default();
    let is_string = |name: &str| fields.get(name).is_some_and(|value| value.starts_with('"'));
    if let Some(missing) = REQUIRED.into_iter().find(|name| !is_string(name)) {
        return Some(format!("{missing} is no string here"));
    }
    // FastMCP's server omits null values, and its clients refuse a status without `ttl`.
    let has_ttl = fields.get("ttl").is_some_and(|value| value.parse::<u64>().is_ok());
    (!has_ttl).then(|| "ttl is no number here".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::notification::{Task, TaskStatus};

    #[test]
    fn a_whole_status_fits_and_nothing_else_does() {
        let mut task = Task::new("t", TaskStatus::Working, SystemTime::now());
        assert_eq!(unsupported_reason(&Notification::task_status(&task)).unwrap(), "ttl is no number here");
        task.ttl = Some(Duration::from_secs(60));
        assert_eq!(unsupported_reason(&Notification::task_status(&task)), None);
        let bare = Notification::new("notifications/tasks/status").unwrap();
        assert_eq!(unsupported_reason(&bare).unwrap(), "taskId is no string here");
        assert_eq!(
            unsupported_reason(&Notification::tools_list_changed()).unwrap(),
            "this is notifications/tools/list_changed"
        );
    }
}
