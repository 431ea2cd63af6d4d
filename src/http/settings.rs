//! [`Settings`]: settings from which an MCP server over HTTP is built.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::ServiceConfig;
use futures_util::future::LocalBoxFuture;

use super::layer::Authenticate;
use super::origin::Access;
use crate::config::ConfigError;
use crate::courier::Courier;

/// Function that makes the handler of a session.
pub(super) type Factory<S> = Arc<dyn Fn() -> Result<S, std::io::Error> + Send + Sync>;

/// Function with which a shutdown begins.
pub(super) type BeforeShutdown = dyn Fn() -> LocalBoxFuture<'static, ()> + Send + Sync;

/// Function that adds routes to each `App` of a server.
pub(super) type Routes = dyn Fn(&mut ServiceConfig) + Send + Sync;

/// Settings of a server, except its session manager.
pub(super) struct Settings<S> {
    pub(super) courier: Courier,
    pub(super) factory: Factory<S>,
    pub(super) access: Access,
    pub(super) authenticate: Option<Arc<Authenticate>>,
    pub(super) before_shutdown: Option<Arc<BeforeShutdown>>,
    pub(super) is_stored: bool,
    pub(super) max_body_bytes: usize,
    pub(super) sse_keep_alive: Duration,
    pub(super) http: HttpSettings,
    pub(super) path: String,
    pub(super) routes: Option<Arc<Routes>>,
    /// First setting that is not possible. Kept because settings are checked only when the server is built.
    pub(super) wrong: Option<ConfigError>,
}

/// Settings of the HTTP server itself.
#[derive(Debug, Clone)]
pub(super) struct HttpSettings {
    pub(super) keep_alive: Duration,
    pub(super) shutdown_timeout: Duration,
    /// `None` where the number of sessions decides.
    pub(super) stream_limit: Option<usize>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self { keep_alive: Duration::from_secs(75), shutdown_timeout: Duration::from_secs(5), stream_limit: None }
    }
}
