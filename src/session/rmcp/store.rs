//! [`CourierSessionStore`]: sessions that outlive the server that holds them.

use std::sync::Arc;

use async_trait::async_trait;
use rmcp::transport::streamable_http_server::session::{
    SessionManager,
    store::{SessionState, SessionStore, SessionStoreError},
};

use super::gates::after_rmcp;
use super::principal::session_of;
use super::shared::Shared;

/// rmcp's session store in the queue's own Redis: a client whose server is gone continues at another with its session id,
/// without initialising again.
///
/// The store keeps the params of `initialize`, nothing else, under `{prefix}:session:{session}`, for
/// [`Config::session_time_to_live`](crate::Config::session_time_to_live) after the last use.
pub(super) struct CourierSessionStore<M>(pub(super) Arc<Shared<M>>);

/// Opens the gate when the request that restores goes no further, or is dropped. Where Redis does not say what there is, those
/// who wait are told so: one after the other would wait for it as long.
struct Loading<M: SessionManager> {
    shared: Arc<Shared<M>>,
    id: String,
    /// Whether it is for this request that the gate is shut.
    is_ours: bool,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    Open,
    /// Redis did not say what there is.
    Fail,
    /// Whoever restores it opens the gate.
    Restore,
}

impl<M: SessionManager> Drop for Loading<M> {
    fn drop(&mut self) {
        let (shared, id) = (Arc::clone(&self.shared), std::mem::take(&mut self.id));
        match self.then {
            _ if !self.is_ours => {}
            Then::Open => after_rmcp(async move { shared.gates.open(&id) }),
            Then::Fail => after_rmcp(async move { shared.gates.failed(&id) }),
            Then::Restore => {}
        }
    }
}

#[async_trait]
impl<M: SessionManager> SessionStore for CourierSessionStore<M> {
    async fn load(&self, id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        let Ok(session) = session_of(id) else { return Ok(None) };
        let is_ours = self.0.gates.restoring(id);
        let mut loading = Loading { shared: Arc::clone(&self.0), id: id.to_owned(), is_ours, then: Then::Open };
        let state = match self.0.queue.recall(&session).await {
            Ok(Some(state)) => serde_json::from_str(&state)?,
            Ok(None) => return Ok(None),
            Err(error) => {
                loading.then = Then::Fail;
                return Err(error.into());
            }
        };
        // It is restored next, and whoever does that opens the gate.
        loading.then = Then::Restore;
        Ok(Some(state))
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
        // A task of its own: a client that hangs up behind its DELETE has ended its session all the same.
        tokio::spawn(async move { shared.forget(&session, is_known).await }).await??;
        Ok(())
    }
}
