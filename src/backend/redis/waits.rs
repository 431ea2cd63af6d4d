//! Waiting for what others write: any number of questions and receipts of this process on one connection.
//!
//! Each key is read over a connection with client tracking, so the server tells of the next change to it. What a lost message,
//! a reconnect or a full tracking table could hide, a round of touches every few seconds finds; the same round says that those
//! who asked live. The first round in which nobody waits ends it all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, Cmd, PushInfo, PushKind, RedisError, RedisResult, Value};
use tokio::sync::Notify;

use super::connection::{CONNECT_TIMEOUT, kind, tracking, within};
use super::lua::TOUCH;
use super::primary::{self, is_no_primary, says_no_primary};
use crate::failure::QueueErrorKind;
use crate::lock::lock;

/// How long an asker that says nothing is believed to live: three rounds.
pub(super) const ALIVE: Duration = Duration::from_secs(15);

/// How often everything is touched.
const ROUND: Duration = Duration::from_secs(5);

/// How long to wait after the connection failed.
pub(super) const PAUSE: Duration = Duration::from_millis(500);

/// How many are touched in one pipeline.
const PIPELINE: usize = 500;

pub(super) struct Waits {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    /// Sent once a round: the reads of this connection are answered by a replica too.
    probe: Cmd,
    state: Mutex<State>,
    /// One is new, or its key is no longer tracked.
    work: Notify,
}

#[derive(Default)]
struct State {
    /// Who waits, by the keys that they watch.
    waiting: HashMap<String, Vec<Arc<Waiting>>>,
    /// Those to be touched at once.
    untouched: Vec<Weak<Waiting>>,
    running: bool,
    connection: Option<MultiplexedConnection>,
    /// The number of that connection: what an earlier one still says is of no account.
    made: u64,
}

struct Waiting {
    key: String,
    touch: Cmd,
    is_due: fn(&Value) -> bool,
    /// There may be something to look at.
    look: Notify,
}

/// One who waits; dropped, it waits no more.
pub(super) struct Registered<'a> {
    shared: &'a Arc<Shared>,
    waiting: Arc<Waiting>,
}

impl Waits {
    pub(super) fn new(client: Client, probe: Cmd) -> Self {
        Self { shared: Arc::new(Shared { client, probe, state: Mutex::default(), work: Notify::new() }) }
    }

    /// Has a key watched. `touch` is sent at once, and again in every round: it reads the key last, so that the next change
    /// to it is told of; `is_due` says of its answer whether there is something to look at.
    pub(super) fn register(&self, key: String, touch: Cmd, is_due: fn(&Value) -> bool) -> Registered<'_> {
        let waiting = Arc::new(Waiting { key, touch, is_due, look: Notify::new() });
        self.shared.state().waiting.entry(waiting.key.clone()).or_default().push(Arc::clone(&waiting));
        self.shared.touch_soon(&waiting);
        Registered { shared: &self.shared, waiting }
    }

    /// The connection that all wait on, while there is one.
    pub(super) fn connection(&self) -> Option<MultiplexedConnection> {
        self.shared.state().connection.clone()
    }

    /// Has the connection made anew where an error on it says that its server is no primary.
    pub(super) fn replace_after(&self, error: &QueueErrorKind) {
        if matches!(error, QueueErrorKind::Refused(text) if says_no_primary(text)) {
            self.shared.state().connection = None;
            self.shared.work.notify_one();
        }
    }
}

impl Registered<'_> {
    /// Ends when there may be something to look at, also where that was before this call.
    pub(super) async fn looked(&self) {
        self.waiting.look.notified().await;
    }

    /// Has it touched: after each look, as what was told of once is told of no more.
    pub(super) fn touch_soon(&self) {
        self.shared.touch_soon(&self.waiting);
    }
}

impl State {
    fn all(&self) -> impl Iterator<Item = &Arc<Waiting>> {
        self.waiting.values().flatten()
    }
}

impl Shared {
    fn touch_soon(self: &Arc<Self>, waiting: &Arc<Waiting>) {
        let start = {
            let mut state = self.state();
            state.untouched.push(Arc::downgrade(waiting));
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            tokio::spawn(Running { shared: Arc::downgrade(self), over: false }.run());
        }
        self.work.notify_one();
    }

    async fn connect(self: &Arc<Self>) -> Result<(), QueueErrorKind> {
        let made = {
            let mut state = self.state();
            state.made += 1;
            state.made
        };
        let weak = Arc::downgrade(self);
        let pushed = move |push: PushInfo| {
            if let Some(shared) = weak.upgrade() {
                shared.pushed(made, &push);
            }
        };
        let mut connection = within(CONNECT_TIMEOUT, tracking(&self.client, pushed)).await?;
        primary::check(&mut connection, &self.probe).await?;
        let mut pipe = redis::pipe();
        pipe.cmd("SCRIPT").arg("LOAD").arg(TOUCH.text()).ignore();
        pipe.cmd("CLIENT").arg(&["TRACKING", "ON", "NOLOOP"]).ignore();
        within(Duration::ZERO, pipe.exec_async(&mut connection)).await?;
        self.state().connection = Some(connection);
        Ok(())
    }

    /// What Redis says over the connection that tracks, the one with this number.
    fn pushed(&self, made: u64, push: &PushInfo) {
        let mut state = self.state();
        match (&push.kind, push.data.first()) {
            (PushKind::Invalidate, Some(Value::Array(keys))) => {
                for key in keys {
                    if let Value::BulkString(key) = key
                        && let Some(waiting) = std::str::from_utf8(key).ok().and_then(|key| state.waiting.get(key))
                    {
                        waiting.iter().for_each(|waiting| waiting.look.notify_one());
                    }
                }
            }
            // Everything may have changed.
            (PushKind::Invalidate, _) => state.all().for_each(|waiting| waiting.look.notify_one()),
            (PushKind::Disconnection, _) if made == state.made => {
                state.connection = None;
                self.work.notify_one();
            }
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        if let Some(waiting) = state.waiting.get_mut(&self.waiting.key) {
            waiting.retain(|other| !Arc::ptr_eq(other, &self.waiting));
            if waiting.is_empty() {
                state.waiting.remove(&self.waiting.key);
            }
        }
    }
}

/// The task that touches; it ends when nobody waits, and however it ends another can be started.
struct Running {
    shared: Weak<Shared>,
    over: bool,
}

impl Running {
    async fn run(mut self) {
        let mut round = tokio::time::interval(ROUND);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        round.reset();
        let mut failures = 0_u32;
        while let Some(shared) = self.shared.upgrade() {
            let connection = shared.state().connection.clone();
            let Some(mut connection) = connection else {
                if let Err(error) = shared.connect().await {
                    if self.is_over(&mut shared.state()) {
                        return;
                    }
                    failures = failures.saturating_add(1);
                    // Told the first time, and then each time that there have been twice as many.
                    if failures.is_power_of_two() {
                        tracing::warn!(%error, failures, "no connection to wait on; trying again");
                    }
                    tokio::time::sleep(PAUSE).await;
                } else {
                    failures = 0;
                    // Nothing is tracked on a new connection.
                    round.reset_immediately();
                }
                continue;
            };
            let all = tokio::select! {
                _ = round.tick() => true,
                () = shared.work.notified() => false,
            };
            let touched: Vec<Arc<Waiting>> = {
                let mut state = shared.state();
                let untouched = std::mem::take(&mut state.untouched);
                if !all {
                    untouched.iter().filter_map(Weak::upgrade).collect()
                } else if self.is_over(&mut state) {
                    return;
                } else {
                    state.all().cloned().collect()
                }
            };
            let work = async {
                if all {
                    primary::check(&mut connection, &shared.probe).await?;
                }
                for some in touched.chunks(PIPELINE) {
                    touch_all(&mut connection, some).await?;
                }
                Ok::<(), QueueErrorKind>(())
            };
            if let Err(error) = work.await {
                tracing::warn!(%error, "the connection to wait on failed; making another");
                shared.state().connection = None;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Ends it where nobody waits: under the lock, so that who registers next sees that nobody runs.
    fn is_over(&mut self, state: &mut State) -> bool {
        self.over = state.waiting.is_empty();
        if self.over {
            (state.running, state.connection) = (false, None);
            state.untouched.clear();
        }
        self.over
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Dropped half-way, as its runtime ended. Whoever waits in another one starts it again there.
        if let (false, Some(shared)) = (self.over, self.shared.upgrade()) {
            let mut state = shared.state();
            (state.running, state.connection) = (false, None);
            state.all().for_each(|waiting| waiting.look.notify_one());
        }
    }
}

/// Touches them, and has those looked at that are due.
async fn touch_all(connection: &mut MultiplexedConnection, all: &[Arc<Waiting>]) -> Result<(), QueueErrorKind> {
    let mut pipe = redis::pipe();
    for waiting in all {
        pipe.add_command(waiting.touch.clone());
    }
    let answers: Vec<RedisResult<Value>> = within(Duration::ZERO, pipe.ignore_errors().query_async(connection)).await?;
    let mut failed: Option<(usize, RedisError)> = None;
    for (waiting, answer) in all.iter().zip(answers) {
        match answer {
            Ok(answer) if (waiting.is_due)(&answer) => waiting.look.notify_one(),
            Ok(_) => {}
            // The script was flushed, and a new connection loads it again; or a new connection may lead to a primary.
            Err(error)
                if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript)
                    || is_no_primary(&error) =>
            {
                return Err(kind(error));
            }
            // Something is wrong with this one, as with a key that holds something else. The others go on, and the next
            // round looks again.
            Err(error) => failed.get_or_insert((0, error)).0 += 1,
        }
    }
    if let Some((count, error)) = failed {
        tracing::warn!(%error, count, "what is waited for cannot be looked at");
    }
    Ok(())
}
