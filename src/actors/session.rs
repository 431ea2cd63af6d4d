//! [`SessionActor`]: wraps one MCP session and performs deliveries: expiry, hand-over, and the reaction to a failure.
//!
//! *A session is user code*. It may panic, hang or block. A panic or a late answer is a failed attempt of one
//! notification, and never the end of an actor (`a_panic_of_a_session_is_a_failed_attempt`,
//! `g2_a_hand_over_that_panics_as_it_is_dropped_is_a_failed_attempt_and_no_more`).
//!
//! *The permit* is checked before each notification, on the thread that hands over. A session that never waits would
//! keep the task that learns of a takeover from running. So the delivery yields at least every millisecond
//! (`g4_a_displaced_owner_hands_over_at_most_what_is_under_way`).

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use actix::prelude::*;
use futures_util::FutureExt;
use tracing::{Instrument, Span};

use super::clock;
use super::isolated_session::{drop_isolated, text_of};
use super::questions::QuestionTasks;
use super::subscriber_context::SubscriberContext;
use crate::envelope::{Envelope, Timestamp};
use crate::question::Question;
use crate::spans::{self, Accepted};
use crate::subscription::{Delivery, DeliveryOutcome, EndedTasks, HandOverError, Permit, Step};

/// Time beyond its limit that a call of the session may take before its future is dropped. A session that keeps the
/// limit itself, as the `rmcp` adapter does, answers within this time.
const GRACE: Duration = Duration::from_secs(1);

/// Longest time for which hand-overs that never wait may follow each other. Then the thread's other tasks run, among
/// them the task that hears of a takeover.
const YIELD_AFTER: Duration = Duration::from_millis(1);

/// Actor that wraps one [`McpSession`](crate::McpSession): hands notifications to the session, and has it ask questions
/// beside the deliveries.
pub(super) struct SessionActor {
    context: Arc<SubscriberContext>,
    /// Questions that the client is asked; `None` until the first.
    asking: Option<QuestionTasks>,
    /// Tasks whose end was delivered. Later notifications of such a task are out of date.
    ended: Arc<EndedTasks>,
}

impl std::fmt::Debug for SessionActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionActor").finish_non_exhaustive()
    }
}

impl SessionActor {
    pub(super) fn new(context: Arc<SubscriberContext>, ended: Arc<EndedTasks>) -> Self {
        Self { context, asking: None, ended }
    }
}

impl Actor for SessionActor {
    type Context = Context<Self>;
}

/// Future answer of the session to the request to confirm its notifications.
pub(super) type Confirmation = Pin<Box<dyn Future<Output = Result<(), HandOverError>> + Send>>;

/// Request to hand over notifications, in order.
///
/// The answer comes at the end of the hand-overs. It contains the confirmation to await where one notification or more
/// were accepted. The answer is `None` where the delivery was dropped by a forced stop.
#[derive(Debug, Message)]
#[rtype(result = "Option<(DeliveryOutcome, Option<Confirmation>)>")]
pub(super) struct Deliver {
    /// Notifications to hand over, the oldest first.
    pub(super) batch: Vec<Envelope>,
    /// Time of the read by the queue's clock, and the same moment by this host's clock.
    pub(super) read_at: (Timestamp, Instant),
    /// Permit of the owner. The delivery checks the permit before each hand-over.
    pub(super) permit: Arc<Permit>,
}

/// Request to ask the session's client these questions, all that were open at the read. A question that the client is
/// being asked already is left as it is.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Ask {
    /// Open questions of the queue.
    pub(super) questions: Vec<Question>,
    /// Time of the read by the queue's clock, and the same moment by this host's clock.
    pub(super) read_at: (Timestamp, Instant),
}

/// Request to ask no more, because another owner may ask the session's questions now.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct StopAsking;

impl Handler<Deliver> for SessionActor {
    type Result = ResponseFuture<Option<(DeliveryOutcome, Option<Confirmation>)>>;

    fn handle(&mut self, message: Deliver, _: &mut Context<Self>) -> Self::Result {
        let (context, ended) = (Arc::clone(&self.context), Arc::clone(&self.ended));
        let span = spans::delivery(context.common.queue.system(), &context.session_id, &message.batch);
        let delivering = async move {
            tokio::select! {
                biased;
                // A forced stop drops the running call. The subscriber was dropped before, so nobody awaits an outcome.
                () = context.stop.forced() => None,
                (outcome, accepted) = deliver(&context, &ended, message) => {
                    let is_accepted = outcome.accepted > 0;
                    Span::current().record("accepted", outcome.accepted);
                    Some(if is_accepted {
                        begin_confirmation(context.clone(), outcome, accepted).await
                    } else {
                        (outcome, None)
                    })
                }
            }
        };
        Box::pin(delivering.instrument(span))
    }
}

impl Handler<Ask> for SessionActor {
    type Result = ();

    fn handle(&mut self, Ask { questions, read_at }: Ask, _: &mut Context<Self>) {
        let asking = self.asking.get_or_insert_with(|| QuestionTasks::new(Arc::clone(&self.context)));
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

/// Performs the steps of one delivery, and returns its outcome, with the spans of the accepted notifications.
async fn deliver(
    context: &SubscriberContext,
    ended: &EndedTasks,
    Deliver { batch, read_at, permit }: Deliver,
) -> (DeliveryOutcome, Accepted) {
    let (session, config, system) = (&context.session, &context.common.config, context.common.queue.system());
    let mut accepted = Accepted::default();
    let limit = config.hand_over_timeout() + GRACE;
    let mut delivery = Delivery::new(batch, read_at, Arc::clone(&permit));
    let mut next_yield = clock::now() + YIELD_AFTER;
    loop {
        let mut now = clock::now();
        if now > next_yield {
            tokio::task::yield_now().await;
            now = clock::now();
            next_yield = now + YIELD_AFTER;
        }
        let step = delivery.next(now, ended);
        match step {
            Step::HandOver(envelope) => {
                let span = spans::deliver(system, &context.session_id, envelope.outbound());
                let call = call_session(limit, || session.hand_over(envelope.outbound()));
                let answer = call.instrument(span.clone()).await;
                accepted.add(span, envelope.outbound(), &answer);
                delivery.handed_over(answer, config, ended, fastrand::f64);
                if context.stop.is_asked() {
                    // The machine closes the permit at a stop too, but only when this thread's other tasks run. Closing
                    // it here stops the hand-overs at once.
                    permit.close();
                }
            }
            Step::Done(outcome) => return (outcome, accepted),
        }
    }
}

/// Asks the session to confirm the notifications of one delivery.
///
/// The call is polled once, so it begins before any later hand-over and does not cover that one. Returns the outcome
/// with the pending call, or with the answer where the call has ended already.
async fn begin_confirmation(
    context: Arc<SubscriberContext>,
    mut outcome: DeliveryOutcome,
    accepted: Accepted,
) -> (DeliveryOutcome, Option<Confirmation>) {
    let span = spans::confirmation(context.common.queue.system(), &context.session_id, &accepted);
    let confirming = async move {
        let limit = context.common.config.hand_over_timeout() + GRACE;
        let answer = call_session(limit, || context.session.confirm()).await;
        accepted.end(&answer);
        if let Err(error) = &answer {
            spans::record_failure(&Span::current(), error);
        }
        answer
    };
    let mut confirmation: Confirmation = Box::pin(confirming.instrument(span));
    match poll_fn(|context| Poll::Ready(confirmation.poll_unpin(context))).await {
        Poll::Ready(answer) => {
            outcome.confirmed = Some(answer);
            (outcome, None)
        }
        Poll::Pending => (outcome, Some(confirmation)),
    }
}

/// Running call of the session.
type Call<'a> = Pin<Box<dyn Future<Output = Result<(), HandOverError>> + Send + 'a>>;

/// Makes one call of the session. A panic, or an answer that takes longer than `limit`, becomes a transient error.
async fn call_session<'a>(limit: Duration, begin: impl FnOnce() -> Call<'a>) -> Result<(), HandOverError> {
    let panicked = |panic: Box<dyn Any + Send>| {
        Err(HandOverError::Transient(format!("the session panicked: {}", text_of(&*panic))))
    };
    let mut call = match catch_unwind(AssertUnwindSafe(begin)) {
        Ok(call) => call,
        Err(panic) => return panicked(panic),
    };
    let mut guarded = AssertUnwindSafe(call.as_mut()).catch_unwind();
    // Most calls end at the first poll and need no timer.
    let answer = match poll_fn(|context| Poll::Ready(guarded.poll_unpin(context))).await {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => tokio::time::timeout(limit, guarded).await.ok(),
    };
    match answer {
        Some(Ok(answer)) => answer,
        Some(Err(panic)) => panicked(panic),
        None => {
            drop_isolated(call);
            Err(HandOverError::Transient(format!("no answer within {limit:?}")))
        }
    }
}
