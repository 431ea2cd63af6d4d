//! Connections to Redis: how they are made, how long they may take, and what their errors mean.

use std::future::Future;
use std::io;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{AsyncConnectionConfig, Client, ProtocolVersion, RedisError};

use super::url;
use crate::backend::LineLimit;
use crate::config::ConfigError;
use crate::failure::{Cause, QueueErrorKind};

/// How long a connection may take to be made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long any answer may take. A blocking command may take its blocking time besides, and a take as long as its
/// [`LineLimit`] says.
pub(super) const ANSWER_TIMEOUT: Duration = LineLimit::SHORTEST;

/// A connection that nothing goes over is probed after this time, and so often; three probes without an answer end it. So
/// one that a router has forgotten is not found out by the next command, whose outcome would be uncertain.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// A client for `redis://` and `unix://` URLs.
pub(super) fn client(url: &str) -> Result<Client, ConfigError> {
    let info = url::read(url)?;
    // Redis 6 speaks RESP3; we need it for the invalidations that tell of a takeover.
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("mcp-courier", env!("CARGO_PKG_VERSION"));
    let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(3);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(probes);
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
    Client::open(info).map_err(|error| url::refused(url, "used", &error))
}

/// A connection of one's own, on which commands may block. `invalidated` is called when a tracked key has changed.
pub(super) async fn dedicated(
    client: &Client,
    invalidated: impl Fn() + Send + Sync + 'static,
) -> Result<MultiplexedConnection, RedisError> {
    let pushed = move |push: redis::PushInfo| {
        // A broken connection is doubt like another's claim.
        if matches!(push.kind, redis::PushKind::Invalidate | redis::PushKind::Disconnection) {
            invalidated();
        }
    };
    tracking(client, pushed).await
}

/// A connection of one's own, that hears what Redis says by itself.
pub(super) async fn tracking(
    client: &Client,
    pushed: impl Fn(redis::PushInfo) + Send + Sync + 'static,
) -> Result<MultiplexedConnection, RedisError> {
    connect(client, pushed).await
}

/// A new connection. Its own response timeout knows nothing of blocking commands and of large ones (it would drop the answer
/// of one that lasts longer), so every call brings its own: see [`within`].
pub(super) async fn connect(
    client: &Client,
    pushed: impl Fn(redis::PushInfo) + Send + Sync + 'static,
) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(None)
        .set_push_sender(move |push: redis::PushInfo| {
            pushed(push);
            Ok::<(), std::convert::Infallible>(())
        });
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    connected.map_err(|error| match error.kind() {
        redis::ErrorKind::Server(_) | redis::ErrorKind::Extension | redis::ErrorKind::AuthenticationFailed => error,
        // However it failed, also by what is no Redis: no command of ours was sent, so none can have been done.
        _ => io::Error::new(io::ErrorKind::ConnectionRefused, error).into(),
    })
}

/// Waits for an answer, at most for `block` and [`ANSWER_TIMEOUT`].
pub(super) async fn within<T>(
    block: Duration,
    answer: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, QueueErrorKind> {
    match tokio::time::timeout(block + ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(kind(error)),
        Err(_) => Err(QueueErrorKind::Broken(format!("no answer within {:?}", block + ANSWER_TIMEOUT).into())),
    }
}

/// What an error of redis-rs means to us.
pub(super) fn kind(error: RedisError) -> QueueErrorKind {
    match error.kind() {
        redis::ErrorKind::Server(_) | redis::ErrorKind::Extension | redis::ErrorKind::AuthenticationFailed => {
            QueueErrorKind::Refused(said(&error))
        }
        // No connection was made: nothing can have been done.
        _ if error.is_connection_refusal() => QueueErrorKind::Unreachable(cause(error)),
        _ => QueueErrorKind::Broken(cause(error)),
    }
}

/// What Redis answered, in its own words: redis-rs has words of its own for some codes.
pub(super) fn said(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {}", url::without_arguments(detail)),
        _ => error.to_string(),
    }
}

/// Returns whether an error says that the connection itself is broken or silent, and not that a command was refused.
pub(super) fn is_broken(error: &RedisError) -> bool {
    !matches!(error.kind(), redis::ErrorKind::Server(_) | redis::ErrorKind::Extension)
}

fn cause(error: RedisError) -> Cause {
    Box::new(error)
}
