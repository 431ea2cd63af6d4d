//! rmcp's own server as rmcp-actix-web mounts it, with sessions that another server takes up from Redis.
//!
//! A session that begins or is taken up gets one notification, so that it can be seen when its client is served again.

use std::sync::Arc;

use actix_web::{App, HttpServer};
use mcp_courier::async_trait;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use rmcp::ServerHandler;
use rmcp::model::{CustomNotification, ServerNotification};
use rmcp::service::{NotificationContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::session::store::{SessionState, SessionStore, SessionStoreError};
use rmcp_actix_web::transport::StreamableHttpService;
use serde_json::json;

use super::servers::run;
use crate::support::bare;
use crate::support::messages::now;

#[derive(Debug, Clone)]
struct Handler;

impl ServerHandler for Handler {
    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        let notification = CustomNotification::new("notifications/bench", Some(json!({"made": now()})));
        let notification = ServerNotification::CustomNotification(notification);
        // The client may be gone.
        let _ = context.peer.send_notification(notification).await;
    }
}

/// Sessions under their ids.
struct Store(MultiplexedConnection);

#[async_trait]
impl SessionStore for Store {
    async fn load(&self, id: &str) -> Result<Option<SessionState>, SessionStoreError> {
        let state: Option<String> = self.0.clone().get(id).await?;
        Ok(state.map(|state| serde_json::from_str(&state)).transpose()?)
    }

    async fn store(&self, id: &str, state: &SessionState) -> Result<(), SessionStoreError> {
        Ok(self.0.clone().set(id, serde_json::to_string(state)?).await?)
    }

    async fn delete(&self, id: &str) -> Result<(), SessionStoreError> {
        Ok(self.0.clone().del(id).await?)
    }
}

/// Serves until the input ends.
pub(super) async fn serve(redis: &str) {
    // Else a session with an open stream and without requests would end.
    let mut manager = LocalSessionManager::default();
    manager.session_config.keep_alive = None;
    let service = StreamableHttpService::builder()
        .service_factory(Arc::new(|| Ok(Handler)))
        .session_manager(Arc::new(manager))
        .session_store(Arc::new(Store(bare::connect(redis).await)))
        .stateful_mode(true)
        .build();
    run(HttpServer::new(move || App::new().service(service.clone().scope_with_path("/mcp")))).await;
}
