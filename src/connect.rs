//! [`connect`]: chooses a backend by the URL of a queue.

use std::sync::Arc;

use crate::backend::Backend;
#[cfg(feature = "server")]
use crate::backend::memory::MemoryBackend;
use crate::backend::redis::RedisBackend;
use crate::backend::redis::url::shown;
use crate::config::{Config, ConfigError};
use crate::failure::QueueError;
use crate::metrics;

/// Opens the queue that a URL names, and checks that the queue can be used.
///
/// # Errors
/// [`ConnectError`] where the URL cannot be used or the queue cannot be reached.
pub(crate) async fn connect(url: &str, config: Arc<Config>) -> Result<Arc<dyn Backend>, ConnectError> {
    let refused = |rule: &str| Err(ConnectError::Url(ConfigError::new("url", shown(url), rule)));
    metrics::register();
    // Every scheme but that of a queue in memory is one of Redis, or unknown: `redis/url.rs` has the table.
    let queue: Arc<dyn Backend> = match url.split_once("://") {
        #[cfg(feature = "server")]
        Some(("memory", name)) if !name.is_empty() => Arc::new(MemoryBackend::new(name, config)),
        #[cfg(feature = "server")]
        Some(("memory", _)) => return refused("a queue in memory needs a name, as in memory://test"),
        #[cfg(not(feature = "server"))]
        Some(("memory", _)) => {
            return refused("a queue in memory needs the feature `server`, as only a server takes from it");
        }
        _ => Arc::new(RedisBackend::new(url, config).map_err(ConnectError::Url)?),
    };
    queue.check().await?;
    Ok(queue)
}

/// Failure of [`Courier::start`](crate::Courier::start) or [`Publisher::connect`](crate::Publisher::connect).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be used.
    #[error("the queue's URL: {0}")]
    Url(ConfigError),
    /// The queue did not answer, or refused.
    #[error(transparent)]
    Backend(#[from] QueueError),
}
