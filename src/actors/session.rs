//! [`SessionActor`]: wraps one MCP session; expiry, hand-over, and what follows a failure.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::FutureExt;

use super::guarded::{Guarded, drop_guarded};
use super::post::{Post, text_of};
use super::questions::Asking;
use crate::backend::Permit;
use crate::config::Config;
use crate::envelope::{Envelope, Timestamp};
use crate::fate::DiscardReason;
use crate::lock::lock;
use crate::question::Question;
use crate::recent::Recent;
use crate::retry::{Verdict, after_failed_attempt};
use crate::session::{HandOverError, Outbound};

/// How much longer than its limit a session may take before its future is dropped: a session that keeps the limit
/// itself, as the `rmcp` adapter does, then answers first.
const GRACE: Duration = Duration::from_secs(1);

/// How long hand-overs that never wait may follow each other before the thread's other tasks have a turn: one of them
/// hears of a takeover.
const TURN: Duration = Duration::from_millis(1);

/// Number of ended tasks that are remembered for one session.
const ENDED_TASKS: usize = 1024;

/// Ended tasks of one session, the newest ones.
///
/// Each is remembered by a hash under a random key: a foreign producer chooses its task ids and their length.
#[derive(Debug)]
pub(super) struct EndedTasks {
    hashes: Recent<u64>,
    key: RandomState,
}

impl Default for EndedTasks {
    fn default() -> Self {
        Self { hashes: Recent::new(ENDED_TASKS), key: RandomState::new() }
    }
}

impl EndedTasks {
    fn contains(&self, task_id: &str) -> bool {
        self.hashes.contains(&self.key.hash_one(task_id))
    }

    fn insert(&mut self, task_id: &str) {
        self.hashes.insert(self.key.hash_one(task_id));
    }
}

/// Wraps one [`McpSession`](crate::McpSession): hands notifications to it, and has it ask questions beside that.
pub struct SessionActor {
    session: Guarded,
    config: Arc<Config>,
    asking: Asking,
    ended: Arc<Mutex<EndedTasks>>,
}

impl std::fmt::Debug for SessionActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionActor").finish_non_exhaustive()
    }
}

impl SessionActor {
    pub(super) fn new(post: &Post, ended: &Arc<Mutex<EndedTasks>>) -> Self {
        let Post { session, config, .. } = post;
        Self {
            session: session.clone(),
            config: Arc::clone(config),
            asking: Asking::new(post),
            ended: Arc::clone(ended),
        }
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;
}

/// Notifications for the session, in order.
#[derive(Debug, Message)]
#[rtype(result = "DeliverOutcome")]
pub struct Deliver {
    /// The notifications.
    pub batch: Vec<Envelope>,
    /// The queue's clock when they were read, and this host's at the same moment.
    pub read_at: (Timestamp, Instant),
    /// Whether they may still be handed over; asked before each.
    pub permit: Arc<Permit>,
}

/// Questions for the session's client, read from the queue at this moment. Those that it is asked already stay as they are.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Ask {
    pub(super) questions: Vec<Question>,
    pub(super) read_at: (Timestamp, Instant),
}

/// The session's questions are another's to ask now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct StopAsking;

/// What became of a [`Deliver`].
#[derive(Debug)]
pub struct DeliverOutcome {
    /// How many, from the first, the session has accepted and confirmed.
    pub accepted: usize,
    /// Why no more.
    pub stopped: Stopped,
    /// Those behind the one that `stopped` speaks of, untouched.
    pub rest: Vec<Envelope>,
}

/// Why a [`Deliver`] stopped behind what was accepted.
#[derive(Debug)]
#[non_exhaustive]
pub enum Stopped {
    /// All were accepted.
    AllAccepted,
    /// The next one is to be discarded.
    Discarded(DiscardReason),
    /// The next one failed and is to be tried again after a pause.
    Failed {
        /// The notification, as it was before this attempt.
        envelope: Box<Envelope>,
        /// What the session said.
        error: String,
        /// How long to wait.
        pause: Duration,
    },
    /// The session cannot take anything now: keep, and wait until it can.
    Parked(String),
    /// The session is over: keep what is queued, and stop.
    Closed,
    /// The permit no longer holds: nothing more was handed over.
    NotPermitted,
}

impl Handler<Deliver> for SessionActor {
    type Result = ResponseFuture<DeliverOutcome>;

    fn handle(&mut self, deliver: Deliver, _: &mut Context<Self>) -> Self::Result {
        Box::pin(hand_over(self.session.clone(), Arc::clone(&self.config), Arc::clone(&self.ended), deliver))
    }
}

impl Handler<Ask> for SessionActor {
    type Result = ();

    fn handle(&mut self, Ask { questions, read_at }: Ask, _: &mut Context<Self>) {
        self.asking.ask(questions, read_at);
    }
}

impl Handler<StopAsking> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: StopAsking, _: &mut Context<Self>) {
        self.asking.stop();
    }
}

async fn hand_over(
    session: Guarded,
    config: Arc<Config>,
    ended: Arc<Mutex<EndedTasks>>,
    deliver: Deliver,
) -> DeliverOutcome {
    let Deliver { batch, read_at: (clock, read), permit } = deliver;
    let limit = config.hand_over_timeout() + GRACE;
    let mut handed = 0;
    let mut stopped = Stopped::AllAccepted;
    let mut batch = batch.into_iter();
    let mut turn = Instant::now();
    for envelope in batch.by_ref() {
        if turn.elapsed() > TURN {
            tokio::task::yield_now().await;
            turn = Instant::now();
        }
        // Before every hand-over, not once a batch: a process that was paused, or displaced, stops here.
        if !permit.holds(Instant::now()) {
            stopped = Stopped::NotPermitted;
            break;
        }
        if envelope.is_expired(clock.plus(read.elapsed())) {
            stopped = Stopped::Discarded(DiscardReason::Expired);
            break;
        }
        let task = envelope.task_status();
        if task.is_some_and(|(id, is_terminal)| !is_terminal && lock(&ended).contains(id)) {
            stopped = Stopped::Discarded(DiscardReason::Superseded);
            break;
        }
        let outbound = Outbound::from(&envelope);
        match attempt(limit, async { session.hand_over(&outbound).await }).await {
            Ok(()) => {
                handed += 1;
                if let Some((id, true)) = task {
                    lock(&ended).insert(id);
                }
            }
            Err(error) => {
                stopped = after(error, envelope, &config);
                break;
            }
        }
    }
    if handed > 0
        && let Err(error) = attempt(limit, async { session.confirm().await }).await
    {
        // What is not confirmed was not delivered, and that is nobody's failed attempt.
        let stopped = match error {
            HandOverError::Closed => Stopped::Closed,
            other => Stopped::Parked(other.to_string()),
        };
        return DeliverOutcome { accepted: 0, stopped, rest: Vec::new() };
    }
    DeliverOutcome { accepted: handed, stopped, rest: batch.collect() }
}

/// One call of the session's, which may take too long or panic.
async fn attempt(limit: Duration, call: impl Future<Output = Result<(), HandOverError>>) -> Result<(), HandOverError> {
    let mut call = Box::pin(AssertUnwindSafe(call).catch_unwind());
    match tokio::time::timeout(limit, call.as_mut()).await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => Err(HandOverError::Transient(format!("the session panicked: {}", text_of(&*panic)))),
        Err(_) => {
            drop_guarded(call);
            Err(HandOverError::Transient(format!("no answer within {limit:?}")))
        }
    }
}

fn after(error: HandOverError, envelope: Envelope, config: &Config) -> Stopped {
    match error {
        HandOverError::Closed => Stopped::Closed,
        HandOverError::NotReady(why) => Stopped::Parked(why),
        HandOverError::Rejected(why) => Stopped::Discarded(DiscardReason::Rejected(why)),
        HandOverError::Transient(error) => {
            match after_failed_attempt(envelope.attempt, config.max_attempts(), config.backoff(), fastrand::f64()) {
                Verdict::Retry(pause) => Stopped::Failed { envelope: Box::new(envelope), error, pause },
                Verdict::Exhausted => Stopped::Discarded(DiscardReason::AttemptsExhausted {
                    attempts: envelope.attempt.saturating_add(1),
                    last_error: error,
                }),
            }
        }
    }
}
