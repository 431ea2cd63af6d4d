//! Queue in Redis 6.2 or newer: one list per session in FastMCP's form, a lease beside it, and scripts that guard both.
//!
//! Only this room names `redis::`. Everything goes over a [`Link`]: each [`consumer`] has its own, [`key_watcher`] and
//! `fleet/news` have one each to listen on, and all other commands share one.
//!
//! - `link` is the only kind of connection. It repeats, checks, learns the speed of the line, and delivers
//!   announcements.
//! - `lua` has the scripts and the rules that all of them follow.
//! - `consumer` reads one queue over a link of its own, `shared` reads many queues over one link. Both build their
//!   commands and read their answers by `take` and `lease`, so the two differ only in how they wait.
//! - `push`, `outcomes`, `questions`, `inspection` and `fleet` each have one part of the port. `session_status` distinguishes
//!   known sessions from unknown ones.
//! - `key_watcher` waits for answers and receipts.
//! - `examine` reads facts about the server for operators, `rights` has the commands that a user must be allowed to call.
//!
//! *Slots*. A script may use keys of one slot of Redis Cluster only. A queue and its companions share a slot; the
//! sorted set of live sessions and the keys of stored sessions lie elsewhere. So no script writes the sorted set, and
//! it may lag behind the leases. Broadcasts and lists use the set, and deliveries never do
//! (`a_queue_and_its_lease_share_a_slot`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use redis::{FromRedisValue, ToRedisArgs, Value};

use self::clock::ServerClock;
use self::key_watcher::KeyWatcher;
use self::link::{Command, Deployment, Link, Pushes};
use self::lua::{LIVE_SESSIONS, Script};
use super::{Backend, Outgoing, PushRefusal, Queued};
use crate::config::{Config, ConfigError};
use crate::envelope::Timestamp;
use crate::examination::Check;
use crate::failure::{QueueError, QueueErrorKind};
use crate::keys::Keys;
use crate::session_id::SessionId;

mod clock;
#[cfg(feature = "server")]
mod consumer;
mod dead_letters;
#[cfg(feature = "server")]
mod discards;
mod examine;
#[cfg(feature = "rmcp")]
mod fleet;
mod inspection;
mod key_watcher;
#[cfg(feature = "server")]
mod lease;
mod link;
pub(crate) mod lua;
mod outcomes;
mod push;
mod questions;
#[cfg(feature = "server")]
mod queues;
mod reply;
mod rights;
mod scan;
mod session_status;
#[cfg(feature = "server")]
mod shared;
mod tail;
#[cfg(feature = "server")]
mod take;
pub(crate) mod url;
#[cfg(feature = "server")]
mod wrong_type;

/// Queues of a fleet in one Redis.
pub(crate) struct RedisBackend {
    /// One server or a cluster, of which every link is made.
    deployment: Deployment,
    /// URL without its secrets, for errors.
    shown_url: String,
    /// Link for every command that neither blocks nor listens.
    link: Link,
    /// Estimate of the server's clock, for the times that people read.
    clock: ServerClock,
    config: Arc<Config>,
    keys: Keys,
    /// Waits for answers and receipts, over a link of its own.
    key_watcher: KeyWatcher,
}

impl std::fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedisBackend({})", self.shown_url)
    }
}

impl RedisBackend {
    /// Makes a backend that connects at its first command.
    pub(crate) fn new(url: &str, config: Arc<Config>) -> Result<Self, ConfigError> {
        let (deployment, shown_url, keys) = (Deployment::new(url)?, url::shown(url), Keys::new(config.prefix()));
        #[cfg(feature = "cluster")]
        let keys = if deployment.is_cluster() { keys.in_cluster() } else { keys };
        #[cfg(feature = "sentinel")]
        match &deployment {
            Deployment::Server(server) => server.follow_primary(),
            #[cfg(feature = "cluster")]
            Deployment::Cluster(_) => {}
        }
        let link = Link::shared(&deployment, &config, Pushes::Nothing);
        let key_watcher = KeyWatcher::new(Link::shared(&deployment, &config, Pushes::Keys));
        Ok(Self { deployment, shown_url, link, clock: ServerClock::default(), config, keys, key_watcher })
    }

    /// Sends one command over the shared link.
    async fn query<T: FromRedisValue>(&self, doing: &str, command: impl Into<Command>) -> Result<T, QueueError> {
        self.link.query(command).await.map_err(|e| self.failed(doing, e))
    }

    /// Sends one command whose answer may be large over the shared link.
    #[cfg(any(feature = "elicitation", feature = "server"))]
    async fn query_large<T: FromRedisValue>(&self, doing: &str, command: impl Into<Command>) -> Result<T, QueueError> {
        self.link.for_large_answers().query(command).await.map_err(|e| self.failed(doing, e))
    }

    /// Calls a script over the shared link.
    async fn call<T: FromRedisValue>(
        &self,
        doing: &str,
        script: &'static Script,
        keys: &[impl ToRedisArgs],
        arguments: &[impl ToRedisArgs],
    ) -> Result<T, QueueError> {
        self.query(doing, Command::call(script, keys, arguments)).await
    }

    /// Checks one server. Returns its policy for a full memory; "" where that is unknown.
    async fn check_server(&self, link: &Link) -> Result<String, QueueErrorKind> {
        let sent = Timestamp::of_this_host();
        let (seconds, micros): (i64, i64) = link.query(redis::cmd("TIME")).await?;
        self.clock.learn(sent, Timestamp(seconds * 1_000_000 + micros));
        if !self.deployment.is_cluster() {
            // The right to say HELLO is that to connect, so each user may ask. Nobody needs the answer of a proxy.
            let hello: Result<HashMap<String, Value>, _> = link.query(redis::cmd("HELLO")).await;
            if hello.is_ok_and(|hello| hello.get("mode").is_some_and(is_cluster_mode)) {
                return Err(QueueErrorKind::Refused(
                    "the server is a node of a Redis Cluster; use redis+cluster:// in place of redis://".to_owned(),
                ));
            }
        }
        let settings: Result<HashMap<String, String>, _> =
            link.query(redis::cmd("CONFIG").arg(&["GET", "maxmemory-policy"])).await;
        // Many hosted Redis servers refuse CONFIG. The policy is unknown then, and no warning is logged.
        Ok(settings.ok().and_then(|mut settings| settings.remove("maxmemory-policy")).unwrap_or_default())
    }

    fn failed(&self, doing: &str, error: impl Into<QueueErrorKind>) -> QueueError {
        QueueError::new(format!("{doing} at {}", self.shown_url), error.into())
    }
}

#[async_trait]
impl Backend for RedisBackend {
    fn system(&self) -> &'static str {
        "redis"
    }

    async fn push(&self, batch: Vec<Outgoing>) -> Vec<Result<Queued, PushRefusal>> {
        self.push_all(batch).await
    }

    async fn live_sessions(&self) -> Result<Vec<SessionId>, QueueError> {
        const DOING: &str = "reading the live sessions";
        // Read as bytes: a member that is no text must not hide the others.
        let members: Vec<Vec<u8>> =
            self.call(DOING, &LIVE_SESSIONS, &[self.keys.sessions()], lua::NO_ARGUMENTS).await?;
        let session = |member: &Vec<u8>| std::str::from_utf8(member).ok()?.rsplit_once(':')?.0.parse().ok();
        let mut sessions: Vec<SessionId> = members.iter().filter_map(session).collect();
        // During a takeover a session has two owners here, and so two members.
        sessions.sort_unstable();
        sessions.dedup();
        Ok(sessions)
    }

    async fn examine(&self) -> Result<Vec<Check>, QueueError> {
        self.examine_server().await
    }

    async fn check(&self) -> Result<(), QueueError> {
        const DOING: &str = "connecting";
        let failed = |error| self.failed(DOING, error);
        let mut policies = BTreeSet::new();
        // Each node of a cluster has settings of its own. One that is down now does not keep the others from serving.
        let mut outcome = Ok(());
        let servers = self.link.to_each_server().await.map_err(failed)?;
        for checked in join_all(servers.iter().map(|link| self.check_server(link))).await {
            match checked {
                Ok(policy) => drop(policies.insert(policy)),
                Err(error) => outcome = Err(error),
            }
        }
        if policies.is_empty() {
            outcome.map_err(failed)?;
        }
        for policy in policies.iter().filter(|policy| !["", "noeviction"].contains(&policy.as_str())) {
            tracing::warn!(%policy, url = %self.shown_url,
                    "Redis may evict queues when its memory is full: set maxmemory-policy to noeviction");
        }
        Ok(())
    }

    #[cfg(feature = "server")]
    async fn probe(&self) -> Result<(), QueueError> {
        // A `SET`, because a full Redis refuses it. The shortest life suffices, as nobody reads the key.
        let mut write = redis::cmd("SET");
        self.query("writing a probe", write.arg(self.keys.probe()).arg(0).arg("PX").arg(1)).await
    }
}

/// Returns whether the `mode` that a server says in its answer to `HELLO` is that of a cluster.
fn is_cluster_mode(mode: &Value) -> bool {
    matches!(mode, Value::BulkString(mode) if mode == b"cluster")
}
