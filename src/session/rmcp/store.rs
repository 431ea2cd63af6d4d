//! [`CourierSessionStore`]: store for sessions that outlive their server.

use std::sync::Arc;

use async_trait::async_trait;
use rmcp::transport::streamable_http_server::session::{
    SessionManager,
    store::{SessionState, SessionStore, SessionStoreError},
};

use super::principal::session_of;
use super::shared::Shared;

/// Session store of rmcp in the queue's own Redis. A client whose server is gone continues at another server with its
/// session id, without initialising again.
///
/// The store keeps only the params of `initialize`, under `{prefix}:session:{session}`, for
/// [`Config::session_time_to_live`](crate::Config::session_time_to_live) after the last use.
pub(super) struct CourierSessionStore<M>(pub(super) Arc<Shared<M>>);

#[async_trait]
impl<M: SessionManager> SessionStore for CourierSessionStore<M> {
    /// Returns `None`. The main service of rmcp must never restore a session by itself: see
    /// [`restorer`](super::restorer).
    async fn load(&self, _id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        Ok(None)
    }

    async fn store(&self, id: &str, _state: &SessionState) -> Result<(), SessionStoreError> {
        // The state was noted when the session was initialised. After a failure housekeeping tries again.
        if let Some(client) = self.0.known(id) {
            self.0.store_session(&client).await?;
        }
        Ok(())
    }

    async fn delete(&self, id: &str) -> Result<(), SessionStoreError> {
        let session = session_of(id)?;
        let shared = Arc::clone(&self.0);
        let is_known = shared.was_served(&session);
        // Closes a session that was restored here. The manager closes the sessions that rmcp's main service serves.
        shared.close_if_here(&session);
        // Runs in a task of its own: a client that hangs up after its DELETE has ended its session nevertheless.
        tokio::spawn(async move { shared.end_everywhere(&session, is_known).await }).await??;
        Ok(())
    }
}
