//! Waiting for answers: any number of questions of this process on one connection.
//!
//! Each question's answer key is read over a connection with client tracking, so the server tells of the next change to it
//! ([`touch`]). What a lost message, a reconnect or a full tracking table could hide, a round of touches every few seconds
//! finds; the same round says that the askers live. The first round in which nobody waits ends it all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{Client, PushInfo, PushKind, RedisResult, Value};
use tokio::sync::Notify;

use super::{collect, touch};
use crate::error::QueueErrorKind;
use crate::keys::ElicitKeys;
use crate::question::Answer;
use crate::queue::redis::connection::{kind, tracking, within};

/// How long an asker that says nothing is believed to live: three rounds.
pub(in crate::queue::redis) const ALIVE: Duration = Duration::from_secs(15);

/// How often every question is touched.
const ROUND: Duration = Duration::from_secs(5);

/// How long to wait after the connection failed.
const PAUSE: Duration = Duration::from_millis(500);

/// How long FastMCP may take to give an answer from when it lies there, and how often that is looked at.
const GIVING: Duration = Duration::from_secs(1);
const GLANCE: Duration = Duration::from_millis(2);

/// How many questions are touched in one pipeline.
const PIPELINE: usize = 500;

pub(in crate::queue::redis) struct Waits {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    state: Mutex<State>,
    /// A question is new, or its answer key is no longer tracked.
    work: Notify,
}

#[derive(Default)]
struct State {
    waiting: HashMap<String, Arc<Waiting>>,
    /// The answer keys of those to be touched at once.
    untouched: Vec<String>,
    running: bool,
    connection: Option<MultiplexedConnection>,
    /// The number of that connection: what an earlier one still says is of no account.
    made: u64,
}

struct Waiting {
    keys: ElicitKeys,
    request_id: String,
    /// There may be an answer.
    look: Notify,
}

/// Takes a question out when nobody waits for it any more.
struct Registered<'a> {
    shared: &'a Shared,
    waiting: Arc<Waiting>,
}

impl Waits {
    pub(in crate::queue::redis) fn new(client: Client) -> Self {
        Self { shared: Arc::new(Shared { client, state: Mutex::default(), work: Notify::new() }) }
    }

    /// Waits until there is an answer. What fails on the way is tried again: the caller brings its own patience.
    pub(in crate::queue::redis) async fn answer_to(&self, keys: ElicitKeys, request_id: &str) -> Answer {
        let registered = self.shared.register(keys, request_id);
        loop {
            registered.waiting.look.notified().await;
            match self.shared.collect(&registered.waiting).await {
                Ok(Some(answer)) => return answer,
                // Told of something else.
                Ok(None) => {}
                // Not to be had just now: without the pause a key that holds something else would be read in a tight loop.
                Err(error) => {
                    tracing::debug!(%error, "an answer cannot be read; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            // It is tracked again by that, and looked at if there is an answer.
            self.shared.touch_soon(&registered.waiting.keys.response);
        }
    }
}

impl Shared {
    fn register(self: &Arc<Self>, keys: ElicitKeys, request_id: &str) -> Registered<'_> {
        let waiting = Arc::new(Waiting { keys, request_id: request_id.to_owned(), look: Notify::new() });
        let response = waiting.keys.response.clone();
        self.state().waiting.insert(response.clone(), Arc::clone(&waiting));
        self.touch_soon(&response);
        Registered { shared: self, waiting }
    }

    fn touch_soon(self: &Arc<Self>, response: &str) {
        let start = {
            let mut state = self.state();
            state.untouched.push(response.to_owned());
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            tokio::spawn(Running { shared: Arc::downgrade(self), over: false }.run());
        }
        self.work.notify_one();
    }

    async fn collect(&self, waiting: &Waiting) -> Result<Option<Answer>, QueueErrorKind> {
        let Some(mut connection) = self.state().connection.clone() else {
            return Err(QueueErrorKind::Broken("no connection yet".into()));
        };
        let ElicitKeys { request, response, status, asker } = &waiting.keys;
        let began = Instant::now();
        let answer = loop {
            let how = if began.elapsed() < GIVING { "wait" } else { "take" };
            let mut invocation = collect::SCRIPT.prepare_invoke();
            invocation.key(&[request, response, status, asker]).arg(&[&waiting.request_id, how]);
            match within(Duration::ZERO, invocation.invoke_async(&mut connection)).await? {
                collect::BEING_GIVEN => tokio::time::sleep(GLANCE).await,
                answer => break answer,
            }
        };
        collect::answer(answer, &waiting.request_id).map_err(|e| QueueErrorKind::Refused(e.to_string()))
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
        let mut connection = within(Duration::ZERO, tracking(&self.client, pushed)).await?;
        let mut pipe = redis::pipe();
        pipe.cmd("SCRIPT").arg("LOAD").arg(touch::CODE).ignore();
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
                        waiting.look.notify_one();
                    }
                }
            }
            // Everything may have changed.
            (PushKind::Invalidate, _) => state.waiting.values().for_each(|waiting| waiting.look.notify_one()),
            (PushKind::Disconnection, _) if made == state.made => {
                state.connection = None;
                self.work.notify_one();
            }
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way, so what a poisoned lock holds is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        // A later question of the same task may have taken the place.
        let response = &self.waiting.keys.response;
        if state.waiting.get(response).is_some_and(|waiting| Arc::ptr_eq(waiting, &self.waiting)) {
            state.waiting.remove(response);
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
        while let Some(shared) = self.shared.upgrade() {
            let connection = shared.state().connection.clone();
            let Some(mut connection) = connection else {
                if let Err(error) = shared.connect().await {
                    if self.is_over(&mut shared.state()) {
                        return;
                    }
                    tracing::warn!(%error, "no connection to wait for answers on; trying again");
                    tokio::time::sleep(PAUSE).await;
                } else {
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
                    untouched.iter().filter_map(|response| state.waiting.get(response).cloned()).collect()
                } else if self.is_over(&mut state) {
                    return;
                } else {
                    state.waiting.values().cloned().collect()
                }
            };
            for some in touched.chunks(PIPELINE) {
                if let Err(error) = touch_all(&mut connection, some).await {
                    tracing::warn!(%error, "the connection to wait for answers on failed; making another");
                    shared.state().connection = None;
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
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
            state.waiting.values().for_each(|waiting| waiting.look.notify_one());
        }
    }
}

/// Touches questions, and has those with an answer looked at.
async fn touch_all(connection: &mut MultiplexedConnection, all: &[Arc<Waiting>]) -> Result<(), QueueErrorKind> {
    let mut pipe = redis::pipe();
    for Waiting { keys, request_id, .. } in all.iter().map(Arc::as_ref) {
        pipe.cmd("EVALSHA").arg(touch::SCRIPT.get_hash()).arg(3).arg(&keys.asker).arg(&keys.response);
        pipe.arg(&keys.request).arg(request_id).arg(ALIVE.as_millis().to_string());
    }
    let answers: Vec<RedisResult<Value>> = within(Duration::ZERO, pipe.ignore_errors().query_async(connection)).await?;
    for (waiting, answer) in all.iter().zip(answers) {
        match answer {
            Ok(Value::Int(0)) => {}
            Ok(_) => waiting.look.notify_one(),
            // The script was flushed: a new connection loads it again.
            Err(error) if error.kind() == redis::ErrorKind::Server(redis::ServerErrorKind::NoScript) => {
                return Err(kind(error));
            }
            // Something is wrong with this one, as with a key that holds something else. The others go on, and the next
            // round looks again.
            Err(error) => tracing::warn!(%error, "a question cannot be looked at"),
        }
    }
    Ok(())
}
