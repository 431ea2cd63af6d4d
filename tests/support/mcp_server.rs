//! A real MCP server over HTTP in this process, on a free loopback port, with a courier's session manager mounted.
#![allow(dead_code)] // each test file uses a part of it

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpServer, web};
use mcp_courier::session::rmcp::{CourierSessionManager, CourierSessionStore, acting_as};
use mcp_courier::{Courier, Principal, SessionId};
use rmcp::ServerHandler;
use rmcp::model::{JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp_actix_web::transport::{SessionStore, StreamableHttpService};
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Handler {
    initialized: Arc<AtomicUsize>,
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn on_initialized(&self, _context: rmcp::service::NotificationContext<rmcp::RoleServer>) {
        self.initialized.fetch_add(1, Ordering::Relaxed);
    }

    /// One, by the name of the session that asks.
    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        context: rmcp::service::RequestContext<rmcp::RoleServer>,
    ) -> Result<ListToolsResult, rmcp::ErrorData> {
        let session = context.extensions.get::<SessionId>().expect("the session that asks").to_string();
        Ok(ListToolsResult::with_all_items(vec![Tool::new(session, "", Arc::new(JsonObject::new()))]))
    }

    async fn on_roots_list_changed(&self, context: rmcp::service::NotificationContext<rmcp::RoleServer>) {
        // A way for a client to have rmcp itself send something.
        context.peer.notify_tool_list_changed().await.unwrap();
    }
}

pub(crate) struct McpServer {
    pub(crate) courier: Courier,
    pub(crate) url: String,
    /// How many sessions were initialised here, or restored.
    pub(crate) initialized: Arc<AtomicUsize>,
    /// Whether there is no service for sessions that begin, or are restored.
    pub(crate) is_out_of_service: Arc<AtomicBool>,
    http: ServerHandle,
    sessions: CancellationToken,
}

impl McpServer {
    /// Serves with a manager of this courier's.
    pub(crate) fn start(courier: Courier, manager: CourierSessionManager<LocalSessionManager>) -> Self {
        Self::mount(courier, manager, None)
    }

    /// Serves as one of a fleet. Who has a bearer token acts as the user of that name.
    pub(crate) fn of_fleet(courier: Courier, manager: CourierSessionManager<LocalSessionManager>) -> Self {
        let store = manager.session_store();
        Self::mount(courier, manager, Some(store))
    }

    fn mount(
        courier: Courier,
        manager: CourierSessionManager<LocalSessionManager>,
        store: Option<Arc<CourierSessionStore<LocalSessionManager>>>,
    ) -> Self {
        let initialized = Arc::new(AtomicUsize::new(0));
        let handler = Handler { initialized: Arc::clone(&initialized) };
        let is_out_of_service = Arc::new(AtomicBool::new(false));
        let is_out = Arc::clone(&is_out_of_service);
        let factory = move || match is_out.load(Ordering::Relaxed) {
            true => Err(std::io::Error::other("out of service")),
            false => Ok(handler.clone()),
        };
        let sessions = CancellationToken::new();
        let mcp = StreamableHttpService::builder()
            .service_factory(Arc::new(factory))
            .session_manager(Arc::new(manager))
            .maybe_session_store(store.map(|store| store as Arc<dyn SessionStore>))
            .cancellation_token(sessions.clone())
            .stateful_mode(true)
            .build();
        let http = HttpServer::new(move || {
            App::new().service(web::scope("/mcp").wrap(from_fn(authenticate)).service(mcp.clone().scope()))
        })
        .h1_allow_half_closed(false)
        .tcp_nodelay(true)
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let url = format!("http://{}/mcp", http.addrs()[0]);
        let server = http.run();
        let http = server.handle();
        actix::spawn(server);
        Self { courier, url, initialized, is_out_of_service, http, sessions }
    }

    /// As at a SIGTERM: leases are released, streams end, and nothing listens any more.
    pub(crate) async fn shut_down(&self) {
        self.courier.shutdown(Duration::from_secs(5)).await;
        self.sessions.cancel();
        self.http.stop(true).await;
    }
}

async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let header = request.headers().get("authorization").and_then(|header| header.to_str().ok());
    let token = header.and_then(|header| header.strip_prefix("Bearer "));
    acting_as(token.map(|token| Principal::new(token).unwrap()), next.call(request)).await
}

impl Drop for McpServer {
    fn drop(&mut self) {
        actix::spawn(self.http.stop(false));
    }
}
