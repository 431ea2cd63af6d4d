//! A real MCP server over HTTP in this process, on a free loopback port, with a courier's session manager mounted.

use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer, web};
use mcp_courier::Courier;
use mcp_courier::session::rmcp::CourierSessionManager;
use rmcp::ServerHandler;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp_actix_web::transport::StreamableHttpService;

#[derive(Clone)]
struct Handler;

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn on_roots_list_changed(&self, context: rmcp::service::NotificationContext<rmcp::RoleServer>) {
        // A way for a client to have rmcp itself send something.
        context.peer.notify_tool_list_changed().await.unwrap();
    }
}

pub(crate) struct McpServer {
    pub(crate) courier: Courier,
    pub(crate) url: String,
    http: ServerHandle,
}

impl McpServer {
    /// Serves with a manager of this courier's.
    pub(crate) fn start(courier: Courier, manager: CourierSessionManager<LocalSessionManager>) -> Self {
        let mcp = StreamableHttpService::builder()
            .service_factory(Arc::new(|| Ok(Handler)))
            .session_manager(Arc::new(manager))
            .stateful_mode(true)
            .build();
        let http = HttpServer::new(move || App::new().service(web::scope("/mcp").service(mcp.clone().scope())))
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
        Self { courier, url, http }
    }
}

impl Drop for McpServer {
    fn drop(&mut self) {
        actix::spawn(self.http.stop(false));
    }
}
