//! A session of one's own, without rmcp and without Redis: `cargo run --example quickstart`.

use std::sync::Arc;

use mcp_courier::{
    Config, Courier, HandOverError, LoggingLevel, McpSession, Notification, Outbound, SessionId, async_trait,
};
use serde_json::json;
use tokio::sync::mpsc;

/// A client that is a channel. Yours writes to whatever your MCP server calls a session.
struct Client(mpsc::Sender<String>);

#[async_trait]
impl McpSession for Client {
    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        let message = notification.to_json();
        self.0.send(message).await.map_err(|_| HandOverError::Closed)
    }
}

#[actix::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // In the server that holds the session: with "redis://…" the worker below may be any process of the fleet.
    let courier = Courier::start("memory://quickstart", Config::default()).await?;
    let session = SessionId::new("the-id-that-the-client-has")?;
    let (sender, mut client) = mpsc::channel(16);
    courier.ensure_subscriber(&session, Arc::new(Client(sender))).await?;

    // In the worker, which holds no session.
    let publisher = courier.publisher();
    for n in 1..=3 {
        let progress = Notification::progress("task-7", f64::from(n), Some(3.0), None)?;
        publisher.push(&session, progress).await?;
    }
    let done = Notification::message(LoggingLevel::Info, Some("worker"), json!("task 7 is done"));
    publisher.push(&session, done).await?;

    for _ in 0..4 {
        println!("{}", client.recv().await.ok_or("the session has ended")?);
    }
    Ok(())
}
