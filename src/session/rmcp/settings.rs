//! [`Settings`]: what a session manager is built with.

use std::time::Duration;

use crate::session_id::SessionId;

/// Function that is called when a session has ended for good.
pub(super) type OnEnd = dyn Fn(&SessionId) + Send + Sync;

/// Settings of a session manager.
pub(super) struct Settings {
    pub(super) idle_timeout: Duration,
    pub(super) reconnect_delay: Duration,
    pub(super) on_end: Option<Box<OnEnd>>,
    /// Whether sessions are stored in the queue's Redis: then they end for all, or not at all.
    pub(super) is_stored: bool,
}

impl Default for Settings {
    /// The times are rmcp's own.
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(300),
            reconnect_delay: Duration::from_secs(3),
            on_end: None,
            is_stored: false,
        }
    }
}
