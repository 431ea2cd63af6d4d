//! [`Link`]: the only kind of connection to Redis.
//!
//! A *shared* link connects at its first request. It connects again after its connection broke, fell silent, or led to
//! a server that cannot write.
//! A *dedicated* link belongs to one subscriber, whose commands may block. It connects once: after a failure its owner
//! opens another link.
//!
//! In a cluster a shared link has a connection to each node that it needs (`cluster`). A dedicated link leads to the node
//! of its queue.
//!
//! # Repetitions
//! - Redis does not know a script: both kinds of link load the script and send its call again. Redis did nothing of it.
//! - A server is no primary: a shared link sends the request once more over a new connection, where a repetition does
//!   no harm ([`Request::is_repeatable`]). A dedicated link returns the refusal.
//! - An answer is missing, or the connection broke: no link repeats anything, as Redis may have done the request. The
//!   caller knows whether a repetition is safe.
//!
//! redis-rs's own `ConnectionManager` recovers from fewer failures. Until its process ends it keeps a connection that
//! answers nothing, one to a server that became a replica, and a refused password.

use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, Value};
use tokio::runtime::Handle;

use self::endpoint::Endpoint;
use self::inner::{Common, Inner};
use self::line_capacity::{LARGE, PendingRequest};
use crate::backend::LineLimit;
use crate::config::Config;
use crate::failure::QueueErrorKind;

#[cfg(feature = "server")]
pub(super) use self::connection::ANSWER_TIMEOUT;
pub(super) use self::endpoint::Deployment;
#[cfg(feature = "server")]
pub(super) use self::error::{is_migrating, same};
pub(super) use self::error::{is_timeout, read};
#[cfg(feature = "server")]
pub(super) use self::health::CHECK_EVERY;
pub(super) use self::pushes::Pushes;
pub(super) use self::request::{Command, Request};
#[cfg(feature = "server")]
pub(super) use self::request::{MIGRATION_PAUSES, size};
#[cfg(feature = "server")]
pub(super) use self::watches::Concerned;
pub(super) use self::watches::{LinkEvent, Watch};

#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "cluster")]
mod command_slot;
mod connection;
mod endpoint;
mod error;
mod health;
mod inner;
mod line_capacity;
mod primary;
mod pushes;
mod request;
mod sending;
#[cfg(feature = "server")]
mod subscribers;
#[cfg(feature = "cluster")]
mod topology;
mod watches;

/// Outcome of one command of a request.
pub(super) type Answer = Result<Value, QueueErrorKind>;

/// Link to Redis. Clones share its connections: one to a single server, and one to each node of a cluster.
#[derive(Clone)]
pub(super) struct Link {
    route: Route,
    common: Common,
    /// Set where answers may be large ([`LARGE`](self::line_capacity::LARGE)).
    is_for_large_answers: bool,
}

/// Connections of a link.
#[derive(Clone)]
enum Route {
    /// Single server, or the node to which the caller knows its commands to belong.
    One(Arc<Inner>),
    /// All nodes of a cluster.
    #[cfg(feature = "cluster")]
    Nodes(Arc<cluster::Nodes>),
}

impl Link {
    /// Makes a link that many may share. Connects at the first request.
    pub(super) fn shared(deployment: &Deployment, config: &Config, pushes: Pushes) -> Self {
        let common = Common::new(config, pushes, Some(Handle::current()));
        let route = match deployment {
            Deployment::Server(server) => Route::to(Endpoint::Server(server.clone()), &common),
            #[cfg(feature = "cluster")]
            Deployment::Cluster(topology) => Route::Nodes(cluster::Nodes::new(Arc::clone(topology), common.clone())),
        };
        Self { route, common, is_for_large_answers: false }
    }

    /// Returns the same link for large answers. After a late answer, later ones get more time.
    pub(super) fn for_large_answers(&self) -> Self {
        Self { is_for_large_answers: true, ..self.clone() }
    }

    /// Returns a link to each server that holds a part of the keys: this link, or one to each master of a cluster. A
    /// command that concerns all keys or the server itself, such as `SCAN`, must be sent over each.
    ///
    /// # Errors
    /// No node of a cluster answered when the masters were asked for.
    pub(super) async fn to_each_server(&self) -> Result<Vec<Self>, QueueErrorKind> {
        match &self.route {
            #[cfg(feature = "cluster")]
            Route::Nodes(nodes) => {
                let to = |line| Self { route: Route::One(line), ..self.clone() };
                Ok(nodes.masters().await?.into_iter().map(to).collect())
            }
            _ => Ok(vec![self.clone()]),
        }
    }

    /// Returns the bounds of the next large request.
    pub(super) fn limit(&self) -> LineLimit {
        self.common.line.limit()
    }

    /// Learns from a request or an answer that moved this many messages and bytes.
    pub(super) fn learn(&self, messages: usize, bytes: usize, took: Duration) {
        self.common.line.learn(messages, bytes, took);
    }

    /// Begins requests of so many bytes together. While the guard lives, each of them has the time that all of them
    /// need.
    pub(super) fn begin(&self, bytes: usize) -> PendingRequest<'_> {
        self.common.line.begin(bytes >= LARGE)
    }

    /// Registers for a key or a channel. `listener` runs in the task that reads the connection, before that task hands
    /// over any later answer. So whoever reads such an answer knows the change already. The listener must not block.
    pub(super) fn watch(&self, name: String, listener: impl Fn(LinkEvent<'_>) + Send + Sync + 'static) -> Watch {
        self.common.watches.register(name, listener)
    }

    /// Sends one command.
    ///
    /// # Errors
    /// Redis's refusal; a connection that could not be made, so that nothing was done; or a broken or silent
    /// connection, so that the outcome is unknown.
    ///
    /// # Cancellation
    /// A command that was sent may be done.
    pub(super) async fn query<T: FromRedisValue>(&self, command: impl Into<Command>) -> Result<T, QueueErrorKind> {
        let answer = self.send(&Request::of(command)).await?.pop();
        answer.unwrap_or(Ok(Value::Nil)).and_then(read)
    }

    /// Sends a request, and returns the outcome of each of its commands. Loads scripts that Redis does not know, and
    /// sends their calls again.
    ///
    /// # Errors
    /// The same as of [`query`](Self::query), where an error concerns the whole request.
    ///
    /// # Cancellation
    /// A command that was sent may be done.
    pub(super) async fn send(&self, request: &Request) -> Result<Vec<Answer>, QueueErrorKind> {
        let large = self.is_for_large_answers;
        match &self.route {
            Route::One(line) => {
                #[cfg(all(feature = "cluster", feature = "server"))]
                if let Some(topology) = line.topology() {
                    return cluster::send_to_slot(line, topology, request, large).await;
                }
                line.send(request, large).await
            }
            #[cfg(feature = "cluster")]
            Route::Nodes(nodes) => nodes.send(request, large).await,
        }
    }

    /// Checks that the server answers and is a primary. Makes another connection where the server is none. After
    /// failures the method first waits until the pause is over. Returns the number of the connection, which grows with
    /// each new one.
    ///
    /// A probe that is refused for another reason, as by an ACL, counts as answered.
    ///
    /// # Errors
    /// No connection to a primary came about this time. The caller may check again.
    pub(super) async fn check(&self) -> Result<u64, QueueErrorKind> {
        match &self.route {
            Route::One(line) => line.check().await,
            #[cfg(feature = "cluster")]
            Route::Nodes(nodes) => nodes.check().await,
        }
    }

    /// Drops the connection of a shared link. The next request makes another.
    pub(super) fn disconnect(&self) {
        match &self.route {
            Route::One(line) => line.disconnect(),
            #[cfg(feature = "cluster")]
            Route::Nodes(nodes) => nodes.disconnect(),
        }
    }
}

impl Route {
    /// Makes the route to one place, whose connection announces all keys.
    fn to(endpoint: Endpoint, common: &Common) -> Self {
        Self::One(Arc::new(Inner::new(endpoint, common.clone(), Box::new(|_| true))))
    }
}
