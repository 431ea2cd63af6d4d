//! Tests of the session manager under a clock that the tests move.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use rmcp::model::{InitializeRequestParams, InitializeResult};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use tokio::time::Instant;

use super::*;
use crate::backend::memory::MemoryBackend;
use crate::backend::{Fleet, Settled};
use crate::config::Config;
use crate::failure::QueueError;
use crate::health::Room;
use crate::question::Answer;
use crate::session::{EnsureError, McpSession};
use crate::session_id::SessionId;

struct Nobody;

#[async_trait]
impl Subscribers for Nobody {
    async fn ensure(&self, _: &SessionId, _: Arc<dyn McpSession>) -> Result<(), EnsureError> {
        Ok(())
    }

    fn add_room(&self, _: Weak<dyn Room>) {}

    async fn answer(&self, _: &SessionId, _: &str, _: Answer) -> Result<Settled, QueueError> {
        Ok(Settled::NotWaiting)
    }
}

/// Handler that never answers the first `initialize`.
#[derive(Clone, Default)]
struct Silent(Arc<AtomicUsize>);

impl ServerHandler for Silent {
    async fn initialize(
        &self,
        _request: InitializeRequestParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        if self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            std::future::pending::<()>().await;
        }
        Ok(self.get_info())
    }
}

fn manager(name: &str, idle: Duration) -> (Arc<MemoryBackend>, CourierSessionManager<LocalSessionManager>) {
    let config = Config::default();
    let queue = Arc::new(MemoryBackend::new(name, Arc::new(config.clone())));
    let mut local = LocalSessionManager::default();
    local.session_config.keep_alive = None;
    let handler = Silent::default();
    let builder = SessionManagerBuilder::new(local, Arc::clone(&queue) as _, Arc::new(Nobody), &config);
    (queue, builder.idle_timeout(idle).store_sessions(move || Ok(handler.clone())).build())
}

/// Stores a session, as another server does.
async fn store(queue: &MemoryBackend, id: &str) {
    let state = r#"{"initialize_params":{"protocolVersion":"2025-11-25","capabilities":{},
        "clientInfo":{"name":"c","version":"0"}}}"#;
    assert!(queue.store_session(&SessionId::new(id).unwrap(), state).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_never_answers_holds_a_session_up_for_so_long_and_no_longer() {
    let (queue, manager) = manager("rmcp-silent", Duration::from_secs(300));
    store(&queue, "s").await;
    let (id, begun) = ("s".into(), Instant::now());
    let asked = futures_util::future::join_all((0..5).map(|_| manager.has_session(&id))).await;
    assert!(asked.iter().all(|answer| matches!(answer, Err(ManagerError::Unavailable))), "{asked:?}");
    assert!((30..40).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let asked = futures_util::future::join_all((0..5).map(|_| manager.has_session(&id))).await;
    assert!(asked.iter().all(|answer| matches!(answer, Ok(true))), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_is_closed_when_it_has_been_idle_for_its_time_and_restored_when_it_is_asked_for() {
    let idle = Duration::from_secs(300);
    let (queue, manager) = manager("rmcp-idle", idle);
    let id = "s".into();
    store(&queue, "s").await;
    let _ = manager.has_session(&id).await;
    let sessions = || manager.shared.sessions().len();
    for _ in 0..3 {
        assert!(manager.has_session(&id).await.unwrap());
        tokio::time::sleep(idle - Duration::from_secs(1)).await;
        assert_eq!(sessions(), 1, "it has not been idle for long enough");
        assert!(manager.has_session(&id).await.unwrap());
        // Housekeeping runs at least every 15 s.
        tokio::time::sleep(idle + Duration::from_secs(16)).await;
        assert_eq!(sessions(), 0);
    }
}
