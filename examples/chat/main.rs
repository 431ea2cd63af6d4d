//! Chat as an MCP server: `cargo run --example chat` prints `listening on http://127.0.0.1:8080/mcp`.
//!
//! Its page is at `http://127.0.0.1:8080/`: an MCP client in the browser.
//!
//! A message in a room reaches all members of the room as `notifications/message`, in the same order. With a Redis the
//! chat is a fleet of any number of servers, each at an address of its own:
//!
//! ```sh
//! cargo run --example chat -- --redis redis://127.0.0.1/
//! cargo run --example chat -- --redis redis://127.0.0.1/ --listen 127.0.0.1:8081
//! ```
//!
//! A client whose server ends or dies continues at another. The tool `poll` asks all members of a room by elicitation.
//! The example `worker` pushes to a client by its session id, which the tool `session_id` returns.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actix_web::middleware::DefaultHeaders;
use actix_web::web::ServiceConfig;
use actix_web::{App, HttpRequest, HttpServer};
use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use mcp_courier::{Cause, Config, Courier, Principal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::chat::Chat;
use crate::rooms::Rooms;
use crate::rooms::memory::MemoryRooms;
use crate::rooms::redis::RedisRooms;
use crate::service::ChatService;
use crate::users::Users;

mod chat;
mod operations;
mod page;
mod poll;
mod rooms;
mod service;
mod users;

/// Path of the MCP endpoint.
const MCP: &str = "/mcp";

/// Number of connections that may wait to be accepted. All clients of a server that died come at once.
const BACKLOG: u32 = 65_535;

/// Response header with the address of the server, by which the page shows where its stream is.
const SERVED_BY: &str = "x-served-by";

/// Chat as an MCP server.
#[derive(Parser)]
struct Args {
    /// Address to listen at. Port 0 picks a free port.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// URL of the queue. All servers on one Redis with one prefix are one chat. A password belongs into the environment.
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true, default_value = "memory://chat")]
    redis: String,
    /// Prefix of all keys in Redis.
    #[arg(long, default_value = "mcp-courier")]
    prefix: String,
    /// Admits only clients with a bearer token, each as the user of that token. May be given more than once.
    #[arg(long = "token", value_name = "USER=TOKEN", value_parser = users::user_and_token)]
    tokens: Vec<(Principal, String)>,
    /// Serves requests to this host besides localhost: the name that clients or a proxy send. May be given more than
    /// once.
    #[arg(long = "allow-host", value_name = "HOST[:PORT]")]
    allow_hosts: Vec<String>,
    /// Serves web pages of this origin. May be given more than once.
    #[arg(long = "allow-origin", value_name = "SCHEME://HOST[:PORT]")]
    allow_origins: Vec<String>,
    /// Time after which the members of a server that died vanish.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, hide = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    member_ttl: u64,
    /// Time that members have to answer a poll.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, hide = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86400))]
    poll_timeout: u64,
}

#[actix_web::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let args = Args::try_parse().unwrap_or_else(|error| without_values(error).exit());
    match serve(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Hides the values that clap quotes in its messages, because a value may be a token or a URL with a password.
fn without_values(mut error: clap::Error) -> clap::Error {
    let mut hidden = vec![ContextKind::InvalidValue, ContextKind::InvalidSubcommand];
    if error.kind() == ErrorKind::UnknownArgument {
        hidden.push(ContextKind::InvalidArg);
    }
    // The advice repeats an argument that begins with a hyphen.
    error.remove(ContextKind::Suggested);
    for kind in hidden {
        if error.get(kind).is_some() {
            error.insert(kind, ContextValue::String("…".to_owned()));
        }
    }
    error
}

async fn serve(args: Args) -> Result<(), Cause> {
    #[cfg(feature = "metrics")]
    let prometheus = operations::Prometheus::install()?;
    let config = Config::builder().prefix(args.prefix).build()?;
    let courier = Courier::start(&args.redis, config).await?;
    let member_ttl = Duration::from_secs(args.member_ttl);
    let rooms: Box<dyn Rooms> = if args.redis.starts_with("memory:") {
        Box::new(MemoryRooms::default())
    } else {
        Box::new(RedisRooms::connect(&args.redis, courier.config().prefix(), member_ttl).await?)
    };
    // Redis remembers the sessions, so the clients of a server that died continue at another.
    let is_fleet = !args.redis.starts_with("memory:");
    let (chat, departures) = Chat::new(rooms, courier.publisher(), Duration::from_secs(args.poll_timeout), is_fleet);
    let stop = CancellationToken::new();
    let housekeeping = tokio::spawn(Arc::clone(&chat).housekeeping(departures, member_ttl / 4, stop.clone()));

    let (polling, departing) = (Arc::clone(&chat), Arc::clone(&chat));
    let mut server = courier
        .mcp_server(move || Ok(ChatService::new(Arc::clone(&chat))))
        .on_session_end(move |session| departing.session_ended(session))
        // Each poll ends with a result, which must be queued before the deliveries end.
        .before_shutdown(move || {
            let chat = Arc::clone(&polling);
            async move { chat.polls().end().await }
        });
    for host in &args.allow_hosts {
        server = server.allow_host(host);
    }
    for origin in &args.allow_origins {
        server = server.allow_origin(origin);
    }
    let needs_token = !args.tokens.is_empty();
    if needs_token {
        let users = Users::new(args.tokens);
        server = server.authenticate(async move |request: &HttpRequest| users.authenticate(request).map(Some));
    }
    let mcp = server.build()?;
    // Known only once the server is bound, where its port is 0.
    let address = Arc::new(OnceLock::new());
    let (mounted, served_by) = (mcp.clone(), Arc::clone(&address));
    let app = move || {
        let served_by = served_by.get().map(SocketAddr::to_string).unwrap_or_default();
        let served_by = DefaultHeaders::new().add((SERVED_BY, served_by));
        let routes = |app: &mut ServiceConfig| {
            operations::routes(&courier, app);
            #[cfg(feature = "metrics")]
            prometheus.route(app);
            page::routes(app, needs_token);
        };
        App::new().wrap(served_by).service(mounted.scope(MCP)).configure(routes)
    };
    let server = mcp.bound(HttpServer::new(app).backlog(BACKLOG).bind(args.listen)?, MCP)?;
    address.get_or_init(|| server.addresses()[0]);
    announce(&server.url())?;
    server.run().await?;
    stop.cancel();
    housekeeping.await?;
    Ok(())
}

/// Prints the URL in one line on stdout, for a program that has started the server and waits for it.
fn announce(url: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "listening on {url}")?;
    stdout.flush()
}
