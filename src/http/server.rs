//! [`McpServer`]: settings of an MCP server over HTTP.

use std::future::Future;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web::ServiceConfig;
use actix_web::{App, Error, HttpRequest, HttpServer};
use rmcp::ServerHandler;
use rmcp::transport::streamable_http_server::session::SessionManager;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;

use super::origin::{Access, Host, Origin};
use super::service::McpService;
use super::serving::{BoundServer, ServeError};
use super::settings::{HttpSettings, Settings};
use crate::config::ConfigError;
use crate::courier::Courier;
use crate::principal::Principal;
use crate::session::rmcp::SessionManagerBuilder;
use crate::session_id::SessionId;

/// Number of connections that may wait to be accepted. The kernel lowers it to the host's limit (`net.core.somaxconn`).
/// A connection that finds no place is tried again after a second.
const BACKLOG: u32 = 65_535;

/// Form of an origin, for the error that refuses another one.
const ORIGIN_RULE: &str = "scheme://host or scheme://host:port, without * and path, in ASCII as browsers send it";

/// Settings of an MCP server over HTTP around rmcp's handler. [`Courier::mcp_server`] begins with the defaults.
///
/// [`serve`](Self::serve) runs the whole server; [`build`](Self::build) makes an [`McpService`] for an actix `App` of your own.
///
/// ```no_run
/// use mcp_courier::{Config, Courier};
/// # #[derive(Clone)] struct MyServer;
/// # impl rmcp::ServerHandler for MyServer {}
///
/// #[actix_web::main]
/// async fn main() -> Result<(), Box<dyn std::error::Error>> {
///     let courier = Courier::start("redis://127.0.0.1/", Config::default()).await?;
///     courier.mcp_server(|| Ok(MyServer)).allow_host("chat.example.com").serve("127.0.0.1:8080").await?;
///     Ok(())
/// }
/// ```
///
/// # Defaults
/// | what | default | why |
/// | --- | --- | --- |
/// | session manager | the courier's | notifications reach the streams that the server holds |
/// | session store | mounted where the queue is in Redis | sessions move between servers |
/// | `Host` header | loopback names only | DNS rebinding |
/// | `Origin` header | 403 for all but pages of this server on loopback; no CORS headers | MCP demands this |
/// | `h1_allow_half_closed` | `false` | the server notices a closed stream in 6 ms, not in 30 s |
/// | `tcp_nodelay` | `true` | an answer takes 1 ms, not 44 ms |
/// | open streams | 12,500, and fewer where descriptors are few | one more gets 503, and not a connection that hangs |
/// | connections that wait to be accepted | as many as the host allows | all clients of a server that died come at once |
/// | keep-alive | 75 s | balancers reuse a connection within 60 s |
/// | signals | SIGTERM, SIGINT | handled before the server answers. A second signal ends the process at once |
/// | shutdown | drain, release leases, end streams, stop HTTP | takes 0.5 s with 50 clients, not 6.9 s |
///
/// # Framing
/// The server frames all responses, and repairs requests:
/// - Events with data carry `event: message`, which some readers need.
/// - The characters U+2028, U+2029 and U+0085 are escaped: many readers end a line there.
/// - A stream begins with one priming event. Clients older than 2025-11-25 report an error for such an event, and get a
///   ping instead.
/// - A request of MCP 2026-07-28, which has no sessions, gets a plain 400: clients then fall back to `initialize`.
/// - Half a surrogate pair in a request becomes U+FFFD. Where the answer to a question still cannot be read, or is too
///   large, its worker gets the failure at once.
#[must_use = "a server does nothing until it is served or built"]
pub struct McpServer<S, M = LocalSessionManager> {
    manager: SessionManagerBuilder<M>,
    settings: Settings<S>,
}

impl<S, M> std::fmt::Debug for McpServer<S, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("McpServer")
            .field("path", &self.settings.path)
            .field("access", &self.settings.access)
            .field("is_stored", &self.settings.is_stored)
            .field("http", &self.settings.http)
            .finish_non_exhaustive()
    }
}

impl Courier {
    /// Begins an MCP server whose sessions get their notifications. `factory` makes the handler of each session. An
    /// error of `factory` refuses the session with 500.
    pub fn mcp_server<S: ServerHandler + 'static>(
        &self,
        factory: impl Fn() -> Result<S, std::io::Error> + Send + Sync + 'static,
    ) -> McpServer<S> {
        let settings = Settings {
            courier: self.clone(),
            factory: Arc::new(factory),
            access: Access::default(),
            authenticate: None,
            before_shutdown: None,
            is_stored: self.is_shared(),
            max_body_bytes: 4 * 1024 * 1024,
            sse_keep_alive: Duration::from_secs(15),
            http: HttpSettings::default(),
            path: "/mcp".to_owned(),
            routes: None,
            wrong: None,
        };
        McpServer { manager: self.session_manager(), settings }
    }
}

impl<S: ServerHandler + 'static, M: SessionManager> McpServer<S, M> {
    /// Allows requests to a host: a name or an address, with or without a port. May be called more than once. Defaults
    /// to `localhost`, `127.0.0.1` and `::1`, which stay allowed. An entry without a port allows all ports.
    ///
    /// Behind a proxy, name the `Host` that the proxy sends. By nginx's default this is the name of its upstream; after
    /// `proxy_set_header Host $host` it is the public name.
    pub fn allow_host(mut self, host: impl AsRef<str>) -> Self {
        match (Host::parse(host.as_ref()), &mut self.settings.access.hosts) {
            (Some(host), Some(hosts)) => hosts.push(host),
            (Some(_), None) => {}
            (None, _) => self.refuse("allow_host", host.as_ref(), "a host or host:port, as in chat.example.com:8443"),
        }
        self
    }

    /// Serves requests to any host. Use this only where a proxy in front checks the host. Otherwise a web page can
    /// reach a server on loopback under a name of its own (DNS rebinding).
    pub fn allow_any_host(mut self) -> Self {
        self.settings.access.hosts = None;
        self
    }

    /// Allows requests from web pages of an origin, as `https://chat.example.com`. May be called more than once.
    ///
    /// Browsers get the CORS headers that such a page needs. Preflights (OPTIONS) are answered before
    /// [`authenticate`](Self::authenticate). The page may send MCP's headers, `Authorization` and those of W3C's trace
    /// context, and may read `Mcp-Session-Id`, `MCP-Protocol-Version`, `WWW-Authenticate` and `Retry-After`. Cookies of
    /// other sites are not admitted: let the page send a token.
    ///
    /// By default a request with an `Origin` gets 403, unless it comes from a page of this server. Such a page has the
    /// server's own loopback name and port, and its browser does not contradict by `Sec-Fetch-Site`. All browsers since
    /// 2023 send that header. Requests without an `Origin` are not checked, which are all but those of browsers.
    ///
    /// [`build`](Self::build) refuses everything but `scheme://host` and `scheme://host:port`: no `*`, no `null`, no
    /// path, and names in ASCII, as browsers send them (`https://xn--bcher-kva.example`).
    pub fn allow_origin(mut self, origin: impl AsRef<str>) -> Self {
        match (Origin::parse(origin.as_ref()), &mut self.settings.access.origins) {
            (Some(origin), Some(origins)) => origins.push(origin),
            (Some(_), None) => {}
            (None, _) => self.refuse("allow_origin", origin.as_ref(), ORIGIN_RULE),
        }
        self
    }

    /// Serves web pages of any origin. Use this only where a proxy in front checks the origin, and sends the CORS headers
    /// itself: the server sends none then.
    pub fn allow_any_origin(mut self) -> Self {
        self.settings.access.origins = None;
        self
    }

    /// Sets how requests are authenticated. `Ok(Some(user))` binds a session that begins to that user: to everyone else
    /// the session does not exist (404). `Ok(None)` serves the request on behalf of nobody. An error is the response.
    /// By default every request is served. See also [`acting_as`](crate::acting_as).
    pub fn authenticate<F>(mut self, authenticate: F) -> Self
    where
        F: AsyncFn(&HttpRequest) -> Result<Option<Principal>, Error> + Send + Sync + 'static,
    {
        let authenticate = Arc::new(authenticate);
        self.settings.authenticate = Some(Arc::new(move |request| {
            let authenticate = Arc::clone(&authenticate);
            Box::pin(async move { authenticate(request).await })
        }));
        self
    }

    /// Sets how long a session without an open stream and without a request is kept: see
    /// [`SessionManagerBuilder::idle_timeout`].
    pub fn idle_timeout(mut self, idle_timeout: Duration) -> Self {
        self.manager = self.manager.idle_timeout(idle_timeout);
        self
    }

    /// Sets how long clients wait before they open their next stream: see [`SessionManagerBuilder::reconnect_delay`].
    pub fn reconnect_delay(mut self, reconnect_delay: Duration) -> Self {
        self.manager = self.manager.reconnect_delay(reconnect_delay);
        self
    }

    /// Sets the function that is called when a session has ended for good: see
    /// [`SessionManagerBuilder::on_session_end`].
    pub fn on_session_end(mut self, on_end: impl Fn(&SessionId) + Send + Sync + 'static) -> Self {
        self.manager = self.manager.on_session_end(on_end);
        self
    }

    /// Replaces the session manager, and with it the three settings above. For a manager that
    /// [decorates](Courier::decorate) one of your own. The server's [`store_sessions`](Self::store_sessions) still
    /// decides whether sessions are stored.
    pub fn session_manager<N: SessionManager>(self, manager: SessionManagerBuilder<N>) -> McpServer<S, N> {
        McpServer { manager, settings: self.settings }
    }

    /// Sets whether sessions are stored in the queue's Redis, so that clients can continue at another server. Defaults
    /// to `true` for a queue in Redis, and to `false` for one in memory.
    pub fn store_sessions(mut self, is_stored: bool) -> Self {
        self.settings.is_stored = is_stored;
        self
    }

    /// Sets the largest request body, in bytes. A larger one gets 413. Defaults to 4 MiB.
    pub fn max_body_bytes(mut self, bytes: usize) -> Self {
        if bytes == 0 {
            self.refuse("max_body_bytes", "0", "at least 1");
        }
        self.settings.max_body_bytes = bytes;
        self
    }

    /// Sets the time between two comments on an idle stream, by which proxies keep the stream open. Defaults to 15 s.
    pub fn sse_keep_alive(mut self, interval: Duration) -> Self {
        if interval.is_zero() {
            self.refuse("sse_keep_alive", "0", "longer than 0");
        }
        self.settings.sse_keep_alive = interval;
        self
    }

    /// Sets how long an idle connection is kept. Defaults to 75 s. The time must exceed the balancer's own: AWS's ALB
    /// and nginx keep idle connections for 60 s. Otherwise a request that a balancer sends just when the server closes
    /// its connection is lost.
    pub fn keep_alive(mut self, keep_alive: Duration) -> Self {
        if keep_alive.is_zero() {
            self.refuse("keep_alive", "0", "longer than 0");
        }
        self.settings.http.keep_alive = keep_alive;
        self
    }

    /// Sets how many streams (GET) may be open at once. A further stream is refused by 503 with `Retry-After`, and a
    /// balancer can then try another server. Defaults to five quarters of
    /// [`Config::session_limit`](crate::Config::session_limit), but to at most three quarters of the descriptors that
    /// the process may open.
    ///
    /// An open stream costs about 100 KB with its session, of which this crate uses 20 KB.
    pub fn stream_limit(mut self, streams: usize) -> Self {
        if streams == 0 {
            self.refuse("stream_limit", "0", "at least 1");
        }
        self.settings.http.stream_limit = Some(streams);
        self
    }

    /// Sets the longest time of each step of a shutdown: for [`before_shutdown`](Self::before_shutdown), then for
    /// deliveries, then for requests. Defaults to 5 s each.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.settings.http.shutdown_timeout = timeout;
        self
    }

    /// Sets the function with which a shutdown begins, while deliveries continue and streams are open. Its future is
    /// dropped, with a warning, if it exceeds [`shutdown_timeout`](Self::shutdown_timeout). Notifications that the
    /// function pushes stay queued where the remaining time does not suffice for their delivery.
    pub fn before_shutdown<F>(mut self, before: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + 'static,
    {
        self.settings.before_shutdown = Some(Arc::new(move || Box::pin(before())));
        self
    }

    /// Sets the path for [`bind`](Self::bind) and [`serve`](Self::serve). Defaults to `/mcp`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.settings.path = path.into();
        if !self.settings.path.starts_with('/') || self.settings.path.contains(['{', '}', '?', '#']) {
            self.refuse("path", &self.settings.path.clone(), "a path that begins with /");
        }
        self
    }

    /// Sets a function that adds further routes to the server of [`bind`](Self::bind) and [`serve`](Self::serve), as for
    /// health, metrics or a page. By default there are none.
    ///
    /// The routes stand beside the MCP endpoint. Neither its checks of `Host` and `Origin` nor
    /// [`authenticate`](Self::authenticate) apply to them.
    ///
    /// ```no_run
    /// # #[derive(Clone)] struct MyServer;
    /// # impl rmcp::ServerHandler for MyServer {}
    /// # async fn serve(courier: mcp_courier::Courier) -> Result<(), Box<dyn std::error::Error>> {
    /// use actix_web::{HttpResponse, web};
    ///
    /// let checked = courier.clone();
    /// let server = courier.mcp_server(|| Ok(MyServer)).routes(move |app| {
    ///     let courier = checked.clone();
    ///     let livez = move || {
    ///         let courier = courier.clone();
    ///         async move {
    ///             let report = courier.check().await;
    ///             if report.is_live() { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() }
    ///         }
    ///     };
    ///     app.route("/livez", web::get().to(livez));
    /// });
    /// server.serve("127.0.0.1:8080").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn routes(mut self, routes: impl Fn(&mut ServiceConfig) + Send + Sync + 'static) -> Self {
        self.settings.routes = Some(Arc::new(routes));
        self
    }

    /// Makes the service to mount in an actix `App` of your own: see [`McpService`].
    ///
    /// # Errors
    /// [`ConfigError`] names the first setting that is not possible.
    pub fn build(self) -> Result<McpService<S, M>, ConfigError> {
        match self.settings.wrong {
            Some(wrong) => Err(wrong),
            None => Ok(McpService::new(self.manager, self.settings)),
        }
    }

    /// Binds an address, as `"127.0.0.1:8080"`; port 0 picks a free one. From then on SIGTERM and SIGINT are handled.
    ///
    /// # Errors
    /// [`ServeError`]: a setting is not possible, the address cannot be bound, or signals cannot be handled.
    pub fn bind(self, address: impl ToSocketAddrs) -> Result<BoundServer, ServeError> {
        let (path, routes) = (self.settings.path.clone(), self.settings.routes.clone());
        let service = self.build()?;
        let mounted = (service.clone(), path.clone());
        let app = move || {
            let add_routes = |app: &mut ServiceConfig| routes.iter().for_each(|add| add(app));
            App::new().configure(add_routes).service(mounted.0.scope(&mounted.1))
        };
        let http = HttpServer::new(app).backlog(BACKLOG).bind(address).map_err(ServeError::Bind)?;
        service.bound(http, path)
    }

    /// Serves until SIGTERM or SIGINT (ctrl-c), and then shuts down in the order that loses no time. Deliveries end and
    /// leases are released, then the streams end, then HTTP stops. A second signal cuts the shutdown short: HTTP stops
    /// at once, and leases expire by themselves. Signals stay handled after the return, so limit the time of what your
    /// program does then.
    ///
    /// # Errors
    /// The same as of [`bind`](Self::bind), and [`ServeError::Http`].
    ///
    /// # Cancellation
    /// The HTTP server stops at once; leases expire by themselves.
    pub async fn serve(self, address: impl ToSocketAddrs) -> Result<(), ServeError> {
        self.bind(address)?.run().await
    }

    fn refuse(&mut self, field: &'static str, value: &str, rule: &str) {
        let wrong = ConfigError::new(field, format!("{value:?}"), rule);
        self.settings.wrong.get_or_insert(wrong);
    }
}
