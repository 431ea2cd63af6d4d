//! [`SessionActor`]: wraps one MCP session; expiry, hand-over, and what follows a failure.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::FutureExt;

use super::clock;
use super::guarded::{drop_guarded, text_of};
use super::post::Post;
use super::questions::Asking;
use crate::envelope::{Envelope, Timestamp};
use crate::question::Question;
use crate::subscription::{Delivery, EndedTasks, HandOverError, Outcome, Permit, Step};

/// How much longer than its limit a session may take before its future is dropped: a session that keeps the limit
/// itself, as the `rmcp` adapter does, then answers first.
const GRACE: Duration = Duration::from_secs(1);

/// How long hand-overs that never wait may follow each other before the thread's other tasks have a turn: one of them
/// hears of a takeover.
const TURN: Duration = Duration::from_millis(1);

/// Wraps one [`McpSession`](crate::McpSession): hands notifications to it, and has it ask questions beside that.
pub(super) struct SessionActor {
    post: Arc<Post>,
    /// Questions that the client is asked; `None` until the first.
    asking: Option<Asking>,
    ended: Arc<EndedTasks>,
}

impl std::fmt::Debug for SessionActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionActor").finish_non_exhaustive()
    }
}

impl SessionActor {
    pub(super) fn new(post: Arc<Post>, ended: Arc<EndedTasks>) -> Self {
        Self { post, asking: None, ended }
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;
}

/// Answer of the session to the request to confirm what it was handed over.
pub(super) type Confirmation = Pin<Box<dyn Future<Output = Result<(), HandOverError>> + Send>>;

/// Notifications for the session, in order. Answered at the end of their hand-overs, with the confirmation if there is anything to
/// confirm; with nothing where the delivery was given up.
#[derive(Debug, Message)]
#[rtype(result = "Option<(Outcome, Option<Confirmation>)>")]
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
    type Result = ResponseFuture<Option<(Outcome, Option<Confirmation>)>>;

    fn handle(&mut self, message: Deliver, _: &mut Context<Self>) -> Self::Result {
        let (post, ended) = (Arc::clone(&self.post), Arc::clone(&self.ended));
        Box::pin(async move {
            tokio::select! {
                biased;
                // The call under way is dropped. Its subscriber was dropped before, and asks for no outcome.
                () = post.stop.forced() => None,
                outcome = deliver(&post, &ended, message) => {
                    Some(if outcome.accepted > 0 { confirmed(post.clone(), outcome).await } else { (outcome, None) })
                }
            }
        })
    }
}

impl Handler<Ask> for SessionActor {
    type Result = ();

    fn handle(&mut self, Ask { questions, read_at }: Ask, _: &mut Context<Self>) {
        let asking = self.asking.get_or_insert_with(|| Asking::new(Arc::clone(&self.post)));
        asking.ask(questions, read_at);
    }
}

impl Handler<StopAsking> for SessionActor {
    type Result = ();

    fn handle(&mut self, _: StopAsking, _: &mut Context<Self>) {
        if let Some(asking) = &mut self.asking {
            asking.stop();
        }
    }
}

async fn deliver(post: &Post, ended: &EndedTasks, Deliver { batch, read_at, permit }: Deliver) -> Outcome {
    let (session, config) = (&post.session, &post.common.config);
    let limit = config.hand_over_timeout() + GRACE;
    let mut delivery = Delivery::new(batch, read_at, Arc::clone(&permit));
    let mut end_of_turn = clock::now() + TURN;
    loop {
        let mut now = clock::now();
        if now > end_of_turn {
            tokio::task::yield_now().await;
            now = clock::now();
            end_of_turn = now + TURN;
        }
        let step = delivery.next(now, ended);
        match step {
            Step::HandOver(envelope) => {
                let answer = attempt(limit, || session.hand_over(envelope.outbound())).await;
                delivery.handed_over(answer, config, ended, fastrand::f64);
                if post.stop.is_asked() {
                    // The machine does so too, but hears of the stop no sooner than this thread's other tasks have a turn.
                    permit.close();
                }
            }
            Step::Done(outcome) => return outcome,
        }
    }
}

/// Has the session confirm what it was handed over. The call begins at once: what is handed over next does not concern it. Returns
/// the call with the outcome, unless it has ended already.
async fn confirmed(post: Arc<Post>, mut outcome: Outcome) -> (Outcome, Option<Confirmation>) {
    let mut confirmation: Confirmation = Box::pin(async move {
        let limit = post.common.config.hand_over_timeout() + GRACE;
        attempt(limit, || post.session.confirm()).await
    });
    match poll_fn(|context| Poll::Ready(confirmation.poll_unpin(context))).await {
        Poll::Ready(answer) => {
            outcome.confirmed = Some(answer);
            (outcome, None)
        }
        Poll::Pending => (outcome, Some(confirmation)),
    }
}

/// Call of the session's under way.
type Call<'a> = Pin<Box<dyn Future<Output = Result<(), HandOverError>> + Send + 'a>>;

/// Makes one call of the session's, which may take too long or panic.
async fn attempt<'a>(limit: Duration, begin: impl FnOnce() -> Call<'a>) -> Result<(), HandOverError> {
    let panicked = |panic: Box<dyn Any + Send>| {
        Err(HandOverError::Transient(format!("the session panicked: {}", text_of(&*panic))))
    };
    let mut call = match catch_unwind(AssertUnwindSafe(begin)) {
        Ok(call) => call,
        Err(panic) => return panicked(panic),
    };
    let mut guarded = AssertUnwindSafe(call.as_mut()).catch_unwind();
    // Most calls end at once, and need no timer.
    let answer = match poll_fn(|context| Poll::Ready(guarded.poll_unpin(context))).await {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => tokio::time::timeout(limit, guarded).await.ok(),
    };
    match answer {
        Some(Ok(answer)) => answer,
        Some(Err(panic)) => panicked(panic),
        None => {
            drop_guarded(call);
            Err(HandOverError::Transient(format!("no answer within {limit:?}")))
        }
    }
}
