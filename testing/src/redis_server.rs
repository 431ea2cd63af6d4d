//! Real `redis-server` on a free loopback port, with a directory of its own.
//!
//! The environment variable `REDIS_SERVER` names another program than that of the PATH, as `scripts/test-versions`
//! does. With `TEST_RIGHTS=least` the crate connects as a user with the documented rights alone.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::readme;

/// Time limit of a start, and of an answer.
const START: Duration = Duration::from_secs(10);

/// Server that is killed, and whose directory is removed, when this is dropped.
#[derive(Debug)]
pub struct RedisServer {
    child: Option<Child>,
    port: u16,
    dir: TempDir,
    options: Vec<String>,
    has_own_clock: bool,
    /// Set where the port speaks TLS, and nothing else.
    speaks_tls: bool,
    /// Set where the server has the user of [`url`](Self::url) under `TEST_RIGHTS=least`.
    has_least_user: bool,
}

/// Commands that are sent in case they are allowed.
const OPTIONAL: [&str; 4] = ["client|setinfo", "client", "config|get", "config"];

impl RedisServer {
    /// Starts a server that keeps nothing on its disk.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts a server that answers a write once the write is on its disk.
    pub fn durable() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// Starts a server with further options of `redis-server`.
    pub fn with(options: &[&str]) -> Self {
        Self::begin(options, false, false)
    }

    /// Starts a server whose clock [`set_clock`](Self::set_clock) sets, by libfaketime. The clock starts at this host's
    /// time.
    pub fn with_own_clock() -> Self {
        Self::begin(&[], true, false)
    }

    /// Starts a server whose port speaks TLS, with the options that name its certificates.
    #[cfg(feature = "tls")]
    pub fn with_tls(options: &[&str]) -> Self {
        Self::begin(options, false, true)
    }

    fn begin(options: &[&str], has_own_clock: bool, speaks_tls: bool) -> Self {
        let mut server = Self {
            child: None,
            port: 0,
            dir: directory(options).expect("a temporary directory"),
            options: options.iter().map(ToString::to_string).collect(),
            has_own_clock,
            speaks_tls,
            has_least_user: has_least_rights(),
        };
        server.set_clock(0);
        // A port that is free now may be another's in a moment: then another one is tried.
        for _ in 0..10 {
            server.port = if options.contains(&"--cluster-enabled") { free_ports_of_node() } else { free_port() };
            if server.try_start() {
                return server;
            }
        }
        panic!("redis-server did not start:\n{}", server.log());
    }

    /// Kills the server, as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the server again at the same port, over the same data.
    pub fn start_again(&mut self) {
        self.kill();
        assert!(self.try_start(), "redis-server did not start again:\n{}", self.log());
    }

    /// Sends a signal. Between `-STOP` and `-CONT` the server holds its connections and does nothing.
    pub fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
    }

    /// Sets the clock of the running server to so many seconds before or after this host's.
    pub fn set_clock(&self, seconds: i64) {
        // In one step: the server reads the file at each look at its clock.
        let (file, new) = (self.dir.path().join("clock"), self.dir.path().join("clock.new"));
        std::fs::write(&new, format!("{seconds:+}"))
            .and_then(|()| std::fs::rename(new, file))
            .expect("the clock's file");
    }

    /// Gives the server that a command starts a clock of its own.
    fn clock(&self, command: &mut Command) {
        // libfaketime names its shared memory by its process id, and stops where a killed process of that id left the
        // name.
        let library = (0..20).find_map(|_| {
            let shown = Command::new("faketime").args(["-f", "+0", "env"]).env_remove("LD_PRELOAD").output();
            let shown =
                shown.expect("these tests need faketime in the PATH, as Debian's package faketime has it").stdout;
            let shown = String::from_utf8(shown).expect("an environment");
            shown.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).map(str::to_owned)
        });
        let library = library.expect("its library");
        command
            // libfaketime alone stops in a Redis that uses jemalloc, which asks for the time before it is ready.
            .env("LD_PRELOAD", format!("{library}:libc.so.6"))
            .env("FAKETIME_TIMESTAMP_FILE", self.dir.path().join("clock"))
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env_remove("FAKETIME");
    }

    /// Returns the URL over TCP, with TLS where the server speaks it. Under `TEST_RIGHTS=least` it is the URL of a user
    /// with the rights that the documentation gives a server.
    pub fn url(&self) -> String {
        let login = if self.has_least_user { "least:secret@" } else { "" };
        format!("{}://{login}127.0.0.1:{}/", if self.speaks_tls { "rediss" } else { "redis" }, self.port)
    }

    /// Returns whether the port speaks TLS, and nothing else.
    pub(crate) fn speaks_tls(&self) -> bool {
        self.speaks_tls
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the id of the process, while the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Returns the URL over the Unix socket.
    pub fn unix_url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Opens a connection of the test itself.
    pub async fn connection(&self) -> MultiplexedConnection {
        // Not over TLS, which the crate under test brings, and redis-rs has no part in.
        let url = if self.speaks_tls { self.unix_url() } else { format!("redis://127.0.0.1:{}/", self.port) };
        let client = redis::Client::open(url).expect("our own URL");
        let connection = client.get_multiplexed_async_connection_with_config(&patient()).await;
        connection.expect("a connection to our own server")
    }

    /// Sends a command over a connection of the test itself.
    ///
    /// # Panics
    /// Where the server refuses the command or does not answer.
    pub async fn command<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().await;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.expect("an answer of our own server")
    }

    /// Asserts that each key expires by itself, whatever becomes of the process that wrote the key.
    pub async fn assert_no_key_without_expiry(&self) {
        let mut connection = self.connection().await;
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("the keys");
        for key in keys {
            let life: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.expect("a key's life");
            assert_ne!(life, -1, "{key} would stay for ever");
        }
    }

    /// Creates the user `courier` with these rights, and returns the URL for that user.
    pub async fn restricted_url(&self, rights: &[&str]) -> String {
        let mut connection = self.connection().await;
        let created = redis::cmd("ACL").arg(&["SETUSER", "courier"]).arg(rights).exec_async(&mut connection).await;
        created.expect("a user with these rights");
        format!("redis://courier:secret@127.0.0.1:{}/", self.port)
    }

    /// Asserts that the log of denials names only commands that are sent in case they are allowed.
    pub async fn assert_no_right_was_missing(&self) {
        let mut connection = self.connection().await;
        let log = redis::cmd("ACL").arg("LOG").query_async(&mut connection).await;
        let log: Vec<HashMap<String, redis::Value>> = log.expect("the log of denials");
        let object = |entry: HashMap<String, redis::Value>| redis::from_redis_value(entry["object"].clone());
        let denied: Vec<String> = log.into_iter().map(|entry| object(entry).expect("a name")).collect();
        assert!(denied.iter().all(|what| OPTIONAL.contains(&what.as_str())), "{denied:?}");
    }

    /// Returns the number of calls of each command, those of scripts included.
    pub async fn calls(&self) -> HashMap<String, u64> {
        let info = self.info("commandstats").await;
        info.lines()
            .filter_map(|line| {
                let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
                Some((name.to_owned(), rest.split_once(',')?.0.parse().ok()?))
            })
            .collect()
    }

    /// Returns the number of clients in a blocking command.
    pub async fn blocked_clients(&self) -> usize {
        self.number("clients", "blocked_clients").await
    }

    /// Returns the number of connections.
    pub async fn connected_clients(&self) -> usize {
        self.number("clients", "connected_clients").await
    }

    /// Returns the number of reads from connections until now.
    pub async fn reads(&self) -> usize {
        self.number("stats", "total_reads_processed").await
    }

    async fn number(&self, section: &str, field: &str) -> usize {
        let info = self.info(section).await;
        let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.and_then(|n| n.trim().parse().ok()).expect("a number in INFO")
    }

    async fn info(&self, section: &str) -> String {
        redis::cmd("INFO").arg(section).query_async(&mut self.connection().await).await.expect("INFO")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Starts the server, and returns whether it answers. A server whose port is taken ends at once.
    fn try_start(&mut self) -> bool {
        let socket = self.socket();
        let program = program();
        let mut command = Command::new(program);
        if self.has_own_clock {
            self.clock(&mut command);
        }
        if self.has_least_user {
            // From the begin on: a client that returns at once after a restart must find its user.
            command.args(["--user", "least"]).args(readme::rights());
        }
        let child = command
            .args(["--bind", "127.0.0.1", "--daemonize", "no", "--save", ""])
            .args(if self.speaks_tls { ["--port", "0", "--tls-port"].as_slice() } else { &["--port"] })
            .arg(self.port.to_string())
            .arg("--dir")
            .arg(self.dir.path())
            .arg("--logfile")
            .arg(self.dir.path().join("log"))
            .arg("--unixsocket")
            .arg(&socket)
            .args(&self.options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let child = match child {
            Ok(child) => self.child.insert(child),
            Err(error) => panic!(
                "these tests need redis-server 6.2 or newer in the PATH or in REDIS_SERVER, and it cannot run: {error}"
            ),
        };
        let begun = Instant::now();
        while begun.elapsed() < START {
            if !matches!(child.try_wait(), Ok(None)) {
                return false;
            }
            if answers(&socket) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl RedisServer {
    /// Opens a blocking connection to the socket, where the port may speak TLS.
    fn blocking(&self) -> redis::RedisResult<redis::Connection> {
        let connection = redis::Client::open(self.unix_url())?.get_connection_with_timeout(START)?;
        connection.set_read_timeout(Some(START))?;
        Ok(connection)
    }

    /// Returns the rights that the user of `TEST_RIGHTS=least` lacked. None where the server does not answer any more.
    fn rights_that_were_missing(&self) -> Vec<String> {
        let log = || -> redis::RedisResult<Vec<HashMap<String, redis::Value>>> {
            redis::cmd("ACL").arg("LOG").query(&mut self.blocking()?)
        };
        let text = |entry: &HashMap<String, redis::Value>, field: &str| -> String {
            redis::from_redis_value(entry[field].clone()).unwrap_or_default()
        };
        let of_ours = |entry: &HashMap<String, redis::Value>| text(entry, "username") == "least";
        let denied = log().unwrap_or_default().into_iter().filter(of_ours).map(|entry| text(&entry, "object"));
        denied.filter(|what| !OPTIONAL.contains(&what.as_str())).collect()
    }
}

/// Returns whether the crate is to have no more rights than the documentation names.
fn has_least_rights() -> bool {
    match std::env::var("TEST_RIGHTS").as_deref() {
        Err(std::env::VarError::NotPresent) | Ok("all") => false,
        Ok("least") => true,
        other => panic!("TEST_RIGHTS is {other:?}, neither least nor all"),
    }
}

impl Drop for RedisServer {
    /// Kills the server.
    ///
    /// # Panics
    /// Where the crate lacked a right under `TEST_RIGHTS=least`.
    fn drop(&mut self) {
        let is_judged = self.has_least_user && self.child.is_some() && !std::thread::panicking();
        let missing = if is_judged { self.rights_that_were_missing() } else { Vec::new() };
        self.kill();
        assert!(missing.is_empty(), "docs/redis.md does not give these rights: {missing:?}");
    }
}

/// Returns the settings of a connection of a test. By default a connection may take a second, and an answer half a second:
/// too short for a test that keeps its thread busy on a busy machine.
pub(crate) fn patient() -> redis::AsyncConnectionConfig {
    redis::AsyncConnectionConfig::new().set_connection_timeout(Some(START)).set_response_timeout(Some(START))
}

/// Returns the program that is started.
pub(crate) fn program() -> std::ffi::OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// Makes the directory of a server. That of a node of a cluster lies in memory, where the machine has such a place: a node
/// writes each change of the cluster to its directory with `fsync`.
fn directory(options: &[&str]) -> std::io::Result<TempDir> {
    let in_memory = options.contains(&"--cluster-enabled").then(|| TempDir::new_in("/dev/shm").ok()).flatten();
    in_memory.map_or_else(TempDir::new, Ok)
}

/// Returns a port that is free now.
pub(crate) fn free_port() -> u16 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    free.local_addr().expect("its address").port()
}

/// Returns a port that is free now, and whose port of the cluster's bus is free too: the one that is 10000 higher.
fn free_ports_of_node() -> u16 {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let ports = std::iter::repeat_with(|| fastrand::u16(12000..22000)).take(1000);
    ports.into_iter().find(|port| is_free(*port) && is_free(port + 10000)).expect("two free ports")
}

/// Returns whether a PING is answered, if only by a demand for a password. The PING goes to the socket in the directory
/// of this server: another server could answer at the port.
fn answers(socket: &Path) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 64];
        let read = stream.read(&mut answer)?;
        Ok(answer[..read].starts_with(b"+PONG") || answer[..read].starts_with(b"-NOAUTH"))
    };
    ping().unwrap_or(false)
}
