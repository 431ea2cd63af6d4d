//! [`CourierSessionStore`]: sessions that outlive the server that holds them.

use std::sync::Arc;

use async_trait::async_trait;
use rmcp::transport::streamable_http_server::session::{
    SessionManager,
    store::{SessionState, SessionStore, SessionStoreError},
};

use super::principal::session_of;
use super::shared::Shared;

/// rmcp's session store in the queue's own Redis: a client whose server is gone continues at another with its session id,
/// without initialising again.
///
/// The store keeps the params of `initialize`, nothing else, under `{prefix}:session:{session}`, for
/// [`Config::session_time_to_live`](crate::Config::session_time_to_live) after the last use.
pub(super) struct CourierSessionStore<M>(pub(super) Arc<Shared<M>>);

#[async_trait]
impl<M: SessionManager> SessionStore for CourierSessionStore<M> {
    /// Returns nothing: where the manager says that it does not have a session, the session cannot be restored either. See
    /// [`restorer`](super::restorer).
    async fn load(&self, _id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        Ok(None)
    }

    async fn store(&self, id: &str, _state: &SessionState) -> Result<(), SessionStoreError> {
        // The state was noted when the session was initialised. Where this fails housekeeping tries again.
        if let Some(client) = self.0.known(id) {
            self.0.remember(&client).await?;
        }
        Ok(())
    }

    async fn delete(&self, id: &str) -> Result<(), SessionStoreError> {
        let session = session_of(id)?;
        let shared = Arc::clone(&self.0);
        let is_known = shared.was_served(&session);
        // A session that was restored here: the manager closes those that rmcp's main service serves.
        shared.close_known(&session);
        // A task of its own: a client that hangs up behind its DELETE has ended its session all the same.
        tokio::spawn(async move { shared.forget(&session, is_known).await }).await??;
        Ok(())
    }
}
