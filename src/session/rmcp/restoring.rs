//! [`Restoring`]: a session that another server began is made one of this process.

use std::sync::Arc;

use rmcp::model::{ClientJsonRpcMessage, GetExtensions};
use rmcp::transport::streamable_http_server::SessionRestoreMarker;
use rmcp::transport::streamable_http_server::session::{SessionId as RmcpSessionId, SessionManager};

use super::gates::after_rmcp;
use super::shared::Shared;

/// A session is being restored. Where that fails, or whoever does it hangs up, what there is of it is closed again: rmcp
/// would serve it without having initialised it.
pub(super) struct Restoring<M: SessionManager> {
    shared: Arc<Shared<M>>,
    id: RmcpSessionId,
    /// Whether rmcp runs its worker already, and so closes the session when that ends.
    is_served: bool,
    is_done: bool,
}

impl<M: SessionManager> Restoring<M> {
    pub(super) fn new(shared: &Arc<Shared<M>>, id: &RmcpSessionId, is_served: bool) -> Self {
        Self { shared: Arc::clone(shared), id: Arc::clone(id), is_served, is_done: false }
    }

    /// It went well, so far as whoever has this is concerned.
    pub(super) fn done(&mut self) {
        self.is_done = true;
    }
}

impl<M: SessionManager> Drop for Restoring<M> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // Without a runtime the process ends.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        match self.shared.known(&self.id) {
            Some(client) => self.shared.close(&self.id, &client, self.is_served),
            // Nothing has begun, or rmcp has closed it already.
            None => {
                let (shared, id) = (Arc::clone(&self.shared), Arc::clone(&self.id));
                after_rmcp(async move { shared.gates.open(&id) });
            }
        }
    }
}

/// Whether rmcp sends it for a client whose session it restores.
pub(super) fn is_restored(message: &ClientJsonRpcMessage) -> bool {
    let extensions = match message {
        ClientJsonRpcMessage::Request(request) => request.request.extensions(),
        ClientJsonRpcMessage::Notification(notification) => notification.notification.extensions(),
        _ => return false,
    };
    extensions.get::<SessionRestoreMarker>().is_some()
}
