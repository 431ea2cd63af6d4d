//! [`SessionActor`]: wraps one MCP session; expiry, hand-over, and what follows a failure.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::FutureExt;

use super::clock;
use super::guarded::{Guarded, drop_guarded, text_of};
use super::post::Post;
use super::questions::Asking;
use super::stop::StopSignal;
use crate::config::Config;
use crate::envelope::{Envelope, Timestamp};
use crate::lock::lock;
use crate::question::Question;
use crate::session::Outbound;
use crate::subscription::{Delivery, EndedTasks, HandOverError, Outcome, Permit, Step};

/// How much longer than its limit a session may take before its future is dropped: a session that keeps the limit
/// itself, as the `rmcp` adapter does, then answers first.
const GRACE: Duration = Duration::from_secs(1);

/// How long hand-overs that never wait may follow each other before the thread's other tasks have a turn: one of them
/// hears of a takeover.
const TURN: Duration = Duration::from_millis(1);

/// Wraps one [`McpSession`](crate::McpSession): hands notifications to it, and has it ask questions beside that.
pub(super) struct SessionActor {
    session: Guarded,
    config: Arc<Config>,
    asking: Asking,
    ended: Arc<Mutex<EndedTasks>>,
    stop: Arc<StopSignal>,
}

impl std::fmt::Debug for SessionActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionActor").finish_non_exhaustive()
    }
}

impl SessionActor {
    pub(super) fn new(post: &Post, ended: &Arc<Mutex<EndedTasks>>) -> Self {
        let Post { session, config, stop, .. } = post;
        Self {
            session: session.clone(),
            config: Arc::clone(config),
            asking: Asking::new(post),
            ended: Arc::clone(ended),
            stop: Arc::clone(stop),
        }
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;
}

/// Notifications for the session, in order.
#[derive(Debug, Message)]
#[rtype(result = "Option<Outcome>")]
pub(super) struct Deliver {
    /// The notifications.
    pub(super) batch: Vec<Envelope>,
    /// The queue's clock when they were read, and this host's at the same moment.
    pub(super) read_at: (Timestamp, Instant),
    /// Whether they may still be handed over; asked before each.
    pub(super) permit: Arc<Permit>,
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

impl Handler<Deliver> for SessionActor {
    type Result = ResponseFuture<Option<Outcome>>;

    fn handle(&mut self, message: Deliver, _: &mut Context<Self>) -> Self::Result {
        let delivery = deliver(self.session.clone(), Arc::clone(&self.config), Arc::clone(&self.ended), message);
        let stop = Arc::clone(&self.stop);
        Box::pin(async move {
            tokio::select! {
                biased;
                // The call under way is dropped. Its subscriber was dropped before, and asks for no outcome.
                () = stop.forced() => None,
                outcome = delivery => Some(outcome),
            }
        })
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

async fn deliver(
    session: Guarded,
    config: Arc<Config>,
    ended: Arc<Mutex<EndedTasks>>,
    Deliver { batch, read_at, permit }: Deliver,
) -> Outcome {
    let limit = config.hand_over_timeout() + GRACE;
    let mut delivery = Delivery::new(batch, read_at, permit);
    let mut turn = clock::now();
    loop {
        if clock::now().saturating_duration_since(turn) > TURN {
            tokio::task::yield_now().await;
            turn = clock::now();
        }
        let step = delivery.next(clock::now(), &lock(&ended));
        match step {
            Step::HandOver(envelope) => {
                let outbound = Outbound::of(envelope);
                let answer = attempt(limit, async { session.hand_over(&outbound).await }).await;
                delivery.handed_over(answer, &config, &mut lock(&ended), fastrand::f64());
            }
            Step::Confirm => delivery.confirmed(attempt(limit, async { session.confirm().await }).await),
            Step::Done(outcome) => return outcome,
        }
    }
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
