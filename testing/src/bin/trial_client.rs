//! rmcp's client in the trials: prints each thing that rmcp hands to its program, as a line of JSON. A line on standard
//! input makes it call a tool. See scripts/client-trials.

#![expect(deprecated, reason = "2025-11-25 has notifications/message, and is spoken here")]

use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, CustomNotification, ElicitRequestParams, ElicitResult,
    ElicitationAction, FormElicitationCapability, Implementation, LoggingMessageNotificationParam,
    ProgressNotificationParam, ResourceUpdatedNotificationParam, TaskStatusNotificationParams,
    UrlElicitationCapability,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ErrorData, RoleClient, ServiceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tracing_subscriber::filter::LevelFilter;

struct Printer;

impl Printer {
    fn shown(method: &str, hook: &str, data: &Value) {
        println!("{}", json!({"shown": method, "hook": hook, "n": data["n"]}));
    }
}

impl ClientHandler for Printer {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::builder().enable_elicitation().build();
        if let Some(elicitation) = &mut capabilities.elicitation {
            elicitation.form = Some(FormElicitationCapability::default());
            elicitation.url = Some(UrlElicitationCapability::default());
        }
        ClientConfig::new(capabilities, Implementation::new("client", "0"))
    }

    async fn on_logging_message(&self, params: LoggingMessageNotificationParam, _: NotificationContext<RoleClient>) {
        Self::shown("notifications/message", "on_logging_message", &params.data);
    }

    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        Self::shown("notifications/progress", "on_progress", &Value::Null);
    }

    async fn on_resource_updated(&self, _: ResourceUpdatedNotificationParam, _: NotificationContext<RoleClient>) {
        Self::shown("notifications/resources/updated", "on_resource_updated", &Value::Null);
    }

    async fn on_resource_list_changed(&self, _: NotificationContext<RoleClient>) {
        Self::shown("notifications/resources/list_changed", "on_resource_list_changed", &Value::Null);
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        Self::shown("notifications/tools/list_changed", "on_tool_list_changed", &Value::Null);
    }

    async fn on_prompt_list_changed(&self, _: NotificationContext<RoleClient>) {
        Self::shown("notifications/prompts/list_changed", "on_prompt_list_changed", &Value::Null);
    }

    async fn on_task_status(&self, _: TaskStatusNotificationParams, _: NotificationContext<RoleClient>) {
        Self::shown("notifications/tasks/status", "on_task_status", &Value::Null);
    }

    async fn on_custom_notification(&self, notification: CustomNotification, _: NotificationContext<RoleClient>) {
        Self::shown(&notification.method, "on_custom_notification", &Value::Null);
    }

    async fn create_elicitation(
        &self,
        question: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let accept = ElicitResult::new(ElicitationAction::Accept);
        let is_form = matches!(question, ElicitRequestParams::FormElicitationParams { .. });
        println!("{}", json!({"asked": if is_form { "form" } else { "url" }}));
        Ok(if is_form { accept.with_content(json!({"approve": true})) } else { accept })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_max_level(LevelFilter::WARN).with_writer(std::io::stderr).init();
    let url = std::env::args().nth(1).ok_or("usage: client URL")?;
    let client = Printer.serve(StreamableHttpClientTransport::from_uri(url)).await?;
    println!("{}", json!({"ready": true}));
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while lines.next_line().await?.is_some() {
        let called = client.call_tool(CallToolRequestParams::new("session_id")).await;
        println!("{}", json!({"called": called.is_ok(), "error": called.err().map(|error| error.to_string())}));
    }
    client.cancel().await?;
    Ok(())
}
