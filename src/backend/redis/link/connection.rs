//! Connections to Redis. Only this file names the connection types of redis-rs.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    PushKind, RedisConnectionInfo, RedisResult, Value,
};

use crate::backend::LineLimit;
use crate::backend::redis::url::{self, Address, Login, Node, Place};
use crate::config::ConfigError;

/// Longest time to make a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest time of an answer. A blocking command has its blocking time besides. A large request or answer has the time
/// that the [`LineLimit`] allows.
pub(in crate::backend::redis) const ANSWER_TIMEOUT: Duration = LineLimit::SHORTEST;

/// Idle time after which TCP probes a connection, and time between two probes. Three probes without an answer end the
/// connection. Without probes the next command would find a connection that a router has forgotten, and the outcome of
/// that command would be unknown.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Redis, as its URL names it: one server, or those that Sentinels or a cluster name.
#[derive(Clone)]
pub(in crate::backend::redis) struct Server {
    place: Arc<Place>,
    /// Login, database and protocol of each connection.
    settings: RedisConnectionInfo,
    /// Set while the last connection was refused client tracking. All links of a server fare alike, so the log says so
    /// once.
    refuses_tracking: Arc<AtomicBool>,
}

impl Server {
    /// Reads a URL. Makes no connection.
    ///
    /// # Errors
    /// [`ConfigError`], without the parts of the URL that may be secret.
    pub(in crate::backend::redis) fn new(url: &str) -> Result<Self, ConfigError> {
        let Address { place, login, database, tls } = Address::parse(url)?;
        let missing = match (&place, &tls) {
            (_, Some(_)) => Some("TLS is not supported yet"),
            (Place::Sentinel { .. }, _) => Some("Sentinel is not supported yet"),
            (Place::Cluster(_), _) => Some("Redis Cluster is not supported yet"),
            _ => None,
        };
        if let Some(missing) = missing {
            return Err(url::refused(url, missing));
        }
        // Redis 6 speaks RESP3, which carries invalidations and news over the connection that asked for them.
        let settings = settings(&login).set_db(database.into()).set_lib_name("mcp-courier", env!("CARGO_PKG_VERSION"));
        Ok(Self { place: Arc::new(place), settings, refuses_tracking: Arc::default() })
    }

    /// Returns some nodes of the cluster that the URL names; `None` where it names no cluster.
    #[expect(dead_code, reason = "Redis Cluster needs it")]
    pub(in crate::backend::redis) fn seeds(&self) -> Option<&[Node]> {
        if let Place::Cluster(nodes) = &*self.place { Some(nodes) } else { None }
    }

    /// Returns the server at one node: with the same login, TLS and note of refused client tracking.
    #[expect(dead_code, reason = "Redis Cluster needs it")]
    pub(in crate::backend::redis) fn at(&self, node: Node) -> Self {
        Self { place: Arc::new(Place::Tcp(node)), ..self.clone() }
    }

    /// Notes whether a connection was refused client tracking. Returns whether the connection before it was refused
    /// too.
    pub(super) fn note_tracking(&self, is_refused: bool) -> bool {
        self.refuses_tracking.swap(is_refused, Ordering::Relaxed)
    }

    /// Makes a connection. `pushed` is called with each message that Redis sends by itself, before any answer that
    /// comes behind the message.
    ///
    /// # Errors
    /// Redis's refusal, or a refused connection. No command was sent, so nothing was done.
    pub(super) async fn connect(&self, pushed: impl Fn(Push) + Send + Sync + 'static) -> RedisResult<Connection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            // redis-rs's own limit would end blocking commands and large answers too early. The link has a limit of its
            // own.
            .set_response_timeout(None)
            .set_push_sender(move |push: PushInfo| {
                if let Some(push) = Push::read(push) {
                    pushed(push);
                }
                Ok::<(), std::convert::Infallible>(())
            });
        let address = match &*self.place {
            Place::Tcp(Node { host, port }) => ConnectionAddr::Tcp(host.clone(), *port),
            Place::Unix(path) => ConnectionAddr::Unix(path.clone()),
            // `new` refuses these.
            Place::Sentinel { .. } | Place::Cluster(_) => {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "no single server is named").into());
            }
        };
        let connected = self.connect_to(address, &config).await;
        connected.map(Connection).map_err(|error| match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed => error,
            // Every other failure counts as a refused connection, also an answer from a server that is no Redis.
            _ => io::Error::new(io::ErrorKind::ConnectionRefused, error).into(),
        })
    }

    async fn connect_to(
        &self,
        address: ConnectionAddr,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<MultiplexedConnection> {
        let probes = TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(3);
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(probes);
        let info = address.into_connection_info()?.set_redis_settings(self.settings.clone()).set_tcp_settings(tcp);
        Client::open(info)?.get_multiplexed_async_connection_with_config(config).await
    }
}

/// Returns the settings of a connection with this login.
fn settings(login: &Login) -> RedisConnectionInfo {
    let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    if let Some(user) = &login.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &login.password {
        settings = settings.set_password(password);
    }
    settings
}

/// Message that Redis sends by itself.
#[derive(Debug)]
pub(super) enum Push {
    /// Tracked keys have changed.
    Changed(Vec<Vec<u8>>),
    /// All keys may have changed, as after a flush.
    AllChanged,
    /// A message came over a channel.
    Message { channel: Vec<u8>, text: Vec<u8> },
    /// The connection is lost.
    Disconnected,
}

impl Push {
    fn read(PushInfo { kind, data }: PushInfo) -> Option<Self> {
        let bytes = |value| if let Value::BulkString(bytes) = value { Some(bytes) } else { None };
        let mut data = data.into_iter();
        match kind {
            PushKind::Disconnection => Some(Self::Disconnected),
            PushKind::Invalidate => Some(match data.next() {
                Some(Value::Array(keys)) => Self::Changed(keys.into_iter().filter_map(bytes).collect()),
                _ => Self::AllChanged,
            }),
            PushKind::Message => Some(Self::Message { channel: bytes(data.next()?)?, text: bytes(data.next()?)? }),
            _ => None,
        }
    }
}

/// Connection to Redis, which ends with its last clone.
#[derive(Clone)]
pub(super) struct Connection(MultiplexedConnection);

impl Connection {
    /// Sends commands together. The answer to each is its value, or its error as a value.
    ///
    /// # Cancellation
    /// A command that was sent may be done.
    pub(super) async fn send(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        self.0.clone().send_packed_commands(commands, 0, commands.len()).await
    }

    /// Subscribes to channels.
    #[cfg(feature = "rmcp")]
    pub(super) async fn subscribe(&self, channels: &[String]) -> RedisResult<()> {
        self.0.clone().subscribe(channels).await
    }
}
