//! [`Settings`]: what a session manager is built with.

use std::time::Duration;

use super::restorer::Restorer;
use crate::session_id::SessionId;

/// Time until the next stream where another server of the fleet is there. Long enough for a balancer to notice that a connection
/// was refused, and short enough that a client misses its server for less than a second.
pub(super) const DELAY_IN_FLEET: Duration = Duration::from_millis(500);

/// Time until the next stream where this server is alone: within two attempts it must be started again. It is rmcp's own.
pub(super) const DELAY_ALONE: Duration = Duration::from_secs(3);

/// Function that is called when a session has ended for good.
pub(super) type OnEnd = dyn Fn(&SessionId) + Send + Sync;

/// Settings of a session manager.
pub(super) struct Settings<M> {
    pub(super) idle_timeout: Duration,
    /// `None` = as the number of servers says.
    pub(super) reconnect_delay: Option<Duration>,
    pub(super) on_end: Option<Box<OnEnd>>,
    /// Restores sessions that are stored in the queue's Redis. `None` where sessions are not stored: with it they end for
    /// all, or not at all.
    pub(super) restorer: Option<Restorer<M>>,
}

impl<M> Default for Settings<M> {
    /// The idle timeout is rmcp's own.
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(300), reconnect_delay: None, on_end: None, restorer: None }
    }
}
