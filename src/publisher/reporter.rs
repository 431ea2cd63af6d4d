//! [`TaskReporter`]: pushes the status and the progress of one task to one client.

use std::time::SystemTime;

use super::{Publisher, Pushed};
use crate::notification::{Notification, ProgressToken, Task, TaskStatus};
use crate::publisher::PushError;
use crate::session_id::SessionId;

/// Pushes the status and the progress of one task as they change.
///
/// ```no_run
/// use std::time::SystemTime;
/// use mcp_courier::{Publisher, SessionId, Task, TaskStatus};
///
/// # async fn worker(publisher: Publisher, session: SessionId) -> Result<(), Box<dyn std::error::Error>> {
/// let task = Task::new("task-7", TaskStatus::Working, SystemTime::now());
/// let mut report = publisher.task_reporter(&session, task);
/// report.status(TaskStatus::Working, Some("reading the archive")).await?;
/// report.progress("the-clients-token", 30.0, Some(100.0), None).await?;
/// report.status(TaskStatus::Completed, None).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TaskReporter {
    publisher: Publisher,
    session: SessionId,
    task: Task,
}

impl TaskReporter {
    pub(super) fn new(publisher: Publisher, session: SessionId, task: Task) -> Self {
        Self { publisher, session, task }
    }

    /// Returns the task with the status that was pushed last.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Pushes `notifications/tasks/status` with a new status and the present time.
    ///
    /// MCP allows no status after a task's end. A status that is pushed after the end is discarded at delivery.
    ///
    /// # Errors
    /// [`PushError`] as from [`Publisher::push`].
    ///
    /// # Cancellation
    /// The notification may or may not be queued.
    pub async fn status(&mut self, status: TaskStatus, message: Option<&str>) -> Result<Pushed, PushError> {
        self.task.status = status;
        self.task.status_message = message.map(str::to_owned);
        self.task.last_updated_at = SystemTime::now();
        self.publisher.push(&self.session, Notification::task_status(&self.task)).await
    }

    /// Pushes `notifications/progress` under the token from the client's request. A number that JSON cannot hold is
    /// left out.
    ///
    /// # Errors
    /// [`PushError`] as from [`Publisher::push`].
    ///
    /// # Cancellation
    /// The notification may or may not be queued.
    pub async fn progress(
        &self,
        token: impl Into<ProgressToken>,
        progress: f64,
        total: Option<f64>,
        message: Option<&str>,
    ) -> Result<Pushed, PushError> {
        let notification = Notification::finite_progress(token.into(), progress, total, message);
        self.publisher.push(&self.session, notification.related_to(&self.task.task_id)).await
    }
}
