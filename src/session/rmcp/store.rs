//! [`CourierSessionStore`]: sessions that outlive the server that holds them.

use std::sync::Arc;

use async_trait::async_trait;
use rmcp::transport::streamable_http_server::session::{
    SessionManager,
    store::{SessionState, SessionStore, SessionStoreError},
};

use super::principal::session_of;
use super::restoring::after_rmcp;
use super::shared::Shared;
use crate::queue::questions::cancel_open;
use crate::session_id::SessionId;

/// rmcp's session store in the queue's own Redis: a client whose server is gone goes on at another with its session id,
/// without initialising again. Made by [`CourierSessionManager::session_store`](super::CourierSessionManager::session_store).
///
/// It remembers the params of `initialize`, nothing else, under `{prefix}:session:{session}`, for
/// [`Config::session_time_to_live`](crate::Config::session_time_to_live) after the last use.
pub struct CourierSessionStore<M>(pub(super) Arc<Shared<M>>);

impl<M> std::fmt::Debug for CourierSessionStore<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CourierSessionStore")
    }
}

/// Opens the gate when the request that restores goes no further, or is dropped.
struct Loading<M: SessionManager> {
    shared: Arc<Shared<M>>,
    session: SessionId,
    is_found: bool,
}

impl<M: SessionManager> Drop for Loading<M> {
    fn drop(&mut self) {
        if !self.is_found {
            let (shared, session) = (Arc::clone(&self.shared), self.session.clone());
            after_rmcp(async move { shared.gates.open(&session) });
        }
    }
}

#[async_trait]
impl<M: SessionManager> SessionStore for CourierSessionStore<M> {
    async fn load(&self, id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        let session = session_of(id)?;
        let mut loading = Loading { shared: Arc::clone(&self.0), session: session.clone(), is_found: false };
        let Some(state) = self.0.queue.recall(&session).await? else { return Ok(None) };
        let state = serde_json::from_str(&state)?;
        // It is restored next, and whoever does that opens the gate.
        loading.is_found = true;
        Ok(Some(state))
    }

    async fn store(&self, id: &str, _state: &SessionState) -> Result<(), SessionStoreError> {
        // It was noted when the session was initialised. Where this fails it is tried again: see `keep`.
        if let Some(client) = self.0.known(id) {
            self.0.remember(&client).await?;
        }
        Ok(())
    }

    async fn delete(&self, id: &str) -> Result<(), SessionStoreError> {
        let session = session_of(id)?;
        self.0.queue.forget(&session, self.0.process).await?;
        self.0.tell_of_end(&session);
        cancel_open(&*self.0.queue, &session, "the session has ended").await?;
        Ok(())
    }
}
