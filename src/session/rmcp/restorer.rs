//! [`Restorer`]: makes rmcp restore one session, in a service that exists for this restore alone.
//!
//! rmcp restores a session where its session manager does not have the session and a session store does. In the service
//! that serves all requests that is not safe under load (lines of rmcp 3.11.0,
//! `transport/streamable_http_server/tower.rs`):
//! - 1536-1546: a restore leaves its entry in the map of pending restores until a task of its own has run. A request in
//!   between gets the outcome of that older restore, whatever has become of the session since.
//! - 1803-1954: a client that hangs up drops the restore half-way. The session then exists, and is not initialised.
//! - 1766-1789: at its end a session is closed by its id. That id may belong to a session that was restored since.
//!
//! Therefore the main service never restores. rmcp asks the crate's session manager first of all whether it has the
//! session ([`has_session`](SessionManager::has_session), 2042-2046 and 2160-2165). The manager answers yes only once
//! the session is restored. The main service has the crate's session store only for DELETE, and that store loads
//! nothing.
//!
//! A request for a session that is not here makes the service of this file serve one GET for the session (2002-2113):
//! - Its map of pending restores is new, and no other request uses it.
//! - Nobody hangs up, as the restore runs in a task of its own.
//! - Its session manager, [`Restoring`], knows this one session, and closes no other.
//!
//! rmcp does the rest as always. It makes the handler, replays `initialize` and `initialized` with its
//! [`SessionRestoreMarker`](rmcp::transport::streamable_http_server::SessionRestoreMarker), and serves the session
//! until its end. The GET reaches [`create_standalone_stream`](SessionManager::create_standalone_stream) only after all
//! of that has succeeded.
//!
//! Tests: `a_restore_is_right_wherever_its_thread_stalls`,
//! `what_rmcp_closes_late_is_not_the_session_that_was_restored_since`, `a_restore_goes_on_when_its_client_hangs_up`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::{Stream, stream};
use http::StatusCode;
use http::header::{ACCEPT, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use rmcp::ServerHandler;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::{
    RestoreOutcome, ServerSseMessage, SessionId as RmcpSessionId, SessionManager, SessionState, SessionStore,
    store::SessionStoreError,
};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio_util::sync::CancellationToken;

use super::client::ClientSession;
use super::error::ManagerError;
use crate::lock::lock;

const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");

/// Restores sessions by rmcp, with the handlers of one factory.
pub(crate) struct Restorer<M>(Box<Run<M>>);

type Run<M> = dyn Fn(Arc<Restoring<M>>, SessionState) -> BoxFuture<'static, Option<StatusCode>> + Send + Sync;

impl<M: SessionManager> Restorer<M> {
    /// Makes a restorer. Cancelling `ends` ends the restored sessions.
    pub(crate) fn new<S: ServerHandler>(
        factory: Arc<dyn Fn() -> Result<S, std::io::Error> + Send + Sync>,
        ends: CancellationToken,
    ) -> Self {
        Self(Box::new(move |restoring, state| {
            let factory = Arc::clone(&factory);
            let mut config = StreamableHttpServerConfig::default();
            config.session_store = Some(Arc::new(Stored(state)));
            config.cancellation_token = ends.clone();
            let request = restoring.request();
            let service = StreamableHttpService::new(move || factory(), restoring, config);
            Box::pin(async move {
                let response = service.handle(request?).await;
                Some(response.status())
            })
        }))
    }

    /// Makes rmcp restore a session from its stored state. [`Restoring::is_served`] says whether the restore succeeded.
    /// The result is the status of rmcp's response, for the log.
    pub(super) async fn run(&self, restoring: &Arc<Restoring<M>>, state: SessionState) -> Option<StatusCode> {
        (self.0)(Arc::clone(restoring), state).await
    }
}

/// Session manager for the restore of one session. rmcp keeps it for as long as rmcp serves the session.
pub(super) struct Restoring<M> {
    /// Decorated manager. Weak, because rmcp keeps this value for as long as it serves the session.
    inner: Weak<M>,
    client: Arc<ClientSession>,
    /// Head of the request that caused the restore. Handlers find the head in `initialize`.
    head: Mutex<Option<Parts>>,
    /// Set once the decorated manager has the session, and must close it again after a failure.
    has_worker: AtomicBool,
    /// Set once rmcp has initialised the session.
    is_served: AtomicBool,
    /// Set once rmcp no longer serves the session.
    has_ended: AtomicBool,
    on_end: Box<dyn Fn() + Send + Sync>,
}

impl<M> Restoring<M> {
    /// Makes the manager. `on_end` is called when rmcp no longer serves the session.
    pub(super) fn new(
        inner: &Arc<M>,
        client: Arc<ClientSession>,
        head: Option<Parts>,
        on_end: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: Arc::downgrade(inner),
            client,
            head: Mutex::new(head),
            has_worker: AtomicBool::new(false),
            is_served: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            on_end: Box::new(on_end),
        }
    }

    /// Returns whether the decorated manager has the session, or had it.
    pub(super) fn has_worker(&self) -> bool {
        self.has_worker.load(Ordering::SeqCst)
    }

    /// Returns whether rmcp serves the session, or served it, and has initialised it.
    pub(super) fn is_served(&self) -> bool {
        self.is_served.load(Ordering::SeqCst)
    }

    /// Returns whether rmcp no longer serves the session.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Returns the request that makes rmcp restore the session.
    fn request(&self) -> Option<http::Request<String>> {
        let id = HeaderValue::from_str(self.client.session_id().as_str()).ok()?;
        let mut request = http::Request::new(String::new());
        request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        request.headers_mut().insert(SESSION_ID, id);
        Some(request)
    }
}

impl<M: SessionManager> Restoring<M> {
    fn inner(&self) -> Result<Arc<M>, ManagerError<M::Error>> {
        self.inner.upgrade().ok_or(ManagerError::NoSession)
    }

    /// Adds the values that handlers find in the extensions of every message of a client.
    fn extend(&self, message: &mut ClientJsonRpcMessage, head: Option<Parts>) {
        message.insert_extension(self.client.session_id().clone());
        if let Some(head) = head {
            message.insert_extension(head);
        }
    }
}

impl<M: SessionManager> SessionManager for Restoring<M> {
    type Error = ManagerError<M::Error>;
    type Transport = M::Transport;

    async fn has_session(&self, _id: &RmcpSessionId) -> Result<bool, Self::Error> {
        Ok(false)
    }

    async fn restore_session(&self, id: RmcpSessionId) -> Result<RestoreOutcome<Self::Transport>, Self::Error> {
        let restored = self.inner()?.restore_session(id).await.map_err(ManagerError::Inner)?;
        self.has_worker.store(matches!(restored, RestoreOutcome::Restored(_)), Ordering::SeqCst);
        Ok(restored)
    }

    async fn initialize_session(
        &self,
        id: &RmcpSessionId,
        mut message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        let introduced = self.client.initialized(&mut message);
        introduced.map_err(|error| ManagerError::InitializeTooLarge(error.to_string()))?;
        self.extend(&mut message, lock(&self.head).clone());
        let initialized = self.inner()?.initialize_session(id, message).await.map_err(ManagerError::Inner)?;
        self.client.negotiated(&initialized);
        Ok(initialized)
    }

    /// Accepts the notification `initialized`. No other message comes here.
    async fn accept_message(&self, id: &RmcpSessionId, mut message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        let head = lock(&self.head).take();
        self.extend(&mut message, head);
        self.inner()?.accept_message(id, message).await.map_err(ManagerError::Inner)
    }

    /// Notes that the session is restored: rmcp calls this method last.
    async fn create_standalone_stream(
        &self,
        _id: &RmcpSessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.is_served.store(true, Ordering::SeqCst);
        Ok(stream::empty())
    }

    /// Notes that rmcp no longer serves the session.
    async fn close_session(&self, _id: &RmcpSessionId) -> Result<(), Self::Error> {
        self.has_ended.store(true, Ordering::SeqCst);
        (self.on_end)();
        Ok(())
    }

    // The service of a restore creates no session, and gets no other request.

    async fn create_session(&self) -> Result<(RmcpSessionId, Self::Transport), Self::Error> {
        Err(ManagerError::NoSession)
    }

    async fn create_stream(
        &self,
        _id: &RmcpSessionId,
        _message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        Err::<stream::Empty<_>, _>(ManagerError::NoSession)
    }

    async fn resume(
        &self,
        _id: &RmcpSessionId,
        _last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        Err::<stream::Empty<_>, _>(ManagerError::NoSession)
    }
}

/// Session store with one state.
struct Stored(SessionState);

#[async_trait]
impl SessionStore for Stored {
    async fn load(&self, _id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        Ok(Some(self.0.clone()))
    }

    async fn store(&self, _id: &str, _state: &SessionState) -> Result<(), SessionStoreError> {
        Ok(())
    }

    async fn delete(&self, _id: &str) -> Result<(), SessionStoreError> {
        Ok(())
    }
}
