//! The connection that a process shares for commands that do not block: made when it is wanted, and made anew when it broke,
//! fell silent, or leads to a server that cannot write.
//!
//! redis-rs's `ConnectionManager` keeps a connection that answers nothing, one to a server that has become a replica, and a
//! refused password, until its process ends.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{Client, Cmd, Pipeline, PushKind, RedisFuture, RedisResult, Value};
use tokio::runtime::Handle;

use super::connection::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, connect, is_over};
use crate::lock::lock;

/// How long an attempt is left to the runtime that is to drive the connection: longer than it lasts.
const AT_HOME: Duration = CONNECT_TIMEOUT.saturating_add(Duration::from_secs(1));

#[derive(Clone)]
pub(super) struct SharedConnection(Arc<Inner>);

struct Inner {
    client: Client,
    /// Where the connection is driven. Whoever needs one first may run on a subscriber's arbiter, which ends with it.
    home: Handle,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of the connection: what went wrong with an earlier one says nothing of this one.
    made: u64,
    current: Option<Connecting>,
}

/// One attempt, for all who wait for it. Who comes after it failed makes the next one, also where nobody waited any more.
type Connecting = future::Shared<future::BoxFuture<'static, RedisResult<MultiplexedConnection>>>;

impl SharedConnection {
    /// Makes none yet.
    pub(super) fn new(client: Client) -> Self {
        Self(Arc::new(Inner { client, home: Handle::current(), state: Mutex::default() }))
    }

    fn connecting(&self) -> (u64, Connecting) {
        let mut state = self.0.state();
        if let Some(current) = &state.current {
            return (state.made, current.clone());
        }
        state.made += 1;
        let connecting = self.connect(state.made).boxed().shared();
        state.current = Some(connecting.clone());
        (state.made, connecting)
    }

    fn connect(&self, made: u64) -> impl Future<Output = RedisResult<MultiplexedConnection>> + Send + 'static {
        let Inner { client, home, .. } = &*self.0;
        let (client, home, inner) = (client.clone(), home.clone(), Arc::downgrade(&self.0));
        let attempt = move |client: Client, inner: Weak<Inner>| async move {
            let failed = inner.clone();
            let broken = move |push: redis::PushInfo| {
                if let (PushKind::Disconnection, Some(inner)) = (push.kind, inner.upgrade()) {
                    inner.forget(made);
                }
            };
            let connected = connect(&client, Some(ANSWER_TIMEOUT), broken).await;
            // Here, and not by those who wait: all of them may have gone, and the next must not be told of an old failure.
            if let (Err(_), Some(inner)) = (&connected, failed.upgrade()) {
                inner.forget(made);
            }
            connected
        };
        async move {
            let mut at_home = home.spawn(attempt(client.clone(), inner.clone()));
            match tokio::time::timeout(AT_HOME, &mut at_home).await {
                Ok(Ok(connected)) => connected,
                // That runtime has ended, or nobody drives it.
                _ => {
                    at_home.abort();
                    attempt(client, inner).await
                }
            }
        }
    }

    async fn connected(&self) -> RedisResult<(u64, MultiplexedConnection)> {
        let (made, connecting) = self.connecting();
        Ok((made, connecting.await?))
    }
}

impl Inner {
    fn forget(&self, made: u64) {
        let mut state = self.state();
        let over = if state.made == made { state.current.take() } else { None };
        // Its end may be told here again, so the lock is given back first.
        drop(state);
        drop(over);
    }

    /// After an answer, or none.
    fn judge<T>(&self, made: u64, result: &RedisResult<T>) {
        if result.as_ref().is_err_and(is_over) {
            self.forget(made);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl ConnectionLike for SharedConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let (made, mut connection) = self.connected().await?;
            let result = connection.req_packed_command(command).await;
            self.0.judge(made, &result);
            result
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            let (made, mut connection) = self.connected().await?;
            let result = connection.req_packed_commands(pipeline, offset, count).await;
            self.0.judge(made, &result);
            for answer in result.iter().flatten() {
                if let Value::ServerError(error) = answer {
                    self.0.judge(made, &RedisResult::<()>::Err(error.clone().into()));
                }
            }
            result
        })
    }

    fn get_db(&self) -> i64 {
        self.0.client.get_connection_info().redis_settings().db()
    }
}
