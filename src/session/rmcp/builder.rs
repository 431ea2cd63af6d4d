//! [`SessionManagerBuilder`]: the settings of a session manager, which are final once it is built.

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
    /// `keep_alive`, whose place it takes. Queued notifications of the session stay queued until they expire. Without
    /// [stored sessions](Self::store_sessions) the session is over then, and the open questions of its client are
    /// cancelled. With them the session continues wherever its client comes back.
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.settings.idle_timeout = idle_timeout;
        self
    }

    /// Sets how long a client waits, once its stream for notifications has ended, before it opens the next: SSE's `retry`.
    /// Defaults to 500 ms where another server of the fleet was there when the stream began, and to 3 s where this one was alone.
    /// A server counts once its service is mounted, or with its first request where rmcp's own service is mounted.
    ///
    /// Clients of 2025-11-25 in Python and TypeScript give up when the second attempt is refused, so all servers may be away
    /// for less than twice this time. Behind a proxy that reports a broken stream, Python's give up when the first is. A
    /// balancer that leads a refused connection to another server needs no time; give any other as long as it needs to
    /// notice that a server has died. rmcp's client comes back at once after a broken stream.
    pub fn reconnect_delay(mut self, reconnect_delay: Duration) -> Self {
        self.settings.reconnect_delay = Some(reconnect_delay);
        self
    }

    /// Sets a function that is called when a session has ended for good. With [stored sessions](Self::store_sessions) a
    /// session ends when its client says so (DELETE), at whatever server. The function is then called at each server of the
    /// fleet that has served anything: once for each session, or, while Redis is in trouble, perhaps not at all. It must not
    /// block. A panic of it is logged. Without stored sessions it is not called.
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
    /// Stores sessions in the queue's Redis, and restores those of other servers, each with a handler of `factory`. A client
    /// whose server died, or to whose server a balancer no longer sends it, then continues at another server of the fleet
    /// with its session id. By default sessions are not stored.
    ///
    /// Give `factory` to rmcp's service too, and mount [`CourierSessionManager::session_store`] there: rmcp tells the store
    /// of a DELETE. Without it a DELETE ends nothing that was restored. At the `initialize` of a session that is restored
    /// the handler does not find the head of the client's request, but where
    /// [`Courier::mcp_server`](crate::Courier::mcp_server) serves.
    pub fn store_sessions<S: ServerHandler>(
        self,
        factory: impl Fn() -> Result<S, std::io::Error> + Send + Sync + 'static,
    ) -> Self {
        self.restorer(Some(Restorer::new(Arc::new(factory), CancellationToken::new())))
    }

    /// Builds the manager. Its settings are final.
    pub fn build(self) -> CourierSessionManager<M> {
        let Self { inner, queue, subscribers, config, settings } = self;
        CourierSessionManager::new(Shared::new(inner, queue, subscribers, config, settings))
    }
}
