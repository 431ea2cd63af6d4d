//! [`TaskReporter`]: tells one client how one task goes.

use std::time::SystemTime;

use super::{Publisher, Pushed};
use crate::notification::{Notification, ProgressToken, Task, TaskStatus};
use crate::publisher::PushError;
use crate::session_id::SessionId;

/// Pushes the status of one task, as it changes, and its progress.
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

    /// The task as it was told last.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Pushes `notifications/tasks/status` with a new status, changed now.
    ///
    /// MCP: a task that has ended stays as it is. What is pushed after its end is discarded at delivery.
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

    /// Pushes `notifications/progress` under the token that the client gave with its request.
    ///
    /// # Errors
    /// [`PushError`] as from [`Publisher::push`]. A number that JSON cannot hold is left out.
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
