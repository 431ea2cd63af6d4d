//! A primary with replicas, and the Sentinels that watch them, as real processes.

use std::fmt::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use crate::child::Child;
use crate::eventually::eventually;
use crate::redis_server::{RedisServer, free_port, patient, program};

/// Name of the service.
pub const SERVICE: &str = "courier";

/// Time limit of a start, and of a failover.
const LONG: Duration = Duration::from_secs(60);

/// Settings of the servers and Sentinels of a test.
#[derive(Debug, Clone, Default)]
pub struct Setup<'a> {
    /// Number of replicas.
    pub replicas: usize,
    /// Further options of each server.
    pub options: &'a [&'a str],
    /// Password of the servers; none where this is empty.
    pub password: &'a str,
    /// Password of the Sentinels; none where this is empty.
    pub sentinel_password: &'a str,
    /// Options that name certificates. All speak TLS where there are any.
    pub tls: &'a [&'a str],
}

/// Three Sentinels and the servers that they watch. All are killed when this is dropped.
#[derive(Debug)]
pub struct Sentinels {
    servers: Vec<RedisServer>,
    sentinels: Vec<Sentinel>,
    password: String,
    sentinel_password: String,
}

/// Sentinel with a directory of its own, as a Sentinel writes its configuration.
#[derive(Debug)]
struct Sentinel {
    child: Child,
    /// Port for the test, in plain text.
    port: u16,
    /// Port that the URL names.
    public_port: u16,
    _dir: TempDir,
}

impl Sentinel {
    fn start(primary: u16, setup: &Setup<'_>) -> Self {
        let port = free_port();
        let dir = TempDir::new().expect("a temporary directory");
        let mut settings = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nlogfile {}\nsentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n\
             sentinel down-after-milliseconds {SERVICE} 1000\nsentinel failover-timeout {SERVICE} 5000\n",
            dir.path().display(),
            dir.path().join("log").display(),
        );
        if !setup.password.is_empty() {
            writeln!(settings, "sentinel auth-pass {SERVICE} {}", setup.password).expect("a string");
        }
        if !setup.sentinel_password.is_empty() {
            let password = setup.sentinel_password;
            writeln!(settings, "requirepass {password}\nsentinel sentinel-pass {password}").expect("a string");
        }
        let mut public_port = port;
        if !setup.tls.is_empty() {
            public_port = free_port();
            writeln!(settings, "tls-port {public_port}\ntls-replication yes").expect("a string");
            for option in setup.tls.chunks(2) {
                writeln!(settings, "{} {}", option[0].trim_start_matches('-'), option[1]).expect("a string");
            }
        }
        let file = dir.path().join("sentinel.conf");
        std::fs::write(&file, settings).expect("the settings of a Sentinel");
        let mut command = Command::new(program());
        command.arg(&file).arg("--sentinel").stderr(Stdio::null());
        Self { child: Child::start(&mut command).expect("a Sentinel"), port, public_port, _dir: dir }
    }
}

impl Sentinels {
    /// Starts servers without passwords, and Sentinels that know all of them and each other.
    pub async fn start(replicas: usize, options: &[&str]) -> Self {
        Self::start_with(Setup { replicas, options, ..Setup::default() }).await
    }

    /// Starts servers, and Sentinels that know all of them and each other.
    pub async fn start_with(setup: Setup<'_>) -> Self {
        let mut options = vec!["--repl-diskless-sync-delay", "0"];
        options.extend(setup.options);
        if !setup.password.is_empty() {
            options.extend(["--requirepass", setup.password, "--masterauth", setup.password]);
        }
        let server = || match setup.tls {
            [] => RedisServer::with(&options),
            #[cfg(feature = "tls")]
            tls => RedisServer::with_tls(&[&options, ["--tls-replication", "yes"].as_slice(), tls].concat()),
            #[cfg(not(feature = "tls"))]
            _ => panic!("TLS takes the feature tls"),
        };
        let servers: Vec<RedisServer> = (0..=setup.replicas).map(|_| server()).collect();
        let primary = servers[0].port();
        let mut all = Self {
            servers,
            sentinels: Vec::new(),
            password: setup.password.to_owned(),
            sentinel_password: setup.sentinel_password.to_owned(),
        };
        for replica in 1..=setup.replicas {
            let () = all.command(replica, &["REPLICAOF", "127.0.0.1", &primary.to_string()]).await;
        }
        eventually("that all replicas are online", LONG, async || {
            let info: String = all.command(0, &["INFO", "replication"]).await;
            info.matches("state=online").count() == setup.replicas
        })
        .await;
        all.sentinels.extend((0..3).map(|_| Sentinel::start(primary, &setup)));
        eventually("that the Sentinels know everybody", LONG, async || {
            let mut known = 0;
            for sentinel in 0..3 {
                known += usize::from(all.knows_everybody(sentinel).await.unwrap_or_default());
            }
            known == 3
        })
        .await;
        all
    }

    /// Returns the URL of the service, with the logins that its servers and Sentinels need.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.sentinels.iter().map(|at| format!("127.0.0.1:{}", at.public_port)).collect();
        let login = if self.password.is_empty() { String::new() } else { format!(":{}@", self.password) };
        let option = match &*self.sentinel_password {
            "" => String::new(),
            password => format!("?sentinel_pass={password}"),
        };
        let scheme = if self.servers[0].speaks_tls() { "rediss" } else { "redis" };
        format!("{scheme}+sentinel://{login}{}/{SERVICE}{option}", hosts.join(","))
    }

    /// Returns a server. The first was the primary at the start.
    pub fn server(&self, index: usize) -> &RedisServer {
        &self.servers[index]
    }

    /// Kills a server, as a crash would.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].kill();
    }

    /// Kills a Sentinel, as a crash would.
    pub fn kill_sentinel(&mut self, index: usize) {
        self.sentinels[index].child.kill();
    }

    /// Sends a signal to a Sentinel. Between `-STOP` and `-CONT` the Sentinel accepts connections and answers nothing.
    pub fn signal_sentinel(&self, index: usize, signal: &str) {
        self.sentinels[index].child.signal(signal);
    }

    /// Asks for a planned failover, as an operator does before maintenance.
    pub async fn fail_over(&self) {
        // A Sentinel refuses for a while where it has not heard of a replica lately.
        eventually("a failover", LONG, async || self.ask::<()>(0, &["SENTINEL", "FAILOVER", SERVICE]).await.is_ok())
            .await;
    }

    /// Returns the port of the primary that the Sentinels name.
    pub async fn primary(&self) -> u16 {
        let named: (String, u16) =
            self.ask(0, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]).await.expect("an answer of a Sentinel");
        named.1
    }

    /// Sends a command to a server.
    ///
    /// # Panics
    /// Where the server refuses the command or does not answer.
    pub async fn command<T: FromRedisValue>(&self, server: usize, words: &[&str]) -> T {
        let mut connection = self.connection(server).await.expect("a connection to our own server");
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await.expect("an answer of our own server")
    }

    /// Opens a connection of the test itself to a server, which may be dead.
    pub async fn connection(&self, server: usize) -> redis::RedisResult<MultiplexedConnection> {
        let server = &self.servers[server];
        // The test itself does not speak TLS.
        let url = if server.speaks_tls() { server.unix_url() } else { plain_url(server.port(), &self.password) };
        open(url).await
    }

    async fn ask<T: FromRedisValue>(&self, sentinel: usize, words: &[&str]) -> redis::RedisResult<T> {
        let mut connection = open(plain_url(self.sentinels[sentinel].port, &self.sentinel_password)).await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }

    async fn knows_everybody(&self, sentinel: usize) -> redis::RedisResult<bool> {
        let known: std::collections::HashMap<String, String> =
            self.ask(sentinel, &["SENTINEL", "MASTER", SERVICE]).await?;
        let is = |field: &str, value: usize| known.get(field).is_some_and(|found| *found == value.to_string());
        Ok(is("num-slaves", self.servers.len() - 1) && is("num-other-sentinels", self.sentinels.len() - 1))
    }
}

fn plain_url(port: u16, password: &str) -> String {
    let login = if password.is_empty() { String::new() } else { format!(":{password}@") };
    format!("redis://{login}127.0.0.1:{port}/")
}

async fn open(url: String) -> redis::RedisResult<MultiplexedConnection> {
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&patient()).await
}
