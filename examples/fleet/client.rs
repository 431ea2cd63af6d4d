//! Client of one user: rmcp's, with a bearer token. Where its stream breaks, it opens the next one by itself.

use std::collections::BTreeMap;
use std::time::Duration;

use mcp_courier::Cause;
use rmcp::service::{NotificationContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, RoleClient, ServiceExt};
use tokio::sync::watch;

/// Number of arrivals of each step.
type Steps = BTreeMap<u64, usize>;

/// Handler that prints each notification.
struct Printer(String, watch::Sender<Steps>);

impl ClientHandler for Printer {
    #[expect(deprecated, reason = "MCP 2025-11-25 has it")]
    async fn on_logging_message(
        &self,
        params: rmcp::model::LoggingMessageNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        println!("{} gets {}", self.0, params.data);
        self.1.send_modify(|steps| *steps.entry(params.data["step"].as_u64().unwrap_or(0)).or_default() += 1);
    }
}

pub(crate) struct Client {
    user: String,
    received: watch::Receiver<Steps>,
    _service: RunningService<RoleClient, Printer>,
}

impl Client {
    /// Begins a session, and calls the tool that starts a report.
    pub(crate) async fn start_report(url: &str, user: String, token: String, steps: usize) -> Result<Self, Cause> {
        let config = StreamableHttpClientTransportConfig::with_uri(url).auth_header(token);
        let (sender, received) = watch::channel(Steps::new());
        let printer = Printer(user.clone(), sender);
        let service = printer.serve(StreamableHttpClientTransport::from_config(config)).await?;
        let arguments = serde_json::from_value(serde_json::json!({"steps": steps}))?;
        let call = rmcp::model::CallToolRequestParams::new("start_report").with_arguments(arguments);
        service.call_tool(call).await?;
        Ok(Self { user, received, _service: service })
    }

    /// Waits until so many different steps have arrived.
    pub(crate) async fn until_received(&self, count: usize) -> Result<(), Cause> {
        let mut received = self.received.clone();
        let enough = received.wait_for(|steps| steps.len() >= count);
        tokio::time::timeout(Duration::from_secs(60), enough).await.map_err(|_| self.outcome(count).1)??;
        Ok(())
    }

    /// Returns whether each step has arrived once, and says so.
    pub(crate) fn outcome(&self, expected: usize) -> (bool, String) {
        let steps = self.received.borrow();
        let repeated = steps.values().filter(|count| **count > 1).count();
        let said = format!("{} got {} of {expected}, {repeated} of them again", self.user, steps.len());
        (steps.len() == expected && repeated == 0, said)
    }
}
