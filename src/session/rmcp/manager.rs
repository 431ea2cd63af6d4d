//! [`CourierSessionManager`]: rmcp's session manager, decorated.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use futures_util::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::{
    EventStore, RestoreOutcome, ServerSseMessage, SessionId as RmcpSessionId, SessionManager,
};

use super::client::{Answered, ClientSession};
use super::event_id::Epoch;
use super::idle;
use super::stream::{CourierStream, RequestStream, Slot};
use crate::config::Config;
use crate::error::{EnsureError, InvalidSessionId, QueueError};
use crate::question::Answer;
use crate::queue::Settled;
use crate::session::{McpSession, Subscribers};
use crate::session_id::SessionId;

/// A session manager that delivers: made by [`Courier::session_manager`](crate::Courier::session_manager) around rmcp's
/// own, or by [`Courier::decorate`](crate::Courier::decorate) around another.
pub struct CourierSessionManager<M> {
    shared: Arc<Shared<M>>,
    idle: Once,
}

pub(super) struct Shared<M> {
    pub(super) inner: M,
    pub(super) idle_timeout: Duration,
    subscribers: Arc<dyn Subscribers>,
    config: Config,
    epoch: Epoch,
    clients: Mutex<HashMap<RmcpSessionId, Arc<ClientSession>>>,
}

impl<M> std::fmt::Debug for CourierSessionManager<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CourierSessionManager")
            .field("sessions", &self.shared.clients().len())
            .field("idle_timeout", &self.shared.idle_timeout)
            .finish_non_exhaustive()
    }
}

/// A [`CourierSessionManager`] could not do what rmcp asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError<E> {
    /// The decorated manager could not.
    #[error(transparent)]
    Inner(E),
    /// No subscriber can be run for the session.
    #[error("no notifications can be delivered to this stream: {0}")]
    Subscriber(#[from] EnsureError),
    /// An answer could not be given to its worker.
    #[error(transparent)]
    Answer(#[from] QueueError),
    /// The decorated manager made an id that MCP does not allow.
    #[error(transparent)]
    SessionId(#[from] InvalidSessionId),
}

impl<M: SessionManager> CourierSessionManager<M> {
    pub(crate) fn new(inner: M, subscribers: Arc<dyn Subscribers>, config: &Config) -> Self {
        let epoch = if inner.event_store().is_some() { Epoch::of_event_store() } else { Epoch::new() };
        let shared = Shared {
            inner,
            idle_timeout: idle::DEFAULT,
            subscribers,
            config: config.clone(),
            epoch,
            clients: Mutex::default(),
        };
        Self { shared: Arc::new(shared), idle: Once::new() }
    }

    /// Sets how long a session without an open stream and without a request is kept. Defaults to 300 s, as rmcp's
    /// `keep_alive`, whose place it takes. What is queued for it stays queued, until it expires; the questions that its
    /// client was asked are cancelled. Once the manager serves it is too late: this changes nothing then.
    pub fn idle_timeout(self, idle_timeout: Duration) -> Self {
        let Shared { inner, subscribers, config, epoch, clients, idle_timeout: _ } = match Arc::try_unwrap(self.shared)
        {
            Ok(shared) => shared,
            // It is shared once it serves, and then no longer owned by whoever could call this.
            Err(shared) => return Self { shared, idle: self.idle },
        };
        let shared = Shared { inner, idle_timeout, subscribers, config, epoch, clients };
        Self { shared: Arc::new(shared), idle: self.idle }
    }

    /// The client under an id; it is new here when the session is, or was restored.
    fn client(&self, id: &RmcpSessionId) -> Arc<ClientSession> {
        // Here and not when it is made: only here is it sure that a runtime runs.
        self.idle.call_once(|| idle::watch(&self.shared));
        let new = || Arc::new(ClientSession::new(&self.shared.config));
        Arc::clone(self.shared.clients().entry(Arc::clone(id)).or_insert_with(new))
    }

    async fn open(
        &self,
        id: &RmcpSessionId,
        rmcp: impl Stream<Item = ServerSseMessage> + Send + Sync + 'static,
    ) -> Result<CourierStream, ManagerError<M::Error>> {
        let session_id = SessionId::new(id)?;
        let client = self.client(id);
        // Opened first, so that the subscriber finds it there and claims the session for it.
        let stream = client.open(Slot::new(rmcp, &self.shared.epoch));
        self.shared.subscribers.ensure(&session_id, client as Arc<dyn McpSession>).await?;
        Ok(stream)
    }

    /// Gives an answer to its worker, whichever process asked. The client hears that it was accepted only after that: its
    /// stream, and with it whoever asked, may be gone in the same moment.
    async fn answer(
        &self,
        id: &RmcpSessionId,
        client: Arc<ClientSession>,
        request_id: String,
        answer: Answer,
    ) -> Result<(), ManagerError<M::Error>> {
        let session_id = SessionId::new(id)?;
        let subscribers = Arc::clone(&self.shared.subscribers);
        let given = async move {
            match subscribers.answer(&session_id, &request_id, answer.clone()).await {
                Ok(Settled::Done) => client.settled(&request_id),
                // Whoever asks here knows the question even where the queue does not, and tries for longer.
                _ if client.hand_in(&request_id, answer) => {}
                // The client did nothing wrong that an error would mend: the user answered twice, or late.
                Ok(settled) => {
                    tracing::info!(session = %session_id, ?settled, "an answer comes too late; it is dropped")
                }
                Err(error) => return Err(error),
            }
            Ok(())
        };
        // A task of its own: a client that hangs up after its answer must not take it back.
        match tokio::spawn(given).await {
            Ok(given) => Ok(given?),
            // The process ends. Another asks again.
            Err(_) => Ok(()),
        }
    }
}

impl<M> Shared<M> {
    /// The sessions of this process.
    pub(super) fn sessions(&self) -> Vec<(RmcpSessionId, Arc<ClientSession>)> {
        self.clients().iter().map(|(id, client)| (Arc::clone(id), Arc::clone(client))).collect()
    }

    /// A session is over in this process: its subscriber sees that, and stops.
    pub(super) fn end(&self, id: &RmcpSessionId) {
        if let Some(client) = self.clients().remove(id) {
            client.end();
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<RmcpSessionId, Arc<ClientSession>>> {
        // Nothing in here panics half-way, so what a poisoned lock holds is whole.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: SessionManager> SessionManager for CourierSessionManager<M> {
    type Error = ManagerError<M::Error>;
    type Transport = M::Transport;

    async fn create_session(&self) -> Result<(RmcpSessionId, Self::Transport), Self::Error> {
        let (id, transport) = self.shared.inner.create_session().await.map_err(ManagerError::Inner)?;
        self.client(&id);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &RmcpSessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.client(id).initialized(&message);
        self.shared.inner.initialize_session(id, message).await.map_err(ManagerError::Inner)
    }

    async fn has_session(&self, id: &RmcpSessionId) -> Result<bool, Self::Error> {
        self.shared.inner.has_session(id).await.map_err(ManagerError::Inner)
    }

    async fn close_session(&self, id: &RmcpSessionId) -> Result<(), Self::Error> {
        self.shared.end(id);
        self.shared.inner.close_session(id).await.map_err(ManagerError::Inner)
    }

    async fn create_stream(
        &self,
        id: &RmcpSessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let rmcp = self.shared.inner.create_stream(id, message).await.map_err(ManagerError::Inner)?;
        Ok(RequestStream::new(Slot::new(rmcp, &self.shared.epoch), self.client(id)))
    }

    async fn accept_message(&self, id: &RmcpSessionId, message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        let client = self.client(id);
        client.touch();
        match client.answered(&message) {
            Answered::Other => {}
            Answered::Ping => return Ok(()),
            Answered::Question(request_id, answer) => return self.answer(id, client, request_id, answer).await,
        }
        self.shared.inner.accept_message(id, message).await.map_err(ManagerError::Inner)
    }

    async fn create_standalone_stream(
        &self,
        id: &RmcpSessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let rmcp = self.shared.inner.create_standalone_stream(id).await.map_err(ManagerError::Inner)?;
        self.open(id, rmcp).await
    }

    async fn resume(
        &self,
        id: &RmcpSessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        // Another process's id, a forged one, or rmcp's priming "0": nothing of it can be resumed here, so a fresh
        // stream is opened. What the client has not confirmed comes from the queue.
        if let Some(ours) = self.shared.epoch.unmark(&last_event_id) {
            let of_request = ours.contains('/');
            match self.shared.inner.resume(id, ours.to_owned()).await {
                Ok(rmcp) if of_request => {
                    let rmcp = Slot::new(rmcp, &self.shared.epoch);
                    return Ok(EitherStream::Request(RequestStream::new(rmcp, self.client(id))));
                }
                Ok(rmcp) => return Ok(EitherStream::Standalone(self.open(id, rmcp).await?)),
                Err(error) => tracing::debug!(%error, "a stream cannot be resumed; a fresh one is opened"),
            }
        }
        let rmcp = self.shared.inner.create_standalone_stream(id).await.map_err(ManagerError::Inner)?;
        Ok(EitherStream::Standalone(self.open(id, rmcp).await?))
    }

    async fn restore_session(&self, id: RmcpSessionId) -> Result<RestoreOutcome<Self::Transport>, Self::Error> {
        self.client(&id);
        self.shared.inner.restore_session(id).await.map_err(ManagerError::Inner)
    }

    fn event_store(&self) -> Option<Arc<dyn EventStore>> {
        self.shared.inner.event_store()
    }
}

/// What a resumed stream can be.
enum EitherStream {
    Standalone(CourierStream),
    Request(RequestStream),
}

impl Stream for EitherStream {
    type Item = ServerSseMessage;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::Standalone(stream) => std::pin::Pin::new(stream).poll_next(context),
            Self::Request(stream) => std::pin::Pin::new(stream).poll_next(context),
        }
    }
}
