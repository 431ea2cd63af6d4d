//! A task of MCP 2025-11-25.

use std::time::{Duration, SystemTime};

/// A task of MCP 2025-11-25, for [`Notification::task_status`](crate::Notification::task_status).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// `taskId`. At most [`TaskKey::MAX_LEN`](crate::TaskKey::MAX_LEN) bytes: a push of a longer one is refused.
    pub task_id: String,
    /// `status`.
    pub status: TaskStatus,
    /// `statusMessage`: what a person may read about it.
    pub status_message: Option<String>,
    /// `createdAt`.
    pub created_at: SystemTime,
    /// `lastUpdatedAt`.
    pub last_updated_at: SystemTime,
    /// `ttl`: how long after its creation it is kept; `None` is without a limit. Milliseconds on the wire.
    pub ttl: Option<Duration>,
    /// `pollInterval`: how often a client should ask. Milliseconds on the wire.
    pub poll_interval: Option<Duration>,
}

impl Task {
    /// A task that was created and last changed at `now`, without a limit to its life.
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

/// The status of a [`Task`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskStatus {
    /// It is being worked on.
    Working,
    /// It waits for input from the user.
    InputRequired,
    /// It ended well.
    Completed,
    /// It ended with an error.
    Failed,
    /// It was taken back.
    Cancelled,
}

impl TaskStatus {
    /// As MCP spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether no other status can follow.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}
