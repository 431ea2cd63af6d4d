//! [`McpService`]: MCP endpoint of a server, to be mounted.

use std::sync::Arc;

use actix_http::Request;
use actix_service::IntoServiceFactory;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{AppConfig, Response, ServerHandle, Service, ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::middleware::from_fn;
use actix_web::{Error, HttpServer, Scope, web};
use futures_util::future::BoxFuture;
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp_actix_web::transport::StreamableHttpService;
use tokio_util::sync::CancellationToken;

use super::layer::Layer;
use super::limit::StreamLimit;
use super::settings::{BeforeShutdown, HttpSettings, Settings};
use super::{cors, head};
use crate::courier::Courier;
use crate::question::JSON_RPC_ID;
use crate::session::rmcp::{CourierSessionManager, Restorer, SessionManagerBuilder};

/// MCP endpoint of a server, for an actix `App` with other routes. Made by
/// [`McpServer::build`](super::McpServer::build). Cheap to clone.
///
/// ```no_run
/// use actix_web::{App, HttpServer, web};
/// use mcp_courier::{Config, Courier};
/// # #[derive(Clone)] struct MyServer;
/// # impl rmcp::ServerHandler for MyServer {}
///
/// #[actix_web::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let courier = Courier::start("redis://127.0.0.1/", Config::default()).await?;
///     let mcp = courier.mcp_server(|| Ok(MyServer)).build()?;
///     let mounted = mcp.clone();
///     let app = move || {
///         let health = web::resource("/health").to(async || "ok");
///         App::new().service(mounted.scope("/mcp")).service(health)
///     };
///     mcp.run(HttpServer::new(app).bind("127.0.0.1:8080")?).await?;
///     Ok(())
/// }
/// ```
pub struct McpService<S, M = LocalSessionManager> {
    rmcp: StreamableHttpService<S, CourierSessionManager<M>>,
    manager: Arc<CourierSessionManager<M>>,
    layer: Arc<Layer>,
    limit: Arc<StreamLimit>,
    courier: Courier,
    before_shutdown: Option<Arc<BeforeShutdown>>,
    http: HttpSettings,
    /// Cancelled to end all streams.
    streams: CancellationToken,
}

impl<S, M> Clone for McpService<S, M> {
    fn clone(&self) -> Self {
        Self {
            rmcp: self.rmcp.clone(),
            manager: Arc::clone(&self.manager),
            layer: Arc::clone(&self.layer),
            limit: Arc::clone(&self.limit),
            courier: self.courier.clone(),
            before_shutdown: self.before_shutdown.clone(),
            http: self.http.clone(),
            streams: self.streams.clone(),
        }
    }
}

impl<S, M> std::fmt::Debug for McpService<S, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("McpService")
            .field("access", &self.layer.access)
            .field("http", &self.http)
            .finish_non_exhaustive()
    }
}

impl<S: ServerHandler + 'static, M: SessionManager> McpService<S, M> {
    /// Builds rmcp's handler with the settings that the layer relies on. Checks that the layer makes are switched off
    /// there.
    pub(super) fn new(manager: SessionManagerBuilder<M>, settings: Settings<S>) -> Self {
        let streams = CancellationToken::new();
        let restorer = settings.is_stored.then(|| Restorer::new(Arc::clone(&settings.factory), streams.clone()));
        let manager = Arc::new(manager.restorer(restorer).build());
        let rmcp = StreamableHttpService::builder()
            .service_factory(settings.factory)
            .session_manager(Arc::clone(&manager))
            .maybe_session_store(manager.session_store())
            .cancellation_token(streams.clone())
            .stateful_mode(true)
            // All of its priming events have the id 0, but ids must be unique within a session.
            .disable_sse_retry()
            .sse_keep_alive(settings.sse_keep_alive)
            .max_request_body_bytes(settings.max_body_bytes)
            // The layer checks the host, before everything else.
            .allowed_hosts(Vec::new())
            .on_request_fn(|request, _| head::offer(request))
            .build();
        let asking = Arc::clone(&manager);
        let cancel = move |session: String, question: String, reason: String| {
            let manager = Arc::clone(&asking);
            Box::pin(async move { manager.cancel_question(&session, &question, reason).await })
                as BoxFuture<'static, ()>
        };
        let (closing, answering) = (Arc::clone(&manager), Arc::clone(&manager));
        let layer = Layer {
            access: settings.access,
            authenticate: settings.authenticate,
            max_body_bytes: settings.max_body_bytes,
            question_prefix: JSON_RPC_ID,
            cancel_question: Box::new(cancel),
            early_close: Box::new(move |session, last| closing.decide_early_close(session, last)),
            pong: Box::new(move |session, id| answering.take_pong(session, id)),
        };
        let limit = StreamLimit::new(settings.http.stream_limit, settings.courier.config().session_limit());
        Self {
            rmcp,
            manager,
            layer: Arc::new(layer),
            limit: Arc::new(limit),
            courier: settings.courier,
            before_shutdown: settings.before_shutdown,
            http: settings.http,
            streams,
        }
    }

    /// Returns the endpoint as a scope of an `App`, under a path like `/mcp`. Every `App` of the process mounts the
    /// same sessions.
    pub fn scope(
        &self,
        path: &str,
    ) -> Scope<
        impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>
        + use<S, M>,
    > {
        // Started in a worker of the HTTP server, before the first request. Other servers count this one from now on.
        self.manager.start();
        let (layer, limit, access) = (Arc::clone(&self.layer), Arc::clone(&self.limit), Arc::clone(&self.layer));
        let layer = from_fn(move |request, next| Arc::clone(&layer).serve(request, next));
        let limit = from_fn(move |request, next| Arc::clone(&limit).serve(request, next));
        let head = from_fn(head::scope);
        let cors = from_fn(move |request, next| cors::serve(Arc::clone(&access), request, next));
        web::scope(path).wrap(head).wrap(layer).wrap(limit).wrap(cors).service(self.rmcp.clone().scope())
    }

    /// Applies the settings that MCP needs to an HTTP server: `h1_allow_half_closed(false)`, `tcp_nodelay(true)`, the
    /// keep-alive and the shutdown timeout. [`run`](Self::run) does so by itself. The server's `backlog` must be set
    /// before it is bound. Raise the backlog there where thousands of clients may come at once.
    pub fn apply_settings<F, I, A, B>(&self, http: HttpServer<F, I, A, B>) -> HttpServer<F, I, A, B>
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
        let whole_seconds =
            self.http.shutdown_timeout.as_secs() + u64::from(self.http.shutdown_timeout.subsec_nanos() > 0);
        http.h1_allow_half_closed(false)
            .tcp_nodelay(true)
            .keep_alive(self.http.keep_alive)
            .shutdown_timeout(whole_seconds)
    }

    /// Shuts down in the order that loses no time, for a server that is not [run](Self::run) here. First
    /// [`McpServer::before_shutdown`](super::McpServer::before_shutdown) is called. Then deliveries end and leases are
    /// released, then the streams end, and last the HTTP server stops. Each of these steps takes at most the [shutdown
    /// timeout](super::McpServer::shutdown_timeout).
    ///
    /// # Cancellation
    /// Later steps do not begin.
    pub async fn shut_down(&self, http: &ServerHandle) {
        let timeout = self.http.shutdown_timeout;
        self.courier.note_shutdown();
        if let Some(before) = &self.before_shutdown
            && tokio::time::timeout(timeout, before()).await.is_err()
        {
            tracing::warn!(?timeout, "before_shutdown did not end in time; it is dropped, and the shutdown continues");
        }
        let report = self.courier.shutdown(timeout).await;
        tracing::info!(?report, "the courier has stopped; ending the streams");
        self.streams.cancel();
        http.stop(true).await;
    }
}
