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
use std::time::{Duration, Instant};

use futures_util::future;
use redis::{FromRedisValue, Value};
use tokio::runtime::Handle;

use self::error::{is_broken, is_noscript, kind, no_answer};
use self::inner::Inner;
use self::line_capacity::{LARGE, PendingRequest};
use self::primary::{is_no_primary, refuses};
use super::lua::Script;
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
        let values = self.deliver(request).await?;
        let mut unknown = request.without_script(&values);
        let mut answers: Vec<Answer> = values.into_iter().map(read).collect();
        // Redis was restarted, or its scripts were flushed: nothing of these calls was done. Twice, as the repetition
        // may be the request that moves to a new primary, which does not know the scripts either.
        for _ in 0..2 {
            if unknown.is_empty() {
                break;
            }
            unknown = self.load_and_repeat(request, &unknown, &mut answers).await?;
        }
        Ok(answers)
    }

    /// Loads the scripts of these commands, sends the commands again, and replaces their answers. Returns the commands
    /// whose scripts are still unknown.
    async fn load_and_repeat(
        &self,
        request: &Request,
        unknown: &[usize],
        answers: &mut [Answer],
    ) -> Result<Vec<usize>, QueueErrorKind> {
        let refused = self.load(&request.scripts(unknown)).await;
        let repeated = request.only(unknown);
        let values = match self.deliver(&repeated).await {
            Ok(values) => values,
            Err(error) if unknown.len() == answers.len() => return Err(error),
            Err(error) => {
                let broken = || QueueErrorKind::Broken(error.to_string().into());
                unknown.iter().for_each(|&i| answers[i] = Err(broken()));
                return Ok(Vec::new());
            }
        };
        let still = repeated.without_script(&values).into_iter().map(|i| unknown[i]).collect();
        for (&i, value) in unknown.iter().zip(values) {
            answers[i] = match &refused {
                Some(why) if is_noscript(&value) => Err(QueueErrorKind::Refused(why.clone())),
                _ => read(value),
            };
        }
        Ok(if refused.is_some() { Vec::new() } else { still })
    }

    /// Loads scripts. Returns Redis's reason where it refuses one. Callers need not load: the link itself loads a
    /// script that Redis turns out not to know.
    pub(super) async fn load(&self, scripts: &[&'static Script]) -> Option<String> {
        let mut load = Request::new();
        for script in scripts {
            load.add(redis::cmd("SCRIPT").arg("LOAD").arg(script.text()));
        }
        let loaded = self.deliver(&load).await.and_then(|answers| answers.into_iter().try_for_each(read));
        let error = loaded.err()?;
        let names: Vec<_> = scripts.iter().map(|script| script.name()).collect();
        tracing::warn!(?names, %error, "loading scripts into Redis failed; their calls fail");
        if let QueueErrorKind::Refused(why) = error { Some(why) } else { None }
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
        let pause = self.inner.state().health.pause(Instant::now());
        tokio::time::sleep(pause).await;
        let answer = self.deliver(&Request::probe(&self.inner.probe)).await?.into_iter().map(read::<Value>).next();
        match answer {
            Some(Err(error)) if is_no_primary(&error) => Err(error),
            _ => Ok(self.inner.state().health.generation()),
        }
    }

    /// Drops the connection of a shared link. The next request makes another.
    pub(super) fn disconnect(&self) {
        let generation = self.inner.state().health.generation();
        self.inner.forget(generation);
    }

    /// Sends a request. Repeats the request once, over a new connection, where its server turns out to be no primary
    /// and [`Request::is_repeatable`] allows that. No repetition happens while the pause before the next connection
    /// lasts.
    async fn deliver(&self, request: &Request) -> Result<Vec<Value>, QueueErrorKind> {
        let (mut result, again) = self.deliver_once(request).await;
        if again {
            (result, _) = self.deliver_once(request).await;
        }
        match result {
            Ok(answers) if answers.len() != request.len() => {
                Err(QueueErrorKind::Broken("answers of an unexpected number".into()))
            }
            result => result,
        }
    }

    /// Sends a request. Returns its result, and whether the request is to be sent again: its server was no primary, a
    /// repetition does no harm, and another connection may be made at once.
    async fn deliver_once(&self, request: &Request) -> (Result<Vec<Value>, QueueErrorKind>, bool) {
        let inner = &*self.inner;
        let (made, connection, is_check_due) = match self.inner.connected().await {
            Ok(connected) => connected,
            Err(error) => return (Err(error), false),
        };
        let probe = is_check_due && !request.is_probe;
        // The probe travels before the request, and costs no round trip.
        let probed = async { if probe { Some(connection.send(&inner.probe).await) } else { None } };
        let under_way = inner.line.begin(self.is_for_large_answers || request.bytes() >= LARGE);
        let time = request.time().unwrap_or_else(|| under_way.time());
        let sent = Instant::now();
        let both = future::join(probed, connection.send(request.commands()));
        let Ok((probed, result)) = tokio::time::timeout(time, both).await else {
            // The line learns once for each connection: all requests that share a connection time out together.
            if inner.is_shared() && inner.forget(made) {
                under_way.timed_out();
            }
            return (Err(no_answer(time)), false);
        };
        drop(under_way);
        if !inner.is_shared() {
            return (result.map_err(kind), false);
        }
        if let (true, Ok(answers)) = (self.is_for_large_answers, &result) {
            inner.line.learn_answer(answers.iter().map(size).sum(), sent.elapsed());
        }
        if probed.iter().any(|probe| probe.as_ref().is_err_and(is_broken)) || result.as_ref().is_err_and(is_broken) {
            inner.forget(made);
            return (result.map_err(kind), false);
        }
        let probe_refused = probed.iter().flatten().flatten().any(refuses);
        let any_refused = result.iter().flatten().any(refuses);
        if probe_refused || any_refused {
            let is_repeatable = result.as_ref().is_ok_and(|answers| request.is_repeatable(answers));
            return (result.map_err(kind), inner.replace(made) && is_repeatable);
        }
        if probed.is_some() || request.is_probe {
            inner.state().health.mark_primary(made);
        }
        (result.map_err(kind), false)
    }
}
