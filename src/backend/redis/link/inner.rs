//! Connection of a link: made at the first request, dropped when it is lost or unusable, and made again.
//!
//! *Generations*. Each attempt to connect has a number, which grows ([`Health`]). A push, a failure or a timeout names
//! the number of its connection. Where another connection is current already, it changes nothing: a late error of a
//! dead connection must not end its successor.
//!
//! *One attempt for all*. Every request that finds no connection waits for the same attempt. Requests of a stalled
//! Redis would otherwise each open a connection of their own
//! (`where_no_primary_can_be_had_connections_are_made_with_pauses_and_not_for_each_command`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future;
use redis::{Pipeline, RedisResult};
use tokio::runtime::Handle;

use super::connection::{CONNECT_TIMEOUT, Connection, Push};
use super::endpoint::Endpoint;
use super::error::{kind, no_answer};
use super::health::Health;
use super::line_capacity::LineCapacity;
use super::primary;
use super::pushes::Pushes;
use super::watches::{LinkEvent, Watches};
use crate::backend::LineLimit;
use crate::backend::redis::push::{CALL_BYTES, CALL_MESSAGES};
use crate::config::Config;
use crate::failure::QueueErrorKind;
use crate::keys::Keys;
use crate::lock::lock;
use crate::metrics;
use crate::retry::Backoff;

/// Parts of a link that all its connections share.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) pushes: Pushes,
    /// Runtime that drives the connections of a shared link; `None` for a dedicated link. See [`State::home`].
    home: Option<Handle>,
    backoff: Backoff,
    /// Write that changes nothing, sent beside a request when a check is due. Without it a replica would pass as a
    /// primary, as it answers reads and `PUBLISH` too.
    probe: Pipeline,
    /// Set where the newest connection announces changed keys.
    pub(super) is_tracking: Arc<AtomicBool>,
    pub(super) line: Arc<LineCapacity>,
    pub(super) watches: Arc<Watches>,
}

impl Common {
    pub(super) fn new(config: &Config, pushes: Pushes, home: Option<Handle>) -> Self {
        let limit = LineLimit::new(CALL_MESSAGES, CALL_BYTES).for_messages_of(config.message_max_bytes());
        Self {
            pushes,
            home,
            backoff: config.backoff(),
            probe: primary::probe(&Keys::new(config.prefix())),
            is_tracking: Arc::default(),
            line: Arc::new(LineCapacity::new(limit)),
            watches: Arc::default(),
        }
    }

    /// Returns the parts for the node of a cluster. The key of the probe has a slot, which most nodes do not serve, so
    /// the probe of a node has no key. The table of slots says which nodes are masters.
    #[cfg(feature = "cluster")]
    pub(super) fn for_nodes(mut self) -> Self {
        self.probe = redis::pipe().cmd("TIME").clone();
        self
    }
}

/// Decides by its name whether a key or channel is announced over a connection.
pub(super) type Scope = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Connection of a link, and everything learned about it.
pub(super) struct Inner {
    endpoint: Endpoint,
    common: Common,
    /// Keys and channels that the connection announces. A lost connection concerns these.
    scope: Scope,
    state: Mutex<State>,
}

impl std::ops::Deref for Inner {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

/// Present connection of a link, and the decisions about the next.
pub(super) struct State {
    pub(super) health: Health,
    /// Attempt or connection that is in use; `None` before the first and after a loss.
    current: Option<Connecting>,
    /// Runtime that drives a shared link's connection: the one that made the link, until that ends. A request's own
    /// runtime will not do. It may be a subscriber's arbiter, which ends with that subscriber and would end the
    /// connection. `None` for a dedicated link.
    home: Option<Handle>,
}

/// Attempt to connect, shared by all who wait for it. After a failed attempt the next caller begins another, also where
/// no one waited for the first. `None` where the runtime that drove the attempt has ended.
type Connecting = future::Shared<future::BoxFuture<'static, Option<RedisResult<Connection>>>>;

impl Inner {
    /// Makes a connection to be, which is opened at the first request.
    pub(super) fn new(endpoint: Endpoint, common: Common, scope: Scope) -> Self {
        let (health, home) = (Health::new(common.backoff), common.home.clone());
        Self { endpoint, common, scope, state: Mutex::new(State { health, current: None, home }) }
    }

    /// Returns the topology of the cluster where the connection leads to the node of one slot.
    #[cfg(all(feature = "cluster", feature = "server"))]
    pub(super) fn topology(&self) -> Option<&Arc<super::topology::Topology>> {
        match &self.endpoint {
            Endpoint::Slot(topology, _) => Some(topology),
            Endpoint::Server(_) => None,
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.common.home.is_some()
    }

    /// Returns the write that changes nothing, by which the server is checked.
    pub(super) fn probe(&self) -> &Pipeline {
        &self.common.probe
    }

    /// Returns the number of the current connection, the attempt that makes it, and whether the connection must be
    /// checked.
    fn connecting(self: &Arc<Self>) -> Result<(u64, Connecting, bool), QueueErrorKind> {
        let mut state = self.state();
        let connecting = match &state.current {
            Some(current) => current.clone(),
            None if !self.is_shared() && state.health.generation() > 0 => {
                return Err(QueueErrorKind::Broken("the connection is lost".into()));
            }
            None => {
                let made = state.health.begin();
                let connecting = self.connect(made, state.home.as_ref());
                state.current = Some(connecting.clone());
                connecting
            }
        };
        let is_check_due = self.is_shared() && state.health.begin_check(Instant::now());
        Ok((state.health.generation(), connecting, is_check_due))
    }

    /// Begins a connection. The waiters of a shared link belong to many runtimes, any of which may end. Therefore the
    /// attempt runs as a task of the `home` runtime: a timer or socket of a waiter's runtime would stop with it, and
    /// stall the others.
    fn connect(self: &Arc<Self>, made: u64, home: Option<&Handle>) -> Connecting {
        let (endpoint, pushes, probe) = (self.endpoint.clone(), self.pushes.clone(), self.probe.clone());
        let attempt = attempt(endpoint, pushes, probe, Arc::downgrade(self), made);
        match home {
            Some(home) => {
                let at_home = home.spawn(attempt);
                async move { at_home.await.ok() }.boxed().shared()
            }
            None => attempt.map(Some).boxed().shared(),
        }
    }

    /// Waits for the connection. Returns its number, and whether it must be checked.
    ///
    /// The runtime that drives a shared link's connections may have ended, or may drive nothing. The caller's runtime
    /// then takes its place.
    pub(super) async fn connected(self: &Arc<Self>) -> Result<(u64, Connection, bool), QueueErrorKind> {
        // Longer than an attempt lasts, so a timeout means that nobody drives the attempt.
        let time = CONNECT_TIMEOUT + self.pushes.time() + Duration::from_secs(1);
        for _ in 0..2 {
            let (made, connecting, is_check_due) = self.connecting()?;
            match tokio::time::timeout(time, connecting).await {
                Ok(Some(connected)) => {
                    return connected.map(|connection| (made, connection, is_check_due)).map_err(kind);
                }
                Ok(None) | Err(_) if self.is_shared() => {
                    self.forget(made);
                    self.state().home = Some(Handle::current());
                }
                Ok(None) | Err(_) => break,
            }
        }
        Err(no_answer(time))
    }

    /// Passes a push over the connection with this number on to those who registered.
    fn dispatch(&self, made: u64, push: &Push) {
        match push {
            Push::Changed(keys) => keys.iter().for_each(|key| self.watches.notify(key, LinkEvent::Changed)),
            Push::AllChanged => self.watches.notify_each(&self.scope, LinkEvent::Changed),
            Push::Message { channel, text } => self.watches.notify(channel, LinkEvent::Message(text)),
            Push::Disconnected => {
                self.forget(made);
            }
        }
    }

    /// Drops the connection with this number. Returns whether that was the current one.
    pub(super) fn forget(&self, made: u64) -> bool {
        let over = self.take(made).is_some();
        if over {
            self.watches.notify_each(&self.scope, LinkEvent::Lost);
        }
        over
    }

    /// Notes that the attempt with this number failed.
    fn failed(&self, made: u64) {
        if self.take(made).is_some() {
            self.state().health.failed(Instant::now(), fastrand::f64());
        }
    }

    fn take(&self, made: u64) -> Option<Connecting> {
        let mut state = self.state();
        if state.health.generation() == made { state.current.take() } else { None }
    }

    /// Drops a connection whose server is no primary. Returns whether the next connection may be made at once. While
    /// each new connection leads to such a server, the pauses grow, and the current connection serves meanwhile.
    pub(super) fn replace(&self, made: u64) -> bool {
        let failures = {
            let mut state = self.state();
            if state.health.generation() != made || state.current.is_none() {
                // Another request has replaced the connection already.
                return true;
            }
            match state.health.replace(Instant::now(), fastrand::f64()) {
                Some(failures) => failures,
                None => return false,
            }
        };
        if failures.is_power_of_two() {
            tracing::warn!(
                failures,
                "a shared connection leads to a Redis that is no primary; making another connection"
            );
        }
        self.forget(made);
        true
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// Makes a connection, and turns on its pushes.
async fn attempt(
    endpoint: Endpoint,
    pushes: Pushes,
    probe: Pipeline,
    inner: Weak<Inner>,
    made: u64,
) -> RedisResult<Connection> {
    let pushed = {
        let inner = inner.clone();
        move |push| {
            if let Some(inner) = inner.upgrade() {
                inner.dispatch(made, &push);
            }
        }
    };
    let connecting = inner.clone();
    let connected = async {
        let (connection, server) = endpoint.connect(&probe, pushed).await?;
        let is_asked = pushes.ask(&server, &connection).await?;
        if let Some(inner) = connecting.upgrade() {
            inner.is_tracking.store(is_asked, Ordering::Relaxed);
        }
        Ok(connection)
    };
    let connected = connected.await;
    let outcome = if made == 1 { "made" } else { "made_again" };
    metrics::REDIS_CONNECTIONS.add(if connected.is_ok() { outcome } else { "failed" }, 1);
    // Noted here and not by the waiters: all of them may have gone. The next caller would then get the error of this
    // old attempt.
    if let (Err(_), Some(inner)) = (&connected, inner.upgrade()) {
        inner.failed(made);
    }
    connected
}
