//! [`Courier`]: the door of a server process.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use crate::actors::{Arbiters, EnsureSubscriber, Ensured, Shutdown, ShutdownReport, StopSubscriber, SupervisorActor};
use crate::backend::questions::answer_open;
use crate::backend::{Backend, Settled};
use crate::config::Config;
use crate::connect::{ConnectError, connect};
use crate::failure::QueueError;
use crate::publisher::Publisher;
use crate::question::{Answer, Question};
use crate::session::{EnsureError, McpSession};
use crate::session_id::SessionId;

/// A server process's courier: a connection to the queue and a [`SupervisorActor`]. Cheap to clone.
///
/// Dropping it stops nothing: call [`shutdown`](Self::shutdown) before the process ends, so that leases are released and
/// another process takes over at once.
#[derive(Debug, Clone)]
pub struct Courier {
    queue: Arc<dyn Backend>,
    config: Arc<Config>,
    publisher: Publisher,
    supervisor: Addr<SupervisorActor>,
    /// The queue lies outside this process: other servers can take its sessions over.
    #[cfg(feature = "rmcp")]
    is_shared: bool,
}

impl Courier {
    /// Connects to a queue and starts a supervisor on this thread's arbiter: `redis://`, `unix://`, or `memory://name`
    /// for this process alone.
    ///
    /// Call it within an actix `System` (`#[actix_web::main]`, `#[actix::main]`).
    ///
    /// # Errors
    /// [`ConnectError`] where the URL cannot be used or the queue cannot be reached.
    pub async fn start(url: &str, config: Config) -> Result<Self, ConnectError> {
        Self::start_with(url, config, Arbiters::Threads).await
    }

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
            #[cfg(feature = "rmcp")]
            is_shared: !url.starts_with("memory:"),
        })
    }

    /// Returns a publisher over the same connection, a clone of one publisher for the whole courier.
    pub fn publisher(&self) -> Publisher {
        self.publisher.clone()
    }

    /// Returns whether other processes can share the queue: a queue in memory belongs to this one alone.
    #[cfg(feature = "rmcp")]
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the address of the supervisor, for [`ListSubscribers`](crate::ListSubscribers),
    /// [`GetSubscriberCount`](crate::GetSubscriberCount) and the other messages that it takes.
    pub fn supervisor(&self) -> &Addr<SupervisorActor> {
        &self.supervisor
    }

    /// Runs a subscriber for a session, once: see [`EnsureSubscriber`].
    ///
    /// # Errors
    /// [`EnsureError`]: the limit is reached, the process has no further thread, or the supervisor shuts down or is gone.
    ///
    /// # Cancellation
    /// The subscriber may run all the same.
    pub async fn ensure_subscriber(
        &self,
        session_id: &SessionId,
        session: Arc<dyn McpSession>,
    ) -> Result<Ensured, EnsureError> {
        let message = EnsureSubscriber { session_id: session_id.clone(), session };
        self.supervisor.send(message).await.unwrap_or(Err(EnsureError::Gone))
    }

    /// Stops a session's subscriber, if it runs for this object: see [`StopSubscriber`].
    ///
    /// # Cancellation
    /// The subscriber stops all the same.
    pub async fn stop_subscriber(&self, session_id: &SessionId, session: Option<Arc<dyn McpSession>>) -> bool {
        let message = StopSubscriber { session_id: session_id.clone(), session };
        // Without a supervisor nothing runs.
        self.supervisor.send(message).await.unwrap_or(false)
    }

    /// Gives an answer that a client sent to this process to the question that any process of the fleet asked. Only an open
    /// question of this session is found.
    ///
    /// The session manager for rmcp calls this method by itself. An MCP server on anything else calls this method where its
    /// client answers a request of an earlier process.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed: the answer may or may not be given. Giving the answer again does no harm.
    ///
    /// # Cancellation
    /// The answer may or may not be given.
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

    /// Stops every subscriber and starts none any more: see [`Shutdown`].
    ///
    /// # Cancellation
    /// The shutdown goes on.
    pub async fn shutdown(&self, drain: Duration) -> ShutdownReport {
        self.supervisor.send(Shutdown { drain }).await.unwrap_or_default()
    }
}

#[cfg(feature = "rmcp")]
mod rmcp {
    use std::sync::Arc;

    use async_trait::async_trait;
    use rmcp::transport::streamable_http_server::session::SessionManager;
    use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;

    use super::Courier;
    use crate::backend::Settled;
    use crate::failure::QueueError;
    use crate::question::Answer;
    use crate::session::rmcp::{SessionManagerBuilder, Subscribers};
    use crate::session::{EnsureError, McpSession};
    use crate::session_id::SessionId;

    impl Courier {
        /// Begins a session manager to mount in an rmcp server.
        pub fn session_manager(&self) -> SessionManagerBuilder<LocalSessionManager> {
            let mut inner = LocalSessionManager::default();
            // Our notifications do not pass through rmcp's worker, so they would not keep a session alive there: how long
            // an idle one is kept is ours to say.
            inner.session_config.keep_alive = None;
            self.decorate(inner)
        }

        /// Begins a session manager that decorates another one. Switch off that one's idle timeout, if it has one.
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
    }
}
