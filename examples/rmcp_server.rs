//! Smallest complete server on rmcp, with one tool. The tool starts a background job and returns at once. The worker of
//! the job reports its progress to the session that called:
//!
//! ```sh
//! cargo run --example rmcp_server
//! ```
//!
//! The server prints `listening on http://127.0.0.1:8080/mcp`. [README.md](README.md) has a client in Python, which
//! calls the tool and prints what the job reports:
//!
//! ```text
//! {'job': 'export', 'done': 1, 'of': 3}
//! {'job': 'export', 'done': 2, 'of': 3}
//! {'job': 'export', 'done': 3, 'of': 3}
//! ```
//!
//! With `REDIS_URL` the job may run in any process, and the server is one of a fleet: give each another address, as in
//! `cargo run --example rmcp_server -- 127.0.0.1:8081`. The server ends at ctrl-c.

use std::env;
use std::error::Error;
use std::time::Duration;

use mcp_courier::{Config, Courier, LoggingLevel, Notification, Publisher, PushError, SessionId};
use rmcp::model::{CallToolResult, JsonObject, ServerCapabilities, ServerConfig};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, tool, tool_handler, tool_router};
use serde_json::json;

/// Handler of one session.
#[derive(Clone)]
struct Server {
    publisher: Publisher,
}

#[tool_router]
impl Server {
    #[tool(description = "Starts an export. Its progress reaches you as notifications/message.")]
    async fn export(&self, context: RequestContext<RoleServer>) -> Result<CallToolResult, ErrorData> {
        let session = context.extensions.get::<SessionId>().cloned();
        let session = session.ok_or_else(|| ErrorData::invalid_request("a session is needed", None))?;
        let answer = json!({"job": "export", "session_id": session});
        let job = work(self.publisher.clone(), session);
        tokio::spawn(async move { job.await.inspect_err(|error| eprintln!("the export has ended early: {error}")) });
        Ok(CallToolResult::structured(answer))
    }
}

#[tool_handler]
impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let mut capabilities = ServerCapabilities::builder().enable_tools().build();
        capabilities.logging = Some(JsonObject::new()); // as MCP asks of those who send notifications/message
        ServerConfig::new(capabilities)
    }
}

/// Worker: needs the session's id only, and no session.
async fn work(publisher: Publisher, session: SessionId) -> Result<(), PushError> {
    for done in 1..=3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let progress = json!({"job": "export", "done": done, "of": 3});
        publisher.push(&session, Notification::message(LoggingLevel::Info, Some("export"), progress)).await?;
    }
    Ok(())
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("REDIS_URL").unwrap_or_else(|_| "memory://rmcp-server".to_owned());
    let address = env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let courier = Courier::start(&url, Config::builder().dead_letters(100).build()?).await?;
    let publisher = courier.publisher();
    let server = courier.mcp_server(move || Ok(Server { publisher: publisher.clone() })).bind(address)?;
    println!("listening on {}", server.url());
    server.run().await?;
    Ok(())
}
