//! Session manager of rmcp with a hook before and after each step of a session's life.
//!
//! A hook stalls the thread, or holds the session until another step is done.

use futures_util::Stream;
use futures_util::future::BoxFuture;
use rmcp::model::{ClientJsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::session::{
    RestoreOutcome, ServerSseMessage, SessionId as RmcpSessionId, SessionManager,
};

/// Place in the life of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Before a step.
    Before(Step),
    /// After a step.
    After(Step),
}

/// Step in the life of a session: a call of rmcp to its session manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `create_session`
    Create,
    /// `initialize_session`
    Initialize,
    /// `has_session`
    Find,
    /// `close_session`
    Close,
    /// `create_stream`
    Request,
    /// `accept_message`
    Accept,
    /// `create_standalone_stream` or `resume`
    Stream,
    /// `restore_session`
    Restore,
}

/// Steps of a restore, and of calls that may come beside a restore.
pub const STEPS: [Step; 7] =
    [Step::Initialize, Step::Find, Step::Close, Step::Request, Step::Accept, Step::Stream, Step::Restore];

type Hook = dyn Fn(Place) -> BoxFuture<'static, ()> + Send + Sync;

/// Session manager with one hook for all steps.
pub struct StagedManager {
    local: LocalSessionManager,
    hook: Box<Hook>,
}

impl std::fmt::Debug for StagedManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StagedManager").finish_non_exhaustive()
    }
}

type Local = LocalSessionManager;
type Result<T> = std::result::Result<T, <Local as SessionManager>::Error>;

impl StagedManager {
    /// Returns a manager that waits for the future of the hook at each place.
    pub fn new(hook: impl Fn(Place) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        let mut local = LocalSessionManager::default();
        local.session_config.keep_alive = None;
        Self { local, hook: Box::new(hook) }
    }

    /// Returns a manager that stalls the thread at a place, for each session.
    pub fn stalling(place: Place, stall: std::time::Duration) -> Self {
        Self::new(move |at| {
            if at == place {
                std::thread::sleep(stall);
            }
            Box::pin(std::future::ready(()))
        })
    }

    async fn staged<T>(&self, step: Step, what: impl Future<Output = T>) -> T {
        (self.hook)(Place::Before(step)).await;
        let done = what.await;
        (self.hook)(Place::After(step)).await;
        done
    }
}

impl SessionManager for StagedManager {
    type Error = <Local as SessionManager>::Error;
    type Transport = <Local as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(RmcpSessionId, Self::Transport)> {
        self.staged(Step::Create, self.local.create_session()).await
    }

    async fn initialize_session(
        &self,
        id: &RmcpSessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage> {
        self.staged(Step::Initialize, self.local.initialize_session(id, message)).await
    }

    async fn has_session(&self, id: &RmcpSessionId) -> Result<bool> {
        self.staged(Step::Find, self.local.has_session(id)).await
    }

    async fn close_session(&self, id: &RmcpSessionId) -> Result<()> {
        self.staged(Step::Close, self.local.close_session(id)).await
    }

    async fn create_stream(
        &self,
        id: &RmcpSessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static> {
        self.staged(Step::Request, self.local.create_stream(id, message)).await
    }

    async fn accept_message(&self, id: &RmcpSessionId, message: ClientJsonRpcMessage) -> Result<()> {
        self.staged(Step::Accept, self.local.accept_message(id, message)).await
    }

    async fn create_standalone_stream(
        &self,
        id: &RmcpSessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static> {
        self.staged(Step::Stream, self.local.create_standalone_stream(id)).await
    }

    async fn resume(
        &self,
        id: &RmcpSessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static> {
        self.staged(Step::Stream, self.local.resume(id, last_event_id)).await
    }

    async fn restore_session(&self, id: RmcpSessionId) -> Result<RestoreOutcome<Self::Transport>> {
        self.staged(Step::Restore, self.local.restore_session(id)).await
    }
}
