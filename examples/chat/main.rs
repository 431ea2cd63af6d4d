//! A chat as an MCP server: `cargo run --example chat`.
//!
//! Whatever is said in a room reaches all of its members as `notifications/message`, in the same order, at whatever server
//! of the fleet they are: `cargo run --example chat -- --redis redis://127.0.0.1/ --listen 127.0.0.1:8081`, as often as you
//! like: a client whose server ends or dies goes on at another. The tool `poll` asks all of them by elicitation. A worker reaches them too: see the example `worker`.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use clap::Parser;
use mcp_courier::{Cause, Config, Courier, Principal};
use rmcp_actix_web::transport::{SessionStore, StreamableHttpService};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::chat::Chat;
use crate::rooms::Rooms;
use crate::rooms::memory::MemoryRooms;
use crate::rooms::redis::RedisRooms;
use crate::service::ChatService;
use crate::users::Users;

mod chat;
mod poll;
mod rooms;
mod service;
mod users;

/// A chat as an MCP server.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen. Port 0 picks one.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// The queue. All servers on one Redis with one prefix are one chat.
    #[arg(long, value_name = "URL", default_value = "memory://chat")]
    redis: String,
    /// What all keys in Redis begin with.
    #[arg(long, default_value = "mcp-courier")]
    prefix: String,
    /// Lets in only those with a bearer token, each as the user of that name. May be given more than once.
    #[arg(long = "token", value_name = "USER=TOKEN", value_parser = users::user_and_token)]
    tokens: Vec<(Principal, String)>,
    /// How long members of a server that died stay.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, hide = true, value_parser = clap::value_parser!(u64).range(1..))]
    member_ttl: u64,
    /// How long members have to answer a poll.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, hide = true, value_parser = clap::value_parser!(u64).range(1..=86400))]
    poll_timeout: u64,
}

#[actix_web::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match serve(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<(), Cause> {
    // First of all: from the moment anybody can know of this process, a signal ends it properly.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let config = Config::builder().prefix(args.prefix).build()?;
    let courier = Courier::start(&args.redis, config).await?;
    let member_ttl = Duration::from_secs(args.member_ttl);
    let rooms: Box<dyn Rooms> = if args.redis.starts_with("memory:") {
        Box::new(MemoryRooms::default())
    } else {
        Box::new(RedisRooms::connect(&args.redis, courier.config().prefix(), member_ttl).await?)
    };
    // In Redis sessions are remembered: whose server died, or ends, goes on at another.
    let is_fleet = !args.redis.starts_with("memory:");
    let (chat, gone) = Chat::new(rooms, courier.publisher(), Duration::from_secs(args.poll_timeout), is_fleet);
    let house_stop = CancellationToken::new();
    let house = tokio::spawn(Arc::clone(&chat).keep_house(gone, member_ttl / 4, house_stop.clone()));

    // One for all of actix's workers: sessions live in its manager, and requests come to any worker.
    let sessions_stop = CancellationToken::new();
    let (polled, told) = (Arc::clone(&chat), Arc::clone(&chat));
    let sessions = courier.session_manager().on_session_end(move |session| told.ended(session));
    let store = is_fleet.then(|| sessions.session_store() as Arc<dyn SessionStore>);
    let service = StreamableHttpService::builder()
        .service_factory(Arc::new(move || Ok(ChatService::new(Arc::clone(&chat)))))
        .session_manager(Arc::new(sessions))
        .maybe_session_store(store)
        .cancellation_token(sessions_stop.clone())
        .build();
    let users = Users::new(args.tokens);
    let server = HttpServer::new(move || {
        let mcp = web::scope("/mcp").wrap(from_fn(users::authenticate)).service(service.clone().scope());
        App::new().app_data(users.clone()).service(mcp)
    })
    // A client that closes its stream is noticed at once, and not when two keep-alives have failed.
    .h1_allow_half_closed(false)
    // An answer is written in pieces, and a small one would wait 40 ms for the acknowledgement of the one before.
    .tcp_nodelay(true)
    .disable_signals()
    .shutdown_timeout(5)
    .bind(args.listen)?;
    // There is one: it was bound to one.
    let address = server.addrs().first().copied().unwrap_or(args.listen);
    let server = server.run();
    let handle = server.handle();
    let server = tokio::spawn(server);
    announce(address)?;

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    // Polls end with a result, which is then among what is under way. That is delivered first, and the leases are released.
    // Then the streams end, for which a graceful stop would wait; their clients go on at another server.
    polled.polls().end().await;
    let report = courier.shutdown(Duration::from_secs(5)).await;
    tracing::info!(?report, "the courier has stopped");
    sessions_stop.cancel();
    handle.stop(true).await;
    server.await??;
    house_stop.cancel();
    house.await?;
    Ok(())
}

/// Says where, on stdout and in one line: whoever started this waits for it.
fn announce(address: SocketAddr) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on http://{address}/mcp")?;
    stdout.flush()
}
