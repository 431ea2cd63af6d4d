//! Connections to Redis. Only this file names the connection types of redis-rs.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo,
    PushKind, RedisConnectionInfo, RedisError, RedisResult, Value,
};

#[cfg(feature = "sentinel")]
use self::sentinel::{FOLLOW_EVERY, Office, Sentinels};
#[cfg(feature = "tls")]
use self::tls::Tls;
use crate::backend::LineLimit;
use crate::backend::redis::url::{self, Address, Login, Node, Place};
use crate::config::ConfigError;

#[cfg(feature = "sentinel")]
mod sentinel;
#[cfg(feature = "tls")]
mod tls;

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
    target: Arc<Target>,
    /// Login, database and protocol of each connection.
    settings: RedisConnectionInfo,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    /// Set while the last connection was refused client tracking. All links of a server fare alike, so the log says so
    /// once.
    refuses_tracking: Arc<AtomicBool>,
}

/// Place to connect to.
enum Target {
    Tcp(Node),
    Unix(PathBuf),
    /// Sentinels, and the settings of a connection to one of them.
    #[cfg(feature = "sentinel")]
    Sentinels(Sentinels, RedisConnectionInfo),
}

impl Server {
    /// Takes the address that a URL names, and reads the files that the address names. Makes no connection.
    ///
    /// # Errors
    /// [`ConfigError`], without the parts of the URL that may be secret.
    pub(super) fn new(url: &str, address: Address) -> Result<Self, ConfigError> {
        let refused = |rule: String| url::refused(url, rule);
        let Address { place, login, database, tls } = address;
        let target = match place {
            Place::Tcp(node) => Target::Tcp(node),
            Place::Unix(path) => Target::Unix(path),
            #[cfg(feature = "sentinel")]
            Place::Sentinel { sentinels, service, login } => {
                // All versions of Sentinel speak RESP2.
                let settings = settings(&login).set_protocol(ProtocolVersion::RESP2);
                Target::Sentinels(Sentinels::new(sentinels, service), settings)
            }
            #[cfg(not(feature = "sentinel"))]
            Place::Sentinel { .. } => return Err(refused("Sentinel needs the crate's feature `sentinel`".to_owned())),
            #[cfg(feature = "cluster")]
            // The servers of all nodes are made of this one by `at`.
            Place::Cluster(mut nodes) => Target::Tcp(nodes.swap_remove(0)),
            #[cfg(not(feature = "cluster"))]
            Place::Cluster(_) => return Err(refused("Redis Cluster needs the crate's feature `cluster`".to_owned())),
        };
        #[cfg(feature = "tls")]
        let tls = tls.as_ref().map(Tls::new).transpose().map_err(refused)?;
        #[cfg(not(feature = "tls"))]
        if tls.is_some() {
            return Err(refused("TLS needs the crate's feature `tls`".to_owned()));
        }
        Ok(Self {
            target: Arc::new(target),
            // Redis 6 speaks RESP3, which carries invalidations and news over the connection that asked for them.
            settings: settings(&login).set_db(database.into()),
            #[cfg(feature = "tls")]
            tls,
            refuses_tracking: Arc::default(),
        })
    }

    /// Returns the server at one node: with the same login, TLS and note of refused client tracking.
    #[cfg(feature = "cluster")]
    pub(in crate::backend::redis) fn at(&self, node: Node) -> Self {
        Self { target: Arc::new(Target::Tcp(node)), ..self.clone() }
    }

    /// Has connections to an old primary end once a Sentinel names another one: in a task of this runtime, until the
    /// last clone of the server is dropped. Does nothing where the URL names no Sentinels.
    #[cfg(feature = "sentinel")]
    pub(in crate::backend::redis) fn follow_primary(&self) {
        if !matches!(&*self.target, Target::Sentinels(..)) {
            return;
        }
        let server = self.clone();
        tokio::spawn(async move {
            let mut kept = None;
            while let Target::Sentinels(sentinels, _) = &*server.target {
                tokio::time::sleep(FOLLOW_EVERY).await;
                // Only the clone of this task is left.
                if Arc::strong_count(&server.target) == 1 {
                    return;
                }
                sentinels.follow(&Opener { server: &server, config: config() }, &mut kept).await;
            }
        });
    }

    /// Notes whether a connection was refused client tracking. Returns whether the connection before it was refused
    /// too.
    pub(super) fn note_tracking(&self, is_refused: bool) -> bool {
        self.refuses_tracking.swap(is_refused, Ordering::Relaxed)
    }

    /// Makes a connection. `pushed` is called with each message that Redis sends by itself, before any answer that
    /// comes behind the message. `probe` is a write that changes nothing. It tells whether a server that a Sentinel
    /// names is a primary.
    ///
    /// # Errors
    /// Redis's refusal, or a refused connection. No command but the probe was sent, so nothing was done.
    pub(super) async fn connect(
        &self,
        #[cfg_attr(
            not(feature = "sentinel"),
            expect(unused_variables, reason = "only servers that Sentinels name get it")
        )]
        probe: &Pipeline,
        pushed: impl Fn(Push) + Send + Sync + 'static,
    ) -> RedisResult<Connection> {
        // Set at once where no server can turn out to be the wrong one. The end of a wrong one's connection is no news.
        let is_chosen = Arc::new(AtomicBool::new(matches!(&*self.target, Target::Tcp(_) | Target::Unix(_))));
        let config = config().set_push_sender({
            let is_chosen = Arc::clone(&is_chosen);
            move |push: PushInfo| {
                if let (true, Some(push)) = (is_chosen.load(Ordering::Acquire), Push::read(push)) {
                    pushed(push);
                }
                Ok::<(), std::convert::Infallible>(())
            }
        });
        let opener = Opener { server: self, config };
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, async {
            match &*self.target {
                Target::Tcp(node) => opener.server(node).await,
                Target::Unix(path) => opener.socket(path).await,
                #[cfg(feature = "sentinel")]
                Target::Sentinels(sentinels, _) => sentinels.connect(&opener, probe).await,
            }
        });
        let connected = connected.await.unwrap_or_else(|_| Err(self.late().into()));
        is_chosen.store(true, Ordering::Release);
        connected.map_err(|error: RedisError| match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed => error,
            // Every other failure counts as a refused connection, also an answer from a server that is no Redis.
            _ => io::Error::new(io::ErrorKind::ConnectionRefused, error).into(),
        })
    }
}

impl Server {
    /// Returns the error of an attempt that took too long.
    fn late(&self) -> io::Error {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            let text = format!("no answer within {CONNECT_TIMEOUT:?}; a port that does not speak TLS gives none");
            return io::Error::new(io::ErrorKind::TimedOut, text);
        }
        io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {CONNECT_TIMEOUT:?}"))
    }
}

/// Makes the connections of one attempt.
pub(super) struct Opener<'a> {
    server: &'a Server,
    config: AsyncConnectionConfig,
}

impl Opener<'_> {
    /// Connects to a server of Redis.
    pub(super) async fn server(&self, node: &Node) -> RedisResult<Connection> {
        self.open(node, &self.server.settings, &self.config).await
    }

    /// Connects to a Sentinel.
    #[cfg(feature = "sentinel")]
    pub(super) async fn sentinel(&self, node: &Node) -> RedisResult<Connection> {
        let settings = match &*self.server.target {
            Target::Sentinels(_, settings) => settings,
            _ => &self.server.settings,
        };
        self.open(node, settings, &config()).await
    }

    async fn socket(&self, path: &Path) -> RedisResult<Connection> {
        plain(ConnectionAddr::Unix(path.to_owned()), &self.server.settings, &self.config).await
    }

    async fn open(
        &self,
        node: &Node,
        settings: &RedisConnectionInfo,
        config: &AsyncConnectionConfig,
    ) -> RedisResult<Connection> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.server.tls {
            let connected = encrypted(tls, node, settings, config).await;
            return connected.map_err(|error| match tls.explained(node, &error) {
                Some(text) => io::Error::other(text).into(),
                None => error,
            });
        }
        plain(ConnectionAddr::Tcp(node.host.clone(), node.port), settings, config).await
    }
}

/// Makes a connection without TLS.
async fn plain(
    address: ConnectionAddr,
    settings: &RedisConnectionInfo,
    config: &AsyncConnectionConfig,
) -> RedisResult<Connection> {
    let is_tcp = matches!(address, ConnectionAddr::Tcp(..));
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(probes());
    let info = address.into_connection_info()?.set_redis_settings(settings.clone()).set_tcp_settings(tcp);
    let connection = Client::open(info)?.get_multiplexed_async_connection_with_config(config).await;
    let connection = connection.map_err(|error| {
        if !is_tcp || error.is_connection_refusal() || !error.is_connection_dropped() {
            return error;
        }
        let text = format!("{error}; a port that speaks TLS needs rediss:// in place of redis://");
        io::Error::new(io::ErrorKind::ConnectionReset, text).into()
    })?;
    Ok(Connection::new(connection))
}

/// Makes a connection with TLS.
#[cfg(feature = "tls")]
async fn encrypted(
    tls: &Tls,
    node: &Node,
    settings: &RedisConnectionInfo,
    config: &AsyncConnectionConfig,
) -> RedisResult<Connection> {
    let stream = tls.connect(node, &probes()).await?;
    let (connection, driver) = MultiplexedConnection::new_with_config(settings, stream, config.clone()).await?;
    let driver = Arc::new(Driver(tokio::spawn(driver).abort_handle()));
    Ok(Connection { _driver: Some(driver), ..Connection::new(connection) })
}

fn probes() -> TcpKeepalive {
    TcpKeepalive::new().with_time(PROBE_AFTER).with_interval(PROBE_EVERY).with_retries(3)
}

/// Returns the settings of a connection that [`Server`] and the link limit by themselves. redis-rs's own limit of an
/// answer would end blocking commands and large answers too early.
fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None)
}

/// Returns the settings of a connection with this login.
fn settings(login: &Login) -> RedisConnectionInfo {
    let settings = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("mcp-courier", env!("CARGO_PKG_VERSION"));
    let settings = match &login.user {
        Some(user) => settings.set_username(user),
        None => settings,
    };
    match &login.password {
        Some(password) => settings.set_password(password),
        None => settings,
    }
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
pub(super) struct Connection {
    connection: MultiplexedConnection,
    /// Task of a connection with TLS. redis-rs has that of another one.
    #[cfg(feature = "tls")]
    _driver: Option<Arc<Driver>>,
    /// Set where Sentinels named the server.
    #[cfg(feature = "sentinel")]
    office: Option<Office>,
}

/// Task that drives a connection, which ends when this is dropped. Otherwise a blocking command would hold the
/// connection open until its answer.
#[cfg(feature = "tls")]
struct Driver(tokio::task::AbortHandle);

#[cfg(feature = "tls")]
impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    fn new(connection: MultiplexedConnection) -> Self {
        Self {
            connection,
            #[cfg(feature = "tls")]
            _driver: None,
            #[cfg(feature = "sentinel")]
            office: None,
        }
    }

    /// Returns the connection as one to a server that Sentinels named. Requests break once they name another.
    #[cfg(feature = "sentinel")]
    fn in_office(self, office: Office) -> Self {
        Self { office: Some(office), ..self }
    }

    /// Sends commands together. The answer to each is its value, or its error as a value.
    ///
    /// # Errors
    /// A broken connection, or one to a server that is a primary no more.
    ///
    /// # Cancellation
    /// A command that was sent may be done.
    pub(super) async fn send(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut connection = self.connection.clone();
        let sending = connection.send_packed_commands(commands, 0, commands.len());
        #[cfg(feature = "sentinel")]
        if let Some(office) = &self.office {
            return office.clone().hold(sending).await;
        }
        sending.await
    }

    /// Subscribes to channels.
    #[cfg(feature = "rmcp")]
    pub(super) async fn subscribe(&self, channels: &[String]) -> RedisResult<()> {
        self.connection.clone().subscribe(channels).await
    }
}
