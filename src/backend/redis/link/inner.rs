//! The connection of a link: made when it is wanted, dropped when it is lost or unfit, and made again.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future;
use redis::{Pipeline, RedisResult};
use tokio::runtime::Handle;

use super::connection::{CONNECT_TIMEOUT, Connection, Push, Server};
use super::health::Health;
use super::line::Line;
use super::primary;
use super::pushes::Pushes;
use super::watches::{LinkEvent, Watches};
use crate::backend::LineLimit;
use crate::backend::redis::push::{CALL_BYTES, CALL_MESSAGES};
use crate::config::Config;
use crate::failure::QueueErrorKind;
use crate::keys::Keys;
use crate::lock::lock;

/// Connection of a link, and what is known of it.
pub(super) struct Inner {
    server: Server,
    pushes: Pushes,
    /// Runtime that drives a shared link's connection: the first to need one may run on a subscriber's arbiter, which ends with
    /// that subscriber. `None` for a dedicated link.
    home: Option<Handle>,
    /// Sent beside a request when a check of the connection is due: a replica answers reads and `PUBLISH` too.
    pub(super) probe: Pipeline,
    pub(super) line: Line,
    pub(super) watches: Arc<Watches>,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) health: Health,
    current: Option<Connecting>,
}

/// Attempt to connect, for all who wait for it. Who comes after it failed makes the next one, also where nobody waited any more.
pub(super) type Connecting = future::Shared<future::BoxFuture<'static, RedisResult<Connection>>>;

impl Inner {
    pub(super) fn new(server: Server, config: &Config, pushes: Pushes, home: Option<Handle>) -> Self {
        let limit = LineLimit::new(CALL_MESSAGES, CALL_BYTES).for_messages_of(config.message_max_bytes());
        Self {
            server,
            pushes,
            home,
            probe: primary::probe(&Keys::new(config.prefix())),
            line: Line::new(limit),
            watches: Arc::default(),
            state: Mutex::new(State { health: Health::new(config.backoff()), current: None }),
        }
    }

    pub(super) fn is_shared(&self) -> bool {
        self.home.is_some()
    }

    /// Returns the number of the current connection, the attempt that makes it, and whether it is to be checked.
    pub(super) fn connecting(self: &Arc<Self>) -> Result<(u64, Connecting, bool), QueueErrorKind> {
        let mut state = self.state();
        let connecting = match &state.current {
            Some(current) => current.clone(),
            None if !self.is_shared() && state.health.generation() > 0 => {
                return Err(QueueErrorKind::Broken("the connection is lost".into()));
            }
            None => {
                let made = state.health.begin();
                let connecting = self.connect(made).boxed().shared();
                state.current = Some(connecting.clone());
                connecting
            }
        };
        let is_check_due = self.is_shared() && state.health.begin_check(Instant::now());
        Ok((state.health.generation(), connecting, is_check_due))
    }

    fn connect(self: &Arc<Self>, made: u64) -> impl Future<Output = RedisResult<Connection>> + Send + 'static {
        let (server, pushes, home) = (self.server.clone(), self.pushes.clone(), self.home.clone());
        let inner = Arc::downgrade(self);
        async move {
            let attempt = || attempt(server.clone(), pushes.clone(), inner.clone(), made);
            if let Some(home) = home {
                let mut at_home = home.spawn(attempt());
                // Longer than the attempt lasts.
                let time = CONNECT_TIMEOUT + pushes.time() + Duration::from_secs(1);
                if let Ok(Ok(connected)) = tokio::time::timeout(time, &mut at_home).await {
                    return connected;
                }
                // That runtime has ended, or nobody drives it.
                at_home.abort();
            }
            attempt().await
        }
    }

    /// Tells those who registered of a push over the connection with this number.
    fn dispatch(&self, made: u64, push: &Push) {
        match push {
            Push::Changed(keys) => keys.iter().for_each(|key| self.watches.tell(key, LinkEvent::Changed)),
            Push::AllChanged => self.watches.tell_all(LinkEvent::Changed),
            Push::Message { channel, text } => self.watches.tell(channel, LinkEvent::Message(text)),
            Push::Disconnected => {
                self.forget(made);
            }
        }
    }

    /// Drops a connection, and returns whether it was the current one.
    pub(super) fn forget(&self, made: u64) -> bool {
        let over = self.take(made).is_some();
        if over {
            self.watches.tell_all(LinkEvent::Lost);
        }
        over
    }

    /// Notes that an attempt failed.
    fn failed(&self, made: u64) {
        if self.take(made).is_some() {
            self.state().health.failed(Instant::now(), fastrand::f64());
        }
    }

    fn take(&self, made: u64) -> Option<Connecting> {
        let mut state = self.state();
        if state.health.generation() == made { state.current.take() } else { None }
    }

    /// Drops a connection whose server is no primary, and returns whether the next one may be made already. While each new
    /// connection leads to such a server they are made with growing pauses, and the current one serves meanwhile.
    pub(super) fn replace(&self, made: u64) -> bool {
        let failures = {
            let mut state = self.state();
            if state.health.generation() != made || state.current.is_none() {
                // Another request has replaced the connection.
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

/// Makes a connection, and asks for its pushes.
async fn attempt(server: Server, pushes: Pushes, inner: Weak<Inner>, made: u64) -> RedisResult<Connection> {
    let pushed = {
        let inner = inner.clone();
        move |push| {
            if let Some(inner) = inner.upgrade() {
                inner.dispatch(made, &push);
            }
        }
    };
    let connected = async {
        let connection = server.connect(pushed).await?;
        pushes.ask(&connection).await?;
        Ok(connection)
    };
    let connected = connected.await;
    // Here, and not by those who wait: all of them may have gone, and the next must not be told of an old failure.
    if let (Err(_), Some(inner)) = (&connected, inner.upgrade()) {
        inner.failed(made);
    }
    connected
}
