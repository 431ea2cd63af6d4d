//! [`Task`]: a task of MCP 2025-11-25.

use std::time::{Duration, SystemTime};

/// Task of MCP 2025-11-25, for [`Notification::task_status`](crate::Notification::task_status).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Id of the task (`taskId`), at most [`TaskKey::MAX_LEN`](crate::TaskKey::MAX_LEN) bytes. A push of a longer id is
    /// refused.
    pub task_id: String,
    /// Status of the task (`status`).
    pub status: TaskStatus,
    /// Text for people about the status (`statusMessage`).
    pub status_message: Option<String>,
    /// Time of the task's creation (`createdAt`).
    pub created_at: SystemTime,
    /// Time of the last change (`lastUpdatedAt`).
    pub last_updated_at: SystemTime,
    /// Time for which the task is kept after its creation (`ttl`); `None` without a limit. Milliseconds in JSON.
    pub ttl: Option<Duration>,
    /// Pause that a client should make between two polls (`pollInterval`). Milliseconds in JSON.
    pub poll_interval: Option<Duration>,
}

impl Task {
    /// Creates a task that was created and last changed at `now`, and is kept without a limit.
    pub fn new(task_id: impl Into<String>, status: TaskStatus, now: SystemTime) -> Self {
        Self {
            task_id: task_id.into(),
            status,
            status_message: None,
            created_at: now,
            last_updated_at: now,
            ttl: None,
            poll_interval: None,
        }
    }
}

/// Status of a [`Task`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskStatus {
    /// The task is running.
    Working,
    /// The task waits for input from the user.
    InputRequired,
    /// The task has ended with success.
    Completed,
    /// The task has ended with an error.
    Failed,
    /// The task was cancelled.
    Cancelled,
}

impl TaskStatus {
    /// Returns the status's name in MCP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Returns whether the status is final, so that no other status can follow.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}
