//! A server of the fleet, mounted as the README says.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, HttpServer, web};
use clap::Args;
use mcp_courier::{Cause, Courier, Delivery};
use rmcp::ServerHandler;
use rmcp::model::ServerConfig;
use rmcp_actix_web::transport::StreamableHttpService;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::roles::{orders, say};

#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    #[arg(long)]
    redis: String,
    #[arg(long)]
    at_most_once: bool,
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

async fn serve(ServerArgs { redis, at_most_once }: ServerArgs) -> Result<(), Cause> {
    let _ends_with_its_parent = orders();
    let delivery = if at_most_once { Delivery::AtMostOnce } else { Delivery::AtLeastOnce };
    let courier = loop {
        match Courier::start(&redis, crate::config().delivery(delivery).build()?).await {
            Ok(courier) => break courier,
            // Redis may be down just now.
            Err(error) => tracing::warn!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    let manager = Arc::new(courier.session_manager());
    let stop = CancellationToken::new();
    let service = StreamableHttpService::builder()
        .service_factory(Arc::new(|| Ok(Handler)))
        .session_store(manager.session_store())
        .session_manager(manager)
        .stateful_mode(true)
        // So that a client knows within seconds that nobody is there any more.
        .sse_keep_alive(Duration::from_secs(1))
        .cancellation_token(stop.clone())
        .build();
    let server = HttpServer::new(move || App::new().service(web::scope("/mcp").service(service.clone().scope())))
        .h1_allow_half_closed(false)
        .tcp_nodelay(true)
        .workers(1)
        .disable_signals()
        // Longer than a request waits for Redis: actix-http panics where it has to end one by force.
        .shutdown_timeout(10)
        .bind("127.0.0.1:0")?;
    let address = server.addrs().first().copied().ok_or("it is bound to nothing")?;
    let server = server.run();
    let handle = server.handle();
    let server = tokio::spawn(server);
    say(&address.to_string())?;
    signal(SignalKind::terminate())?.recv().await;
    courier.shutdown(Duration::from_secs(2)).await;
    stop.cancel();
    handle.stop(true).await;
    server.await??;
    // Not by returning: the thread that reads the orders would hold nothing up, but a stuck arbiter might.
    std::process::exit(0);
}
