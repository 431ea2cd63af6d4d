//! [`BoundServer`]: server that listens until a signal ends it.
//!
//! *Signals* are handled from the moment at which the address is bound, not from the first request: a signal during the
//! start would otherwise kill the process without releasing anything
//! (`a_signal_right_after_the_start_ends_the_chat_cleanly`). A second signal ends a shutdown that hangs
//! (`a_second_signal_ends_a_shutdown_that_hangs`).

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;

use actix_http::Request;
use actix_service::IntoServiceFactory;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Response, Server, ServerHandle, Service, ServiceFactory};
use actix_web::{Error, HttpServer};
use futures_util::future::LocalBoxFuture;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::SessionManager;

use super::service::McpService;
use crate::config::ConfigError;

/// Failure to serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A setting is not possible.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// The address cannot be bound.
    #[error("the address cannot be bound: {0}")]
    Bind(#[source] std::io::Error),
    /// Signals cannot be handled, so nothing would shut the server down in order.
    #[error("signals cannot be handled: {0}")]
    Signals(#[source] std::io::Error),
    /// The HTTP server has failed.
    #[error("the HTTP server has failed: {0}")]
    Http(#[source] std::io::Error),
}

/// Function that runs the shutdown of a service, for its HTTP server.
type ShutDown = Box<dyn FnOnce(ServerHandle) -> LocalBoxFuture<'static, ()>>;

/// Server whose address is bound and whose signals are handled. Connections wait until it [runs](Self::run).
#[must_use = "nothing is answered until it runs"]
pub struct BoundServer {
    addresses: Vec<SocketAddr>,
    path: String,
    signals: Signals,
    /// Starts the HTTP server. Called when the server runs, as a started server answers.
    start: Box<dyn FnOnce() -> Server>,
    shut_down: ShutDown,
}

impl std::fmt::Debug for BoundServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundServer").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl BoundServer {
    /// Makes a bound server. `start` runs an HTTP server that is bound, has the service's settings, and handles no
    /// signals.
    pub(super) fn new<S: ServerHandler + 'static, M: SessionManager>(
        service: McpService<S, M>,
        addresses: Vec<SocketAddr>,
        path: String,
        start: impl FnOnce() -> Server + 'static,
    ) -> Result<Self, ServeError> {
        let signals = Signals::new().map_err(ServeError::Signals)?;
        let shut_down = move |handle: ServerHandle| -> LocalBoxFuture<'static, ()> {
            Box::pin(async move { service.shut_down(&handle).await })
        };
        Ok(Self { addresses, path, signals, start: Box::new(start), shut_down: Box::new(shut_down) })
    }

    /// Returns the bound addresses. A name like `localhost` can have two.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the URL of the MCP endpoint at the first address, as `http://127.0.0.1:8080/mcp`.
    pub fn url(&self) -> String {
        let address = self.addresses.first().map(ToString::to_string).unwrap_or_default();
        format!("http://{address}{}", self.path)
    }

    /// Serves until SIGTERM or SIGINT, and shuts down: see [`McpServer::serve`](super::McpServer::serve). A second
    /// signal cuts the shutdown short.
    ///
    /// # Errors
    /// [`ServeError::Http`].
    ///
    /// # Cancellation
    /// The HTTP server stops at once; leases expire by themselves.
    pub async fn run(self) -> Result<(), ServeError> {
        self.run_until(std::future::pending()).await
    }

    /// Serves until a signal comes or `stop` is ready, and shuts down. A signal during the shutdown cuts it short: the
    /// HTTP server stops at once, leases expire by themselves, and the result is `Ok`.
    ///
    /// # Errors
    /// [`ServeError::Http`].
    ///
    /// # Cancellation
    /// The HTTP server stops at once; leases expire by themselves.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { addresses, mut signals, start, shut_down, .. } = self;
        let mut server = pin!(start());
        let guard = StopOnDrop(server.handle());
        tracing::info!(?addresses, "listening");
        tokio::select! {
            ended = &mut server => return ended.map_err(ServeError::Http),
            signal = signals.received() => tracing::info!(signal, "shutting down"),
            () = stop => tracing::info!("shutting down"),
        }
        tokio::select! {
            ((), ended) = futures_util::future::join(shut_down(guard.0.clone()), server) => ended.map_err(ServeError::Http),
            // The runtime keeps its signal handlers. Without this branch only SIGKILL could end a shutdown that hangs.
            signal = signals.received() => {
                tracing::warn!(signal, "a signal came during the shutdown; stopping at once, and leases expire by themselves");
                Ok(())
            }
        }
    }
}

impl<S: ServerHandler + 'static, M: SessionManager> McpService<S, M> {
    /// Runs an HTTP server that is bound and mounts the [scope](Self::scope), as
    /// [`McpServer::serve`](super::McpServer::serve) does.
    ///
    /// # Errors
    /// [`ServeError::Signals`] or [`ServeError::Http`].
    ///
    /// # Cancellation
    /// The HTTP server stops at once; leases expire by themselves.
    pub async fn run<F, I, A, B>(&self, http: HttpServer<F, I, A, B>) -> Result<(), ServeError>
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
        self.bound(http, "")?.run().await
    }

    /// Takes an HTTP server that is bound and mounts the [scope](Self::scope), as
    /// [`McpServer::bind`](super::McpServer::bind) does. Signals are handled from now on, and connections wait until
    /// the result [runs](BoundServer::run). So a program can announce its address in between. `path` is that of the
    /// scope, for [`BoundServer::url`].
    ///
    /// # Errors
    /// [`ServeError::Signals`].
    pub fn bound<F, I, A, B>(
        &self,
        http: HttpServer<F, I, A, B>,
        path: impl Into<String>,
    ) -> Result<BoundServer, ServeError>
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
        let http = self.apply_settings(http).disable_signals();
        BoundServer::new(self.clone(), http.addrs(), path.into(), move || http.run())
    }
}

/// Guard that stops an HTTP server when its future is dropped, because its threads would continue.
struct StopOnDrop(ServerHandle);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        // The command is sent at once, and the future would only wait for the end of the server.
        drop(self.0.stop(false));
    }
}

/// Signals that end a server, handled from the moment this value exists.
#[cfg(unix)]
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self(tokio::signal::windows::ctrl_c()?))
    }

    async fn received(&mut self) -> &'static str {
        let _ = self.0.recv().await;
        "ctrl-c"
    }
}
