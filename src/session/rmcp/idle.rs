//! Ends sessions that nobody uses: without an open stream and without a request for a while.

use std::sync::Arc;
use std::time::Duration;

use rmcp::transport::streamable_http_server::session::SessionManager;

use super::manager::Shared;

/// How long a session is kept by default: rmcp's own.
pub(super) const DEFAULT: Duration = Duration::from_secs(300);

/// Looks from time to time, as long as the manager lives.
pub(super) fn watch<M: SessionManager>(shared: &Arc<Shared<M>>) {
    let timeout = shared.idle_timeout;
    let shared = Arc::downgrade(shared);
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval((timeout / 4).max(Duration::from_millis(10)));
        loop {
            ticks.tick().await;
            let Some(shared) = shared.upgrade() else { return };
            for (id, session) in shared.sessions() {
                if session.idle_since().is_some_and(|since| since.elapsed() >= timeout) {
                    tracing::debug!(session = %shorten(&id), "an idle session is ended");
                    shared.end(&id);
                    if let Err(error) = shared.inner.close_session(&id).await {
                        tracing::warn!(session = %shorten(&id), %error, "an idle session could not be closed");
                    }
                }
            }
        }
    });
}

/// A session id as it may be logged.
fn shorten(id: &str) -> String {
    crate::SessionId::new(id).map(|id| id.to_string()).unwrap_or_default()
}
