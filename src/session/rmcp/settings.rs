//! [`Settings`]: what a session manager is built with.

use std::time::Duration;

use super::restorer::Restorer;
use crate::session_id::SessionId;

/// Function that is called when a session has ended for good.
pub(super) type OnEnd = dyn Fn(&SessionId) + Send + Sync;

/// Settings of a session manager.
pub(super) struct Settings<M> {
    pub(super) idle_timeout: Duration,
    pub(super) reconnect_delay: Duration,
    pub(super) on_end: Option<Box<OnEnd>>,
    /// Restores sessions that are stored in the queue's Redis. `None` where sessions are not stored: with it they end for
    /// all, or not at all.
    pub(super) restorer: Option<Restorer<M>>,
}

impl<M> Default for Settings<M> {
    /// The times are rmcp's own.
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(300),
            reconnect_delay: Duration::from_secs(3),
            on_end: None,
            restorer: None,
        }
    }
}
