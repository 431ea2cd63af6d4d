//! [`Settings`]: settings of a session manager.

use std::time::Duration;

use super::restorer::Restorer;
use crate::session_id::SessionId;

/// Time until the next stream where the fleet has another server. A balancer needs so long to notice that a connection
/// was refused. The client misses its server for less than a second.
pub(super) const DELAY_IN_FLEET: Duration = Duration::from_millis(500);

/// Time until the next stream where this server runs alone: it must be started again within two attempts. The same as
/// rmcp's own.
pub(super) const DELAY_ALONE: Duration = Duration::from_secs(3);

/// Function that is called when a session has ended for good.
pub(super) type OnEnd = dyn Fn(&SessionId) + Send + Sync;

/// Settings of a session manager.
pub(super) struct Settings<M> {
    /// Time without a stream and without a request after which a session is closed here.
    pub(super) idle_timeout: Duration,
    /// `None` where the number of servers decides.
    pub(super) reconnect_delay: Option<Duration>,
    pub(super) on_end: Option<Box<OnEnd>>,
    /// Restorer of sessions that are stored in the queue's Redis. `None` where sessions are not stored: a session then
    /// ends for good when this process closes it.
    pub(super) restorer: Option<Restorer<M>>,
}

impl<M> Default for Settings<M> {
    /// Uses the idle timeout that rmcp has by default.
    fn default() -> Self {
        Self { idle_timeout: Duration::from_secs(300), reconnect_delay: None, on_end: None, restorer: None }
    }
}
