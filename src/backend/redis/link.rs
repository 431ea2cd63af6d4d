//! [`Link`]: the only kind of connection to Redis.
//!
//! A *shared* link connects at its first request. It connects again after its connection broke, fell silent, or led to
//! a server that cannot write.
//! A *dedicated* link belongs to one subscriber, whose commands may block. It connects once: after a failure its owner
//! opens another link.
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

use self::inner::Inner;
use self::line_capacity::{LARGE, PendingRequest};
use crate::backend::LineLimit;
use crate::config::Config;
use crate::failure::QueueErrorKind;

#[cfg(feature = "server")]
pub(super) use self::connection::ANSWER_TIMEOUT;
pub(super) use self::connection::Server;
#[cfg(feature = "server")]
pub(super) use self::error::same;
pub(super) use self::error::{is_timeout, read};
#[cfg(feature = "server")]
pub(super) use self::health::CHECK_EVERY;
pub(super) use self::pushes::Pushes;
pub(super) use self::request::{Command, Request, size};
pub(super) use self::watches::{LinkEvent, Watch};

mod connection;
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
mod watches;

/// Outcome of one command of a request.
pub(super) type Answer = Result<Value, QueueErrorKind>;

/// Link to one Redis server. Clones share one connection.
#[derive(Clone)]
pub(super) struct Link {
    inner: Arc<Inner>,
    /// Set where answers may be large ([`LARGE`]).
    is_for_large_answers: bool,
}

impl Link {
    /// Makes a link that many may share. Connects at the first request.
    pub(super) fn shared(server: &Server, config: &Config, pushes: Pushes) -> Self {
        Self::new(server, config, pushes, Some(Handle::current()))
    }

    fn new(server: &Server, config: &Config, pushes: Pushes, home: Option<Handle>) -> Self {
        Self { inner: Arc::new(Inner::new(server.clone(), config, pushes, home)), is_for_large_answers: false }
    }

    /// Returns the same link for large answers. After a late answer, later ones get more time.
    pub(super) fn for_large_answers(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), is_for_large_answers: true }
    }

    /// Returns the bounds of the next large request.
    pub(super) fn limit(&self) -> LineLimit {
        self.inner.line.limit()
    }

    /// Learns from a request or an answer that moved this many messages and bytes.
    pub(super) fn learn(&self, messages: usize, bytes: usize, took: Duration) {
        self.inner.line.learn(messages, bytes, took);
    }

    /// Begins requests of so many bytes together. While the guard lives, each of them has the time that all of them
    /// need.
    pub(super) fn begin(&self, bytes: usize) -> PendingRequest<'_> {
        self.inner.line.begin(bytes >= LARGE)
    }

    /// Registers for a key or a channel. `listener` runs in the task that reads the connection, before that task hands
    /// over any later answer. So whoever reads such an answer knows the change already. The listener must not block.
    pub(super) fn watch(&self, name: String, listener: impl Fn(LinkEvent<'_>) + Send + Sync + 'static) -> Watch {
        self.inner.watches.register(name, listener)
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
        self.inner.send(request, self.is_for_large_answers).await
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
        self.inner.check().await
    }

    /// Drops the connection of a shared link. The next request makes another.
    pub(super) fn disconnect(&self) {
        self.inner.disconnect();
    }
}
