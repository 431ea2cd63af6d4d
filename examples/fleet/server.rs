//! Server of the fleet. All servers are alike, and any of them serves any request of any session.

use std::collections::BTreeMap;
use std::env;

use actix_web::error::ErrorUnauthorized;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{Error, HttpRequest};
use mcp_courier::{Cause, Config, Courier, Principal, SessionId};
use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{CallToolResult, ContentBlock, JsonObject, ServerCapabilities, ServerConfig};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler, schemars, tool, tool_handler, tool_router};

use crate::programs::USERS;
use crate::worker::{TASKS, Task};

/// Handler of one session.
struct Reports {
    tasks: ConnectionManager,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Start {
    /// Number of steps.
    steps: usize,
}

#[tool_router]
impl Reports {
    /// Hands the id of the session that calls to a worker. The id names the user too.
    #[tool(description = "Starts a report. Each of its steps reaches you as notifications/message.")]
    async fn start_report(
        &self,
        Parameters(Start { steps }): Parameters<Start>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let session = context.extensions.get::<SessionId>().cloned();
        let session = session.ok_or_else(|| ErrorData::invalid_request("a session is needed", None))?;
        let task = serde_json::json!(Task { session, steps }).to_string();
        let queued = self.tasks.clone().rpush::<_, _, ()>(TASKS, task).await;
        queued.map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        Ok(CallToolResult::success(vec![ContentBlock::text("started")]))
    }
}

#[tool_handler]
impl ServerHandler for Reports {
    fn get_info(&self) -> ServerConfig {
        let mut capabilities = ServerCapabilities::builder().enable_tools().build();
        capabilities.logging = Some(JsonObject::new()); // as MCP asks of those who send notifications/message
        ServerConfig::new(capabilities)
    }
}

/// Serves at a free port, which it prints, until SIGTERM.
pub(crate) async fn serve(redis: &str) -> Result<(), Cause> {
    let users: Vec<(String, String)> = serde_json::from_str(&env::var(USERS)?)?;
    let users: BTreeMap<_, _> = users.into_iter().collect();
    let courier = Courier::start(redis, Config::default()).await?;
    let tasks = redis::Client::open(redis)?.get_connection_manager().await?;
    let server = courier
        .mcp_server(move || Ok(Reports { tasks: tasks.clone() }))
        // Behind a public name: .allow_host("chat.example.com")
        .authenticate(async move |request: &HttpRequest| authenticate(&users, request).map(Some))
        .bind("127.0.0.1:0")?;
    println!("{}", server.addresses()[0].port());
    server.run().await?;
    Ok(())
}

/// Returns the user of a request. The session that begins with the request belongs to that user, and does not exist for
/// others. A server of yours verifies a token of your authorisation server: its signature, expiry, issuer and audience.
fn authenticate(users: &BTreeMap<String, String>, request: &HttpRequest) -> Result<Principal, Error> {
    let header = request.headers().get(AUTHORIZATION).and_then(|header| header.to_str().ok());
    let user = header.and_then(|header| header.strip_prefix("Bearer ")).and_then(|token| users.get(token));
    Principal::new(user.ok_or_else(|| ErrorUnauthorized("a bearer token is needed"))?).map_err(ErrorUnauthorized)
}
