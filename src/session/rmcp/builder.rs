//! [`SessionManagerBuilder`]: settings of a session manager, which are final after `build`.

use std::sync::Arc;
use std::time::Duration;

use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::SessionManager;
use tokio_util::sync::CancellationToken;

use super::manager::CourierSessionManager;
use super::restorer::Restorer;
use super::settings::Settings;
use super::shared::Shared;
use super::subscribers::Subscribers;
use crate::backend::Backend;
use crate::config::Config;
use crate::session_id::SessionId;

/// Settings of a [`CourierSessionManager`]. [`Courier::session_manager`](crate::Courier::session_manager) and
/// [`Courier::decorate`](crate::Courier::decorate) begin with the defaults.
#[must_use = "a session manager does nothing until it is built and mounted"]
pub struct SessionManagerBuilder<M> {
    inner: M,
    queue: Arc<dyn Backend>,
    subscribers: Arc<dyn Subscribers>,
    config: Config,
    settings: Settings<M>,
}

impl<M> std::fmt::Debug for SessionManagerBuilder<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionManagerBuilder")
            .field("idle_timeout", &self.settings.idle_timeout)
            .field("reconnect_delay", &self.settings.reconnect_delay)
            .field("is_stored", &self.settings.restorer.is_some())
            .finish_non_exhaustive()
    }
}

impl<M> SessionManagerBuilder<M> {
    pub(crate) fn new(inner: M, queue: Arc<dyn Backend>, subscribers: Arc<dyn Subscribers>, config: &Config) -> Self {
        Self { inner, queue, subscribers, config: config.clone(), settings: Settings::default() }
    }

    /// Sets how long a session without an open stream and without a request is kept here. Defaults to 300 s, as rmcp's
    /// `keep_alive`, which this setting replaces. Queued notifications of the session stay queued until they expire.
    ///
    /// Without [stored sessions](Self::store_sessions) the session is over then, and its client's open questions are
    /// cancelled. With them the session continues wherever its client comes back.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.settings.idle_timeout = idle_timeout;
        self
    }

    /// Sets the time between the end of a client's stream for notifications and its next stream: SSE's `retry`.
    /// Defaults to 500 ms where the fleet had another server when the stream began, and to 3 s otherwise. A server
    /// counts from the moment when its service is mounted. With rmcp's own service mounted, it counts from its first
    /// request.
    ///
    /// Clients of 2025-11-25 in Python and TypeScript give up when their second attempt is refused. So all servers may
    /// be away for less than twice this time. Behind a proxy that reports a broken stream, Python's clients give up
    /// when the first attempt is refused.
    ///
    /// A balancer that sends a refused connection on to another server needs no time. Any other balancer needs the time
    /// in which it notices that a server has died. rmcp's client comes back at once after a broken stream.
    pub fn reconnect_delay(mut self, reconnect_delay: Duration) -> Self {
        self.settings.reconnect_delay = Some(reconnect_delay);
        self
    }

    /// Sets a function that is called when a session has ended for good. It must not block, and its panics are logged.
    ///
    /// With [stored sessions](Self::store_sessions) a session ends when its client says so (DELETE), at any server. The
    /// function is then called at each server of the fleet that has served anything, once for each session. While Redis
    /// is in trouble the call may be missing. Without stored sessions the function is never called.
    pub fn on_session_end(mut self, on_end: impl Fn(&SessionId) + Send + Sync + 'static) -> Self {
        self.settings.on_end = Some(Box::new(on_end));
        self
    }

    pub(crate) fn restorer(mut self, restorer: Option<Restorer<M>>) -> Self {
        self.settings.restorer = restorer;
        self
    }
}

impl<M: SessionManager> SessionManagerBuilder<M> {
    /// Stores sessions in the queue's Redis, and restores those of other servers, each with a handler of `factory`. A
    /// client then continues at another server of the fleet with its session id: after its server died, or after a
    /// balancer sends it elsewhere. By default sessions are not stored.
    ///
    /// Give `factory` to rmcp's service too, and mount [`CourierSessionManager::session_store`] there: rmcp informs the
    /// store of a DELETE. Without that store a DELETE does not end a restored session.
    ///
    /// At the `initialize` of a restored session the handler finds no head of the client's request.
    /// [`Courier::mcp_server`](crate::Courier::mcp_server) provides the head.
    pub fn store_sessions<S: ServerHandler>(
        self,
        factory: impl Fn() -> Result<S, std::io::Error> + Send + Sync + 'static,
    ) -> Self {
        self.restorer(Some(Restorer::new(Arc::new(factory), CancellationToken::new())))
    }

    /// Builds the manager with these settings.
    pub fn build(self) -> CourierSessionManager<M> {
        let Self { inner, queue, subscribers, config, settings } = self;
        CourierSessionManager::new(Shared::new(inner, queue, subscribers, config, settings))
    }
}
