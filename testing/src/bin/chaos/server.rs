//! A server of the fleet, mounted as docs/guide.md says.

use std::time::Duration;

use clap::Args;
use mcp_courier::{Cause, Courier, Delivery};
use rmcp::ServerHandler;
use rmcp::model::ServerConfig;

use crate::roles::{orders, say};

/// Largest number of clients, each of which one server may have.
const MOST_SESSIONS: usize = 1000;

#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    #[arg(long)]
    redis: String,
    #[arg(long)]
    at_most_once: bool,
    /// All sessions share connections.
    #[arg(long)]
    shared: bool,
}

#[derive(Clone)]
struct Handler;

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::default()
    }
}

pub(crate) fn run(args: ServerArgs) -> Result<(), Cause> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()))
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    actix_web::rt::System::new().block_on(serve(args))
}

async fn serve(ServerArgs { redis, at_most_once, shared }: ServerArgs) -> Result<(), Cause> {
    let _ends_with_its_parent = orders();
    let delivery = if at_most_once { Delivery::AtMostOnce } else { Delivery::AtLeastOnce };
    let dedicated = if shared { 0 } else { MOST_SESSIONS };
    let config = crate::config().delivery(delivery).dedicated_limit(dedicated).build()?;
    let courier = loop {
        match Courier::start(&redis, config.clone()).await {
            Ok(courier) => break courier,
            // Redis may be down just now.
            Err(error) => tracing::warn!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let server = courier
        .mcp_server(|| Ok(Handler))
        // So that a client knows within seconds that nobody is there any more.
        .sse_keep_alive(Duration::from_secs(1))
        // Longer than a request waits for Redis: actix-http panics where it has to end one by force.
        .shutdown_timeout(Duration::from_secs(10))
        .bind("127.0.0.1:0")?;
    let address = server.addresses().first().copied().ok_or("it is bound to nothing")?;
    say(&address.to_string())?;
    server.run().await?;
    // Not by returning: the thread that reads the orders would hold nothing up, but a stuck arbiter might.
    std::process::exit(0);
}
