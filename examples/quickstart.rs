//! Server, worker and client in one process, without Redis and without rmcp:
//!
//! ```sh
//! cargo run --example quickstart
//! ```
//!
//! Four notifications appear, one a line, each as the JSON-RPC message that the client gets. Then the program ends.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use mcp_courier::{
    Config, Courier, HandOverError, LoggingLevel, McpSession, Notification, Outbound, Publisher, SessionId, async_trait,
};
use serde_json::json;
use tokio::sync::mpsc;

/// Session whose client reads from a channel. Yours writes to the client's stream instead.
struct Client(mpsc::Sender<String>);

#[async_trait]
impl McpSession for Client {
    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        self.0.send(notification.to_json()).await.map_err(|_| HandOverError::Closed)
    }
}

/// Worker: holds no session, and knows only the session's id. With `redis://…` a worker may be in any process.
async fn work(publisher: Publisher, session: SessionId) -> Result<(), Box<dyn Error>> {
    for n in 1..=3 {
        // Each step is to appear. Else one that still waits when no server owns the session yet is replaced by the next.
        let step = Notification::progress("export-7", f64::from(n), Some(3.0), None)?.without_collapse();
        publisher.push(&session, step).await?;
    }
    let done = Notification::message(LoggingLevel::Info, Some("worker"), json!("export 7 is done"));
    publisher.push(&session, done).await?;
    Ok(())
}

#[actix::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The server has a courier, and one subscriber for each session of a client.
    let courier = Courier::start("memory://quickstart", Config::default()).await?;
    let session = SessionId::new("the-id-that-the-client-has")?;
    let (sender, mut stream) = mpsc::channel(16);
    courier.ensure_subscriber(&session, Arc::new(Client(sender))).await?;

    work(courier.publisher(), session).await?;

    // The client prints what it gets, in the order of the pushes.
    for _ in 0..4 {
        println!("{}", stream.recv().await.ok_or("the session has ended")?);
    }
    courier.shutdown(Duration::from_secs(5)).await;
    Ok(())
}
