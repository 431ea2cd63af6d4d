//! [`Courier`]: entry point of a server process.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use crate::actors::{Arbiters, EnsureSubscriber, Ensured, Shutdown, ShutdownReport, StopSubscriber, SupervisorActor};
use crate::backend::relay::answer_open;
use crate::backend::{Backend, Settled};
use crate::config::Config;
use crate::connect::{ConnectError, connect};
use crate::failure::QueueError;
use crate::publisher::Publisher;
use crate::question::{Answer, Question};
use crate::session::{EnsureError, McpSession};
use crate::session_id::SessionId;

mod check;

use self::check::Checks;

/// Courier of a server process: a connection to the queue and a [`SupervisorActor`]. Cloning is cheap.
///
/// Dropping a courier stops nothing. Call [`shutdown`](Self::shutdown) before the process ends: the leases are then
/// released, and another process can take over at once.
#[derive(Debug, Clone)]
pub struct Courier {
    queue: Arc<dyn Backend>,
    config: Arc<Config>,
    publisher: Publisher,
    supervisor: Addr<SupervisorActor>,
    checks: Arc<Checks>,
    /// Set where the queue is outside this process, so that other servers can take over its sessions.
    #[cfg(feature = "rmcp")]
    is_shared: bool,
}

impl Courier {
    /// Connects to a queue, and starts a supervisor on this thread's arbiter. The URL is one of
    /// [those of Redis](crate::ways_to_redis), or `memory://name` for a queue in this process alone.
    ///
    /// Call this function within an actix `System` (`#[actix_web::main]`, `#[actix::main]`).
    ///
    /// # Errors
    /// [`ConnectError`] where the URL cannot be used or the queue cannot be reached.
    ///
    /// # Cancellation
    /// Dropping the future starts nothing.
    pub async fn start(url: &str, config: Config) -> Result<Self, ConnectError> {
        Self::start_with(url, config, Arbiters::Threads).await
    }

    /// Starts a courier as [`start`](Self::start) does, with arbiters of this kind.
    pub(crate) async fn start_with(url: &str, config: Config, arbiters: Arbiters) -> Result<Self, ConnectError> {
        let config = Arc::new(config);
        let queue = connect(url, Arc::clone(&config)).await?;
        let supervisor = SupervisorActor::new(Arc::clone(&queue), Arc::clone(&config), arbiters).start();
        let publisher = Publisher::new(Arc::clone(&queue), Arc::clone(&config));
        Ok(Self {
            queue,
            config,
            publisher,
            supervisor,
            checks: Arc::default(),
            #[cfg(feature = "rmcp")]
            is_shared: !url.starts_with("memory:"),
        })
    }

    /// Returns a publisher over the courier's connection. All calls return clones of one publisher.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Returns whether other processes can share the queue. A queue in memory belongs to this process alone.
    #[cfg(feature = "rmcp")]
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Returns the settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the supervisor's address, for [`ListSubscribers`](crate::ListSubscribers),
    /// [`GetSubscriberCount`](crate::GetSubscriberCount) and its other messages.
    pub fn supervisor(&self) -> &Addr<SupervisorActor> {
        &self.supervisor
    }

    /// Runs one subscriber for a session: see [`EnsureSubscriber`].
    ///
    /// # Errors
    /// [`EnsureError`]: the limit is reached, the process has no further thread, or the supervisor shuts down or has
    /// ended.
    ///
    /// # Cancellation
    /// The subscriber may run nevertheless.
    pub async fn ensure_subscriber(
        &self,
        session_id: &SessionId,
        session: Arc<dyn McpSession>,
    ) -> Result<Ensured, EnsureError> {
        let message = EnsureSubscriber { session_id: session_id.clone(), session };
        self.supervisor.send(message).await.unwrap_or(Err(EnsureError::Gone))
    }

    /// Stops a session's subscriber if it runs for this session object: see [`StopSubscriber`]. Returns whether there
    /// was a subscriber to stop.
    ///
    /// # Cancellation
    /// The subscriber stops nevertheless.
    pub async fn stop_subscriber(&self, session_id: &SessionId, session: Option<Arc<dyn McpSession>>) -> bool {
        let message = StopSubscriber { session_id: session_id.clone(), session };
        // Without a supervisor no subscriber runs.
        self.supervisor.send(message).await.unwrap_or(false)
    }

    /// Passes a client's answer, which this process has received, to the question that any process of the fleet has
    /// asked. Only an open question of this session is found.
    ///
    /// The session manager for rmcp calls this method by itself. Another MCP server calls this method where its client
    /// answers a request of an earlier process.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed. The answer may or may not be recorded, and answering again does no harm.
    ///
    /// # Cancellation
    /// The answer may or may not be recorded, and answering again does no harm.
    pub async fn answer(
        &self,
        session_id: &SessionId,
        request_id: &str,
        answer: Answer,
    ) -> Result<Settled, QueueError> {
        if !Question::id_is_possible(request_id) {
            return Ok(Settled::NotWaiting);
        }
        let answer = answer.within(self.config.message_max_bytes());
        answer_open(&*self.queue, session_id, request_id, &answer).await
    }

    /// Stops every subscriber and starts none afterwards: see [`Shutdown`]. Returns the report, which is empty where
    /// the supervisor has ended before.
    ///
    /// # Cancellation
    /// The shutdown continues.
    pub async fn shutdown(&self, drain: Duration) -> ShutdownReport {
        self.note_shutdown();
        self.supervisor.send(Shutdown { drain }).await.unwrap_or_default()
    }
}

#[cfg(feature = "rmcp")]
mod rmcp {
    use std::sync::{Arc, Weak};

    use async_trait::async_trait;
    use rmcp::transport::streamable_http_server::session::SessionManager;
    use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;

    use super::Courier;
    use crate::backend::Settled;
    use crate::failure::QueueError;
    use crate::health::Room;
    use crate::question::Answer;
    use crate::session::rmcp::{SessionManagerBuilder, Subscribers};
    use crate::session::{EnsureError, McpSession};
    use crate::session_id::SessionId;

    impl Courier {
        /// Returns a builder of a session manager, to mount in an rmcp server.
        pub fn session_manager(&self) -> SessionManagerBuilder<LocalSessionManager> {
            let mut inner = LocalSessionManager::default();
            // The courier's notifications do not pass through rmcp's worker, so they would not keep a session alive
            // there. The courier's own idle timeout decides instead.
            inner.session_config.keep_alive = None;
            self.decorate(inner)
        }

        /// Returns a builder of a session manager that decorates another one. Switch off the idle timeout of the other,
        /// if it has one: the courier's own applies.
        pub fn decorate<M: SessionManager>(&self, inner: M) -> SessionManagerBuilder<M> {
            SessionManagerBuilder::new(inner, Arc::clone(&self.queue), Arc::new(self.clone()), &self.config)
        }
    }
    #[async_trait]
    impl Subscribers for Courier {
        async fn ensure(&self, session_id: &SessionId, session: Arc<dyn McpSession>) -> Result<(), EnsureError> {
            self.ensure_subscriber(session_id, session).await.map(drop)
        }

        async fn answer(
            &self,
            session_id: &SessionId,
            request_id: &str,
            answer: Answer,
        ) -> Result<Settled, QueueError> {
            Courier::answer(self, session_id, request_id, answer).await
        }

        fn add_room(&self, room: Weak<dyn Room>) {
            Courier::add_room(self, room);
        }
    }
}
