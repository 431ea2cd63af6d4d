//! The servers that are compared, each a process of its own.

use std::net::SocketAddr;

use actix_http::Request;
use actix_service::{IntoServiceFactory, Service, ServiceFactory};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Response};
use actix_web::{Error, HttpServer};
use clap::Subcommand;
use mcp_courier::{Config, Courier};
use mcp_courier_testing::process::Process;
use rmcp::ServerHandler;

use super::frames::Frames;
use super::null;
use super::part::Part;
use super::rmcp_alone;

/// Connections that wait to be accepted: all clients of a server that died come at once.
const BACKLOG: u32 = 65_535;

/// Kind of server.
#[derive(Debug, Subcommand)]
pub(crate) enum Kind {
    /// A courier's server, with the default settings.
    Courier {
        /// URL of its queue.
        redis: String,
    },
    /// rmcp's own server.
    Rmcp {
        /// URL of the Redis that keeps its sessions.
        redis: String,
    },
    /// A null courier.
    Null {
        /// Frames that the server sends, as JSON.
        frames: String,
        /// Number of messages that each stream begins with.
        count: usize,
    },
}

#[derive(Debug, Clone)]
struct Handler;

impl ServerHandler for Handler {}

impl Kind {
    /// Serves until the input ends.
    pub(super) async fn serve(self) {
        match self {
            Self::Courier { redis } => {
                let courier = Courier::start(&redis, Config::default()).await.unwrap();
                let server = courier.mcp_server(|| Ok(Handler)).bind("127.0.0.1:0").unwrap();
                announce(server.addresses()[0]);
                server.run_until(input_ends()).await.unwrap();
            }
            Self::Rmcp { redis } => rmcp_alone::serve(&redis).await,
            Self::Null { frames, count } => null::serve(serde_json::from_str(&frames).unwrap(), count).await,
        }
    }
}

/// Serves at a port that is free, with a courier's settings of HTTP, until the input ends.
pub(super) async fn run<F, I, A, B>(http: HttpServer<F, I, A, B>)
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<A, Request> + 'static,
    A: ServiceFactory<Request, Config = AppConfig> + 'static,
    A::Error: Into<Error> + 'static,
    A::InitError: std::fmt::Debug,
    A::Response: Into<Response<B>> + 'static,
    <A::Service as Service<Request>>::Future: 'static,
    A::Service: 'static,
    B: MessageBody + 'static,
{
    let http = http.h1_allow_half_closed(false).tcp_nodelay(true).backlog(BACKLOG).disable_signals();
    let http = http.bind("127.0.0.1:0").unwrap();
    announce(http.addrs()[0]);
    let server = http.run();
    let handle = server.handle();
    actix_rt::spawn(server);
    input_ends().await;
    handle.stop(false).await;
}

fn announce(address: SocketAddr) {
    println!("{}", serde_json::to_string(&address).unwrap());
}

async fn input_ends() {
    let ended = actix_rt::task::spawn_blocking(|| std::io::read_to_string(std::io::stdin()));
    let _ = ended.await;
}

/// A server in a process of its own. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Server {
    part: Part,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn courier(redis: &str) -> Self {
        Self::start(&["courier", redis])
    }

    pub(crate) fn rmcp(redis: &str) -> Self {
        Self::start(&["rmcp", redis])
    }

    /// Starts a null courier whose streams begin with so many messages.
    pub(crate) fn null(frames: &Frames, count: usize) -> Self {
        Self::start(&["null", &serde_json::to_string(frames).unwrap(), &count.to_string()])
    }

    fn start(arguments: &[&str]) -> Self {
        let mut part = Part::start(&[&["serve"], arguments].concat());
        let address = part.read();
        Self { part, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn id(&self) -> u32 {
        self.part.id()
    }

    pub(crate) fn process(&self) -> Process {
        self.part.process()
    }

    /// Kills the server at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.part.kill();
    }
}
