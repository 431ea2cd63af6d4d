//! MCP server over HTTP in this process, on a free loopback port, over a courier's session manager.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpServer};
use mcp_courier::{Courier, McpServer as ServerSettings, McpService, Principal, SessionId, SessionManagerBuilder};
use rmcp::ServerHandler;
use rmcp::model::{JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool};
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;

/// Settings of a server before it is built.
pub type Builder = ServerSettings<Handler>;

/// Handler of all sessions of a server.
#[derive(Debug, Clone, Default)]
pub struct Handler {
    initialized: Arc<AtomicUsize>,
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn on_initialized(&self, _context: rmcp::service::NotificationContext<rmcp::RoleServer>) {
        self.initialized.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns one tool, which has the id of the session that asks as its name.
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

/// Server that runs until this is dropped.
#[derive(Debug)]
pub struct McpServer<M = LocalSessionManager> {
    /// Courier behind the sessions.
    pub courier: Courier,
    /// URL of the MCP endpoint.
    pub url: String,
    /// Number of sessions that were initialised or restored here.
    pub initialized: Arc<AtomicUsize>,
    /// Makes the service fail for sessions that begin, or that are restored.
    pub is_out_of_service: Arc<AtomicBool>,
    http: ServerHandle,
    service: McpService<Handler, M>,
}

impl McpServer {
    /// Serves with further settings.
    pub fn with(courier: Courier, set: impl FnOnce(Builder) -> Builder) -> Self {
        let manager = courier.session_manager();
        Self::mount(courier, manager, false, 1, set)
    }
}

impl<M: SessionManager> McpServer<M> {
    /// Serves with a session manager of this courier.
    pub fn start(courier: Courier, manager: SessionManagerBuilder<M>) -> Self {
        Self::mount(courier, manager, false, 1, |server| server)
    }

    /// Serves as one of a fleet. A client with a bearer token acts as the user of that name.
    pub fn of_fleet(courier: Courier, manager: SessionManagerBuilder<M>) -> Self {
        Self::mount(courier, manager, true, 1, |server| server)
    }

    /// Serves as one of a fleet, with several threads.
    pub fn of_fleet_with(courier: Courier, manager: SessionManagerBuilder<M>, workers: usize) -> Self {
        Self::mount(courier, manager, true, workers, |server| server)
    }

    fn mount(
        courier: Courier,
        manager: SessionManagerBuilder<M>,
        is_stored: bool,
        workers: usize,
        set: impl FnOnce(ServerSettings<Handler, M>) -> ServerSettings<Handler, M>,
    ) -> Self {
        let initialized = Arc::new(AtomicUsize::new(0));
        let handler = Handler { initialized: Arc::clone(&initialized) };
        let is_out_of_service = Arc::new(AtomicBool::new(false));
        let is_out = Arc::clone(&is_out_of_service);
        let factory = move || match is_out.load(Ordering::Relaxed) {
            true => Err(std::io::Error::other("out of service")),
            false => Ok(handler.clone()),
        };
        let server = courier.mcp_server(factory).session_manager(manager).store_sessions(is_stored);
        let service = set(server.authenticate(bearer)).build().unwrap();
        let mounted = service.clone();
        let http = HttpServer::new(move || App::new().service(mounted.scope("/mcp")));
        let http = service.apply_settings(http).workers(workers).disable_signals().bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", http.addrs()[0]);
        let server = http.run();
        let http = server.handle();
        actix::spawn(server);
        Self { courier, url, initialized, is_out_of_service, http, service }
    }

    /// Shuts down as at a SIGTERM: releases the leases, ends the streams, and stops listening.
    pub async fn shut_down(&self) {
        self.service.shut_down(&self.http).await;
    }
}

/// Returns the user whose name is the token.
async fn bearer(request: &HttpRequest) -> Result<Option<Principal>, actix_web::Error> {
    let header = request.headers().get("authorization").and_then(|header| header.to_str().ok());
    let token = header.and_then(|header| header.strip_prefix("Bearer "));
    Ok(token.map(|token| Principal::new(token).unwrap()))
}

impl<M> Drop for McpServer<M> {
    fn drop(&mut self) {
        actix::spawn(self.http.stop(false));
    }
}
