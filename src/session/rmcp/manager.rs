//! [`CourierSessionManager`]: rmcp's session manager, decorated.
//!
//! *Rules*. rmcp asks `has_session` before every other method for an existing session, and that call waits for moves of
//! the session. Every method then checks the acting user again ([`CourierSessionManager::client`]): rmcp knows no
//! users, and a session of the same id may have begun for another one in between
//! (`nothing_is_done_in_a_session_for_another_than_its_user`). An answer to a request of the courier never reaches
//! rmcp, which would take it for an answer to nobody.

use std::sync::{Arc, Once};

use futures_util::Stream;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::{
    EventStore, ServerSseMessage, SessionId as RmcpSessionId, SessionManager, SessionStore,
};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::client::{Answered, ClientSession};
use super::detachable_stream::DetachableStream;
use super::early_close;
use super::error::ManagerError;
use super::event_id::EventId;
use super::handoff::{hand, is_decided, is_layered, needs_handler};
use super::head::head;
use super::housekeeping;
use super::principal::{acting, session_of};
use super::restore;
use super::sessions::{Found, Moved, result_of};
use super::shared::Shared;
use super::store::CourierSessionStore;
use super::stream::{CourierStream, RequestStream, Standalone, WholeStream};
use crate::session::McpSession;
use crate::story;

/// Number of moves of its session that a request waits for at most, before it is refused.
const MOVES: usize = 8;

/// Session manager for rmcp's Streamable HTTP server that delivers the notifications of each session.
///
/// [`Courier::session_manager`](crate::Courier::session_manager) decorates rmcp's own manager,
/// [`Courier::decorate`](crate::Courier::decorate) another one. Both begin a
/// [`SessionManagerBuilder`](super::SessionManagerBuilder). [`Courier::mcp_server`](crate::Courier::mcp_server) mounts
/// the manager in an HTTP server with the right settings.
///
/// # Streams
/// A client that opens a stream (GET) claims its session and starts the subscriber. The end of the last stream parks
/// the subscriber, and the end of the session stops it. Initialising claims nothing, and neither does any other
/// request: a POST that a balancer sends to another server does not steal the session. The newest stream receives.
/// Older streams stay open and idle; when a stream ends, the newest of the others receives.
///
/// # Confirmation
/// With [`DeliveryLevel::Confirmed`](crate::DeliveryLevel::Confirmed) an MCP `ping` follows each batch down the same
/// stream. Every client answers a ping by itself, and the answer proves that the whole batch has arrived. A client has
/// [`Config::hand_over_timeout`](crate::Config::hand_over_timeout) to read and to answer. After that its stream is cut,
/// and its next stream gets the unconfirmed messages again.
///
/// # Sessions that move
/// With [`session_store`](Self::session_store) mounted too, a client may continue at any server of the fleet with its
/// session id, without initialising again. rmcp restores the session there. The manager guards the restore against
/// concurrent requests and against clients that hang up. Requests and answers may go to any server.
///
/// Behind the layer of [`McpServer`](crate::McpServer) a stream is served before rmcp has restored its session. The
/// restore follows with the session's first request. Without a request it follows by itself after 100 ms, or after at
/// most 5 s while further sessions come. Put [`acting_as`](crate::acting_as) around requests to bind sessions to their
/// users.
///
/// A client that comes back with a `Last-Event-ID` first gets an early close: a stream that ends cleanly, with `retry:
/// 10`. The real stream follows, at whatever server. The reason: Python's SDK gives up after two broken streams in a
/// row without a clean end between them. The id also names the messages that the client has: see
/// [`SessionState::Connected`](crate::SessionState::Connected).
///
/// # Mounting by hand
/// A manager that is mounted in rmcp's own service lacks the layer of [`McpServer`](crate::McpServer). Its events are
/// written as rmcp writes them. In each stream rmcp's first event has the id `0`, unless its `sse_retry` is off. A
/// number that fits neither into 64 bits nor into an `f64` becomes the nearest `f64`.
pub struct CourierSessionManager<M> {
    pub(super) shared: Arc<Shared<M>>,
    /// Done once housekeeping and the listener run.
    kept: Once,
}

impl<M> std::fmt::Debug for CourierSessionManager<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CourierSessionManager")
            .field("sessions", &self.shared.sessions().len())
            .field("idle_timeout", &self.shared.idle_timeout())
            .finish_non_exhaustive()
    }
}

impl<M: SessionManager> CourierSessionManager<M> {
    pub(super) fn new(shared: Shared<M>) -> Self {
        let sessions = Arc::downgrade(&shared.sessions);
        shared.subscribers.add_room(sessions);
        Self { shared: Arc::new(shared), kept: Once::new() }
    }

    /// Returns the session store to mount beside this manager, in the builder of the server. `None` unless the manager
    /// [stores sessions](super::SessionManagerBuilder::store_sessions).
    pub fn session_store(&self) -> Option<Arc<dyn SessionStore>> {
        let store = || Arc::new(CourierSessionStore(Arc::clone(&self.shared)));
        self.shared.is_stored().then(|| store() as Arc<dyn SessionStore>)
    }

    /// Starts the housekeeping and the listener to the fleet, unless they run already, or no runtime runs here. The
    /// first request starts them at the latest.
    pub(crate) fn start(&self) {
        if Handle::try_current().is_ok() {
            self.kept.call_once(|| housekeeping::start(&self.shared));
        }
    }

    /// Returns the acting user's client under an id. Each step checks the user again, because rmcp knows no users. rmcp
    /// would give a session that it has just restored to another user whose request named the same id in that moment.
    pub(super) fn client(&self, id: &RmcpSessionId) -> Result<Arc<ClientSession>, ManagerError<M::Error>> {
        let session = session_of(id)?;
        let client = self.shared.client_of(&session).ok_or(ManagerError::NoSession)?;
        hand(|handoff| handoff.version = client.version());
        Ok(client)
    }

    /// Returns whether the current request must wait until rmcp serves its session.
    fn needs_handler(&self) -> bool {
        // With an event store rmcp replays missed events from its own store.
        needs_handler() || self.shared.inner.event_store().is_some()
    }

    fn too_many_sessions(&self) -> ManagerError<M::Error> {
        hand(|handoff| handoff.is_full = true);
        ManagerError::TooManySessions { limit: self.shared.config.session_limit() }
    }

    /// Opens a standalone stream behind the event that its client names.
    async fn open(
        &self,
        client: Arc<ClientSession>,
        rmcp: DetachableStream,
        resumed: Option<EventId<'_>>,
    ) -> Result<CourierStream, ManagerError<M::Error>> {
        let session = client.session_id().clone();
        let retry = self.shared.reconnect_delay().await;
        // Opened first: the subscriber must find the stream to claim the session for it.
        let stream = Standalone::open(&client, rmcp, resumed, is_layered(), retry);
        let stream = if is_layered() {
            hand(|handoff| handoff.standalone = Some(stream));
            CourierStream::Layered
        } else {
            CourierStream::Whole(WholeStream::new(stream))
        };
        if self.shared.sessions.has_handler(&client) {
            // rmcp may have begun to serve the session only after it was asked for its stream.
            restore::attach(&self.shared, &session.as_str().into(), &client).await;
        } else {
            self.shared.deferred_arrivals.add(&session.as_str().into(), &client);
        }
        self.shared.subscribers.ensure(&session, client as Arc<dyn McpSession>).await?;
        Ok(stream)
    }

    /// Decides whether a stream is closed early, where the layer has not decided yet. A client of an older version
    /// would not come back after an early close.
    fn closes_early(&self, client: &ClientSession, named: &EventId<'_>, last_event_id: &str) -> bool {
        client.touch();
        let early_closes = &self.shared.early_closes;
        let decide = || early_closes.decide(client.session_id().as_str(), named, last_event_id, Instant::now());
        !is_decided() && client.reads_priming() && decide()
    }

    /// Makes the stream of rmcp that resumes nothing of rmcp's.
    async fn rmcp_stream(
        &self,
        id: &RmcpSessionId,
        client: &Arc<ClientSession>,
    ) -> Result<DetachableStream, ManagerError<M::Error>> {
        if !self.shared.sessions.has_handler(client) {
            return Ok(DetachableStream::empty(&self.shared.epoch));
        }
        let rmcp = self.shared.inner.create_standalone_stream(id).await.map_err(ManagerError::Inner)?;
        Ok(DetachableStream::new(rmcp, &self.shared.epoch))
    }
}

impl<M: SessionManager> SessionManager for CourierSessionManager<M> {
    type Error = ManagerError<M::Error>;
    type Transport = M::Transport;

    async fn create_session(&self) -> Result<(RmcpSessionId, Self::Transport), Self::Error> {
        self.start();
        let place = self.shared.make_room().ok_or_else(|| self.too_many_sessions())?;
        let (id, transport) = self.shared.inner.create_session().await.map_err(ManagerError::Inner)?;
        let client = self.shared.client(session_of(&id)?);
        story::moved(client.session_id(), "created");
        self.shared.sessions.add(&id, client, place);
        Ok((id, transport))
    }

    async fn initialize_session(
        &self,
        id: &RmcpSessionId,
        mut message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        let client = self.client(id)?;
        if let Err(error) = client.initialized(&mut message) {
            self.shared.close(id, &client);
            return Err(ManagerError::InitializeTooLarge(error.to_string()));
        }
        message.insert_extension(client.session_id().clone());
        let initialized = self.shared.inner.initialize_session(id, message).await.map_err(ManagerError::Inner)?;
        client.negotiated(&initialized);
        hand(|handoff| handoff.version = client.version());
        Ok(initialized)
    }

    /// Returns whether the session is here, and the acting user's. A session that another server began is loaded first,
    /// and served first where the request needs a handler. All such requests for the session wait for the outcome.
    async fn has_session(&self, id: &RmcpSessionId) -> Result<bool, Self::Error> {
        self.start();
        let Ok(session) = session_of(id) else { return Ok(false) };
        let mut needs_handler = self.needs_handler();
        for _ in 0..MOVES {
            let outcome = match self.shared.sessions.find(id, &session, self.shared.is_stored(), needs_handler) {
                Found::Here(client, is_served) => {
                    // Noted before anything is awaited, so that the session does not end meanwhile for being idle.
                    client.touch();
                    if !is_served {
                        if client.version().is_some() {
                            return Ok(true);
                        }
                        // An earlier version of this crate stored the session without its negotiated version, which
                        // only the handler can name.
                        needs_handler = true;
                        continue;
                    }
                    if self.shared.inner.has_session(id).await.map_err(ManagerError::Inner)? {
                        return Ok(true);
                    }
                    // The decorated manager has ended the session by itself.
                    self.shared.close(id, &client);
                    continue;
                }
                Found::Moving(outcome) => outcome,
                Found::Absent(Some(loading)) => {
                    // The head is kept for the handler that is made later. Where the handler is made now, it gets the
                    // head of that request.
                    let head = if needs_handler { None } else { head() };
                    restore::load(&self.shared, id, session.clone(), head, loading)
                }
                Found::Unserved(client, serving) => {
                    restore::serve(&self.shared, &Handle::current(), client, head(), serving)
                }
                Found::Another | Found::Absent(None) => return Ok(false),
            };
            match result_of(outcome).await {
                Moved::Done => {}
                Moved::Absent => return Ok(false),
                Moved::NoPlace => return Err(self.too_many_sessions()),
                Moved::Failed => return Err(ManagerError::Unavailable),
            }
        }
        Err(ManagerError::Unavailable)
    }

    /// Closes a session that rmcp's main service serves: its client has ended it, or rmcp no longer serves it. Restored
    /// sessions are not closed here, because rmcp names only the id: a session of the same id may have begun since.
    /// The end of their own restore closes them, by their identity.
    async fn close_session(&self, id: &RmcpSessionId) -> Result<(), Self::Error> {
        self.start();
        let Some(client) = self.shared.sessions.created(id) else { return Ok(()) };
        if acting().is_some_and(|principal| client.session_id().principal() != principal.as_ref()) {
            return Ok(());
        }
        if let Some(closed) = self.shared.close(id, &client) {
            // Fails only where the process ends.
            let _ = closed.await;
        }
        Ok(())
    }

    async fn create_stream(
        &self,
        id: &RmcpSessionId,
        mut message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let client = self.client(id)?;
        message.insert_extension(client.session_id().clone());
        let rmcp = self.shared.inner.create_stream(id, message).await.map_err(ManagerError::Inner)?;
        Ok(RequestStream::new(DetachableStream::new(rmcp, &self.shared.epoch), client))
    }

    async fn accept_message(&self, id: &RmcpSessionId, mut message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        let client = self.client(id)?;
        client.touch();
        match client.answered(&message) {
            Answered::Other => {}
            Answered::Ping => return Ok(()),
            Answered::PingOf(process, ping) => return self.forward_confirmation(process, &client, ping).await,
            Answered::Question(request_id, answer) => return self.answer(client, request_id, answer).await,
        }
        // The answer belongs to no request of this process, as no handler is here.
        if !self.shared.sessions.has_handler(&client) {
            return Ok(());
        }
        message.insert_extension(client.session_id().clone());
        self.shared.inner.accept_message(id, message).await.map_err(ManagerError::Inner)
    }

    async fn create_standalone_stream(
        &self,
        id: &RmcpSessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let client = self.client(id)?;
        let rmcp = self.rmcp_stream(id, &client).await?;
        self.open(client, rmcp, None).await
    }

    async fn resume(
        &self,
        id: &RmcpSessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let client = self.client(id)?;
        let named = EventId::parse(&last_event_id);
        // A position of another process, or a forged one, cannot be resumed here, so a fresh stream is opened.
        // Unconfirmed messages come from the queue.
        let ours = named.position.and_then(|position| self.shared.epoch.unmark(position));
        let of_request = !named.is_typed() && ours.is_some_and(|ours| ours.contains('/'));
        if !of_request && self.closes_early(&client, &named, &last_event_id) {
            return Ok(ResumedStream::ClosedEarly(Some(early_close::event(&named))));
        }
        if let Some(ours) = ours.filter(|_| self.shared.sessions.has_handler(&client)) {
            match self.shared.inner.resume(id, ours.to_owned()).await {
                Ok(rmcp) if of_request => {
                    let rmcp = DetachableStream::new(rmcp, &self.shared.epoch);
                    return Ok(ResumedStream::Request(RequestStream::new(rmcp, client)));
                }
                Ok(rmcp) => {
                    let rmcp = DetachableStream::behind(Some(ours), rmcp, &self.shared.epoch);
                    return Ok(ResumedStream::Standalone(self.open(client, rmcp, Some(named)).await?));
                }
                Err(error) => {
                    let session = client.session_id();
                    let error = session.shortened_in(error);
                    tracing::debug!(?session, error, "resuming a stream failed; a fresh one is opened");
                }
            }
        }
        let rmcp = self.rmcp_stream(id, &client).await?;
        Ok(ResumedStream::Standalone(self.open(client, rmcp, Some(named)).await?))
    }

    fn event_store(&self) -> Option<Arc<dyn EventStore>> {
        self.shared.inner.event_store()
    }
}

/// Kinds of a resumed stream.
enum ResumedStream {
    Standalone(CourierStream),
    Request(RequestStream),
    /// Early close, with its event until that was sent.
    ClosedEarly(Option<ServerSseMessage>),
}

impl Stream for ResumedStream {
    type Item = ServerSseMessage;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::Standalone(stream) => std::pin::Pin::new(stream).poll_next(context),
            Self::Request(stream) => std::pin::Pin::new(stream).poll_next(context),
            Self::ClosedEarly(event) => std::task::Poll::Ready(event.take()),
        }
    }
}
