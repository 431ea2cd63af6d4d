//! The connection that a process shares for commands that do not block: made when it is wanted, and made anew when it broke,
//! fell silent, or leads to a server that cannot write.
//!
//! redis-rs's `ConnectionManager` keeps a connection that answers nothing, one to a server that has become a replica, and a
//! refused password, until its process ends.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{
    Arg, Client, Cmd, ErrorKind, Pipeline, PushKind, RedisError, RedisFuture, RedisResult, ServerErrorKind, Value,
};
use tokio::runtime::Handle;

use super::connection::{ANSWER_TIMEOUT, CONNECT_TIMEOUT, connect, is_broken};
use super::primary::{CHECK_EVERY, is_no_primary};
use super::{CALL_BYTES, CALL_MESSAGES};
use crate::backend::LineLimit;
use crate::lock::lock;
use crate::retry::Backoff;

/// How long an attempt is left to the runtime that is to drive the connection: longer than it lasts.
const AT_HOME: Duration = CONNECT_TIMEOUT.saturating_add(Duration::from_secs(1));

/// Bytes from which a request counts as large. Less passes any line within the time for an answer.
const LARGE: usize = 16 * 1024;

#[derive(Clone)]
pub(super) struct SharedConnection {
    inner: Arc<Inner>,
    /// Whether answers may be large, as [`LARGE`] says.
    is_for_large_answers: bool,
}

struct Inner {
    client: Client,
    /// Where the connection is driven. Whoever needs one first may run on a subscriber's arbiter, which ends with it.
    home: Handle,
    /// Sent beside a command when the last check is [`CHECK_EVERY`] old: a replica answers reads and `PUBLISH` too.
    probe: Cmd,
    /// Pauses between connections while each of them leads to a server that is no primary.
    backoff: Backoff,
    /// Bounds of large requests and answers, and what they teach about the line. Small ones have [`ANSWER_TIMEOUT`].
    line: Mutex<LineLimit>,
    /// Number of large requests under way: what is sent behind them has their time.
    large: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The number of the connection: what went wrong with an earlier one says nothing of this one.
    made: u64,
    current: Option<Connecting>,
    /// When the current connection was begun.
    begun: Option<Instant>,
    /// When the current connection was last checked; `None` where a check is due.
    checked: Option<Instant>,
    /// When an answer to a large request last did not come in time.
    timed_out: Option<Instant>,
    /// Number of connections in a row that were replaced because their server was no primary.
    unfit: u32,
}

/// Commands that are sent together.
#[derive(Clone, Copy)]
enum Request<'a> {
    One(&'a Cmd),
    Many(&'a Pipeline, usize, usize),
}

/// One attempt, for all who wait for it. Who comes after it failed makes the next one, also where nobody waited any more.
type Connecting = future::Shared<future::BoxFuture<'static, RedisResult<MultiplexedConnection>>>;

impl SharedConnection {
    /// Makes none yet.
    pub(super) fn new(client: Client, probe: Cmd, backoff: Backoff, message_max_bytes: usize) -> Self {
        let line = Mutex::new(LineLimit::new(CALL_MESSAGES, CALL_BYTES).for_messages_of(message_max_bytes));
        let (home, large, state) = (Handle::current(), AtomicUsize::new(0), Mutex::default());
        let inner = Inner { client, home, probe, backoff, line, large, state };
        Self { inner: Arc::new(inner), is_for_large_answers: false }
    }

    /// The same connection, with more time after answers that did not come in time.
    pub(super) fn for_large_answers(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), is_for_large_answers: true }
    }

    /// Bounds of the next large request.
    pub(super) fn limit(&self) -> LineLimit {
        *lock(&self.inner.line)
    }

    /// Learns from a request or an answer that moved this many messages and bytes.
    pub(super) fn learn(&self, messages: usize, bytes: usize, took: Duration) {
        let mut line = lock(&self.inner.line);
        // What is small passes any line, and says nothing of the time that large ones need.
        if bytes >= LARGE { line.succeeded(messages, bytes, took) } else { line.grow(messages, bytes) }
    }

    /// Returns the number of the current connection, the attempt that makes it, and whether it is to be checked.
    fn connecting(&self) -> (u64, Connecting, bool) {
        let mut state = self.inner.state();
        let connecting = match &state.current {
            Some(current) => current.clone(),
            None => {
                state.made += 1;
                let connecting = self.connect(state.made).boxed().shared();
                state.current = Some(connecting.clone());
                (state.begun, state.checked) = (Some(Instant::now()), None);
                connecting
            }
        };
        let check = state.checked.is_none_or(|at| at.elapsed() >= CHECK_EVERY);
        if check {
            state.checked = Some(Instant::now());
        }
        (state.made, connecting, check)
    }

    fn connect(&self, made: u64) -> impl Future<Output = RedisResult<MultiplexedConnection>> + Send + 'static {
        let Inner { client, home, .. } = &*self.inner;
        let (client, home, inner) = (client.clone(), home.clone(), Arc::downgrade(&self.inner));
        let attempt = move |client: Client, inner: Weak<Inner>| async move {
            let failed = inner.clone();
            let broken = move |push: redis::PushInfo| {
                if let (PushKind::Disconnection, Some(inner)) = (push.kind, inner.upgrade()) {
                    inner.forget(made);
                }
            };
            let connected = connect(&client, broken).await;
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

    /// Sends a request. Where its server turns out to be no primary, and did nothing of the request, the request is sent once more
    /// over a new connection, if one may be made already.
    async fn send(&self, request: Request<'_>) -> RedisResult<Vec<Value>> {
        let (result, again) = self.send_once(request).await;
        if again { self.send_once(request).await.0 } else { result }
    }

    /// Sends a request, and returns whether it may be sent again: its server was no primary, and another may be asked.
    async fn send_once(&self, request: Request<'_>) -> (RedisResult<Vec<Value>>, bool) {
        let (made, connecting, check) = self.connecting();
        let mut connection = match connecting.await {
            Ok(connection) => connection,
            Err(error) => return (Err(error), false),
        };
        let mut checking = connection.clone();
        // The probe is sent first, and costs no round trip.
        let probed = async { if check { Some(checking.req_packed_command(&self.inner.probe).await) } else { None } };
        let answered = async {
            match request {
                Request::One(command) => connection.req_packed_command(command).await.map(|answer| vec![answer]),
                Request::Many(pipeline, offset, count) => connection.req_packed_commands(pipeline, offset, count).await,
            }
        };
        let _large = (self.is_for_large_answers || request.bytes() >= LARGE).then(|| Large::begin(&self.inner.large));
        let is_behind_large = self.inner.large.load(Ordering::Relaxed) > 0;
        let time = if is_behind_large { self.limit().time() } else { ANSWER_TIMEOUT };
        let sent = Instant::now();
        let Ok((probed, result)) = tokio::time::timeout(time, future::join(probed, answered)).await else {
            // One lesson for each connection: all requests that share it time out together.
            if self.inner.forget(made) && is_behind_large {
                self.inner.learn_timeout();
            }
            return (Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {time:?}")).into()), false);
        };
        if let (true, Ok(answers)) = (self.is_for_large_answers, &result) {
            // How many messages they were is not known here.
            let (bytes, took) = (answers.iter().map(size).sum(), sent.elapsed());
            self.learn(self.limit().messages(), bytes, took);
            if bytes < LARGE {
                self.inner.shorten(took);
            }
        }
        if probed.iter().any(|probe| probe.as_ref().is_err_and(is_broken)) || result.as_ref().is_err_and(is_broken) {
            self.inner.forget(made);
            return (result, false);
        }
        let probe_refused = probed.as_ref().is_some_and(|probe| match probe {
            Ok(answer) => refuses(answer),
            Err(error) => is_no_primary(error),
        });
        let (all_refused, any_refused) = match &result {
            // Each by itself: a replica may become the primary, and a server may end loading, between two of them.
            Ok(answers) => (answers.iter().all(did_nothing), answers.iter().any(refuses)),
            Err(error) => (is_no_primary(error), is_no_primary(error)),
        };
        if probe_refused || any_refused {
            // An answer that was not refused is a replica's. For a single command another is asked: each of ours may be done
            // twice. A pipeline may have pushes in it, which may not.
            let again = all_refused || matches!(request, Request::One(_));
            return (result, self.inner.replace(made) && again);
        }
        if probed.is_some() {
            self.inner.mark_primary(made);
        }
        (result, false)
    }
}

/// A large request under way, until it is dropped.
struct Large<'a>(&'a AtomicUsize);

impl<'a> Large<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Large<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Request<'_> {
    /// Number of bytes of the arguments, which are nearly all that is sent.
    fn bytes(self) -> usize {
        let of = |command: &Cmd| -> usize {
            let length = |argument| if let Arg::Simple(bytes) = argument { <[u8]>::len(bytes) } else { 0 };
            command.args_iter().map(length).sum()
        };
        match self {
            Self::One(command) => of(command),
            Self::Many(pipeline, ..) => pipeline.cmd_iter().map(of).sum(),
        }
    }
}

/// Number of bytes of an answer, about.
fn size(answer: &Value) -> usize {
    match answer {
        Value::BulkString(bytes) => bytes.len(),
        Value::Array(answers) => answers.iter().map(size).sum(),
        _ => 0,
    }
}

/// Returns whether an answer says that its server is no primary. redis-rs gives such an answer as an `Ok` value.
fn refuses(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if is_no_primary(&error.clone().into()))
}

/// Returns whether an answer says that nothing was done: by a server that is no primary, or that does not know the script.
fn did_nothing(answer: &Value) -> bool {
    let is_noscript = |error: &RedisError| error.kind() == ErrorKind::Server(ServerErrorKind::NoScript);
    refuses(answer) || matches!(answer, Value::ServerError(error) if is_noscript(&error.clone().into()))
}

impl Inner {
    /// Drops a connection, and returns whether it was the current one.
    fn forget(&self, made: u64) -> bool {
        let mut state = self.state();
        let over = if state.made == made { state.current.take() } else { None };
        // Its end may be told here again, so the lock is given back first.
        drop(state);
        over.is_some()
    }

    /// Learns from a large request whose answer did not come in time.
    fn learn_timeout(&self) {
        self.state().timed_out = Some(Instant::now());
        lock(&self.line).timed_out();
    }

    /// Learns from a small answer to a request that had the time of large ones: where it was quick, the time is halved.
    ///
    /// Not soon after a timeout: the large request is repeated meanwhile, and needs the time that it has reached.
    fn shorten(&self, took: Duration) {
        let timed_out = self.state().timed_out;
        let mut line = lock(&self.line);
        if timed_out.is_none_or(|at| at.elapsed() > line.time()) {
            line.answered(took);
        }
    }

    /// Drops a connection whose server is no primary, and returns whether the next one may be made already. While each new
    /// connection leads to such a server they are made with growing pauses, and the current one serves meanwhile.
    fn replace(&self, made: u64) -> bool {
        let unfit = {
            let mut state = self.state();
            if state.made != made || state.current.is_none() {
                // Another request has replaced the connection.
                return true;
            }
            state.checked = None;
            // The first one at once: it led to a primary until now.
            let earlier = state.unfit.checked_sub(1);
            let pause = earlier.map_or(Duration::ZERO, |earlier| self.backoff.pause(earlier, fastrand::f64()));
            if state.begun.is_some_and(|at| at.elapsed() < pause) {
                return false;
            }
            state.unfit = state.unfit.saturating_add(1);
            state.unfit
        };
        if unfit.is_power_of_two() {
            tracing::warn!(
                unfit,
                "the shared connection leads to a Redis that is no primary; making another connection"
            );
        }
        self.forget(made);
        true
    }

    /// Ends the pauses: the connection leads to a primary.
    fn mark_primary(&self, made: u64) {
        let mut state = self.state();
        if state.made == made {
            state.unfit = 0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl ConnectionLike for SharedConnection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move { Ok(self.send(Request::One(command)).await?.pop().unwrap_or(Value::Nil)) })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.send(Request::Many(pipeline, offset, count)))
    }

    fn get_db(&self) -> i64 {
        self.inner.client.get_connection_info().redis_settings().db()
    }
}
