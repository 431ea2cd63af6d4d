//! [`SessionSubscriberActor`]: owns one session's queue, and moves the queue's notifications to the session.
//!
//! The machine is [`Subscription`](crate::subscription::Subscription), with a drawing of its states in
//! `subscription/state.rs`. The actor runs the machine's driver in one spawned future and stops when that future ends.
//!
//! A parked subscriber has ended with [`ExitReason::Parked`], and its arbiter and its connection are closed. The
//! supervisor keeps its [`RetainedState`], waits for the client, and starts the subscriber again with that memory.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use self::driver::Driver;
use super::isolated_session::text_of;
use super::subscriber_context::{EndNotice, Forced, RetainedState, SubscriberContext};
use crate::backend::Queues;
use crate::subscription::ExitReason;

pub(super) mod driver;
pub(super) mod notes;
mod operation;

/// Longest time that a new subscriber waits for the subscribers that it replaces, so that they finish and acknowledge
/// their deliveries. Waiting avoids repeats only: order and ownership do not depend on it.
const PREDECESSOR: Duration = Duration::from_secs(1);

/// Actor that owns one session's queue, on a dedicated or a shared arbiter. The
/// [`SupervisorActor`](super::SupervisorActor) starts the actor.
pub(super) struct SessionSubscriberActor {
    context: Arc<SubscriberContext>,
    /// Guard that reports the subscriber's end, also where the arbiter drops the actor before its start. `None` once
    /// the actor has started: the running future then holds the guard.
    notice: Option<EndNotice>,
    /// Retained state of an earlier, parked start of this subscriber; `None` at the first start.
    retained: Option<Box<RetainedState>>,
    /// Ends of the subscribers that this one replaces.
    predecessors: Vec<oneshot::Receiver<Forced>>,
    /// Queues from which the subscriber takes; set when the actor starts, because a shared arbiter makes its queues
    /// itself.
    queues: Option<Arc<dyn Queues>>,
}

impl std::fmt::Debug for SessionSubscriberActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionSubscriberActor").field("session", &self.context.session_id).finish_non_exhaustive()
    }
}

impl SessionSubscriberActor {
    pub(super) fn new(
        context: Arc<SubscriberContext>,
        retained: Option<Box<RetainedState>>,
        predecessors: Vec<oneshot::Receiver<Forced>>,
    ) -> Self {
        Self { notice: Some(EndNotice::new(Arc::clone(&context))), context, queues: None, retained, predecessors }
    }

    /// Starts the actor on this thread, over these queues.
    pub(super) fn start_over(mut self, queues: Arc<dyn Queues>) {
        self.queues = Some(queues);
        drop(self.start());
    }
}

impl Actor for SessionSubscriberActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let context = Arc::clone(&self.context);
        let predecessors = std::mem::take(&mut self.predecessors);
        let retained = self.retained.take();
        let (Some(mut notice), Some(queues)) = (self.notice.take(), self.queues.take()) else { return ctx.stop() };
        // `spawn` and not `wait`: actix does not poll the mailbox of an actor that waits for a future.
        ctx.spawn(
            async move {
                // Each receiver ends when a predecessor has ended or was dropped. All are awaited together under one
                // limit: a client that reconnected many times must not wait for each predecessor in turn.
                let _ = tokio::time::timeout(PREDECESSOR, join_all(predecessors)).await;
                let worked = tokio::select! {
                    biased;
                    () = context.stop.forced() => return,
                    worked = AssertUnwindSafe(work(Arc::clone(&context), queues, retained)).catch_unwind() => worked,
                };
                (notice.reason, notice.retained) = match worked {
                    Ok((reason, retained)) => (reason, Some(retained)),
                    Err(panic) => (ExitReason::Panicked(text_of(&*panic).to_owned()), None),
                };
                if notice.reason != ExitReason::Parked {
                    // The arbiter ends after this, and drops all tasks on it, so pending answers are sent first. A
                    // subscriber that parks has waited for them already, by `Operation::Settle`.
                    context.settled_soon().await;
                }
            }
            .into_actor(self)
            .map(|(), _, ctx| ctx.stop()),
        );
    }
}

async fn work(
    context: Arc<SubscriberContext>,
    queues: Arc<dyn Queues>,
    retained: Option<Box<RetainedState>>,
) -> (ExitReason, Box<RetainedState>) {
    let retained = retained.unwrap_or_else(|| Box::new(RetainedState::new(&context)));
    Driver::new(context, queues, retained).run().await
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::notes::note;
    use super::*;
    use crate::actors::Placement;
    use crate::actors::isolated_session::IsolatedSession;
    use crate::actors::log_gate::LogGates;
    use crate::actors::stats::Stats;
    use crate::actors::stop::StopSignal;
    use crate::actors::subscriber_context::{Common, Ended, Settling};
    use crate::backend::{OwnerToken, Posed};
    use crate::config::Config;
    use crate::connect::connect;
    use crate::envelope::Timestamp;
    use crate::outcome::DiscardReason;
    use crate::question::{Elicitation, Question, TaskKey};
    use crate::session::{HandOverError, McpSession, Outbound, Presence, PresenceSender};
    use crate::session_id::SessionId;
    use crate::subscription::Note;

    struct Session(PresenceSender);

    #[async_trait]
    impl McpSession for Session {
        async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
            Ok(())
        }

        fn presence(&self) -> Presence {
            self.0.presence()
        }
    }

    struct Supervisor(mpsc::UnboundedSender<ExitReason>);

    impl Actor for Supervisor {
        type Context = Context<Self>;
    }

    impl Handler<Ended> for Supervisor {
        type Result = ();

        fn handle(&mut self, ended: Ended, _: &mut Context<Self>) {
            self.0.send(ended.reason).unwrap();
        }
    }

    /// Returns the context of a subscriber whose client has just opened its stream.
    async fn context(name: &str) -> (Arc<SubscriberContext>, Arc<Session>, mpsc::UnboundedReceiver<ExitReason>) {
        let (ended, ends) = mpsc::unbounded_channel();
        let session = Arc::new(Session(PresenceSender::new()));
        session.0.connected(1);
        let config = Arc::new(Config::default());
        let common = Common {
            queue: connect(&format!("memory://subscriber-{name}"), Arc::clone(&config)).await.unwrap(),
            config,
            supervisor: Supervisor(ended).start().recipient(),
            gates: LogGates::default(),
            totals: Arc::default(),
        };
        let context = SubscriberContext {
            session_id: SessionId::new("s").unwrap(),
            session: IsolatedSession::new(session.clone()),
            common: Arc::new(common),
            placement: Placement::Dedicated,
            owner: OwnerToken::new(),
            epoch: 1,
            stats: Arc::new(Stats::new()),
            stop: StopSignal::default(),
            settling: Settling::default(),
        };
        (Arc::new(context), session, ends)
    }

    fn start(context: &Arc<SubscriberContext>) {
        let queues = Arc::clone(&context.common.queue).share();
        SessionSubscriberActor::new(Arc::clone(context), None, Vec::new()).start_over(queues);
    }

    #[actix::test]
    async fn the_cancellation_of_a_discarded_question_is_waited_for() {
        let (context, ..) = context("discards").await;
        let task = TaskKey::anonymous("t").unwrap();
        let request = json!({"request_id": "q", "message": "?", "schema": {}}).to_string();
        let posed = context.common.queue.pose(&task, "q", request.clone(), Duration::from_secs(60)).await.unwrap();
        assert!(matches!(posed, Posed::Done(_)));
        let elicitation = Elicitation::url("Go", "https://example.org", "e");
        let deadline = Timestamp::of_this_host().plus(Duration::from_secs(60));
        let question = Question::new("q", task.clone(), elicitation, deadline.to_system());
        note(
            &context,
            Note::Discarded { id: None, question: Some(Box::new(question)), reason: DiscardReason::Expired },
        );
        assert!(context.common.queue.is_waiting(&task, "q").await.unwrap(), "the cancellation is still to come");
        assert_eq!(context.settling.until_none().now_or_never(), None, "it is counted");
        context.settled().await;
        assert!(!context.common.queue.is_waiting(&task, "q").await.unwrap());
    }

    #[actix::test]
    async fn a_subscriber_ends_when_what_it_has_for_workers_is_given() {
        tokio::time::pause();
        for reason in [ExitReason::Parked, ExitReason::Stopped, ExitReason::Detached, ExitReason::Closed] {
            let (context, session, mut ends) = context(&format!("{reason:?}")).await;
            let settling = Settling::count(&context);
            start(&context);
            match reason {
                ExitReason::Parked => session.0.disconnected(),
                ExitReason::Detached => session.0.detached(),
                ExitReason::Closed => session.0.ended(),
                _ => context.stop.ask(),
            }
            let early = tokio::time::timeout(Duration::from_millis(200), ends.recv()).await;
            assert!(early.is_err(), "{early:?}");
            drop(settling);
            assert_eq!(ends.recv().await, Some(reason));
        }
    }

    #[actix::test]
    async fn a_subscriber_that_stops_waits_for_a_short_time_only() {
        tokio::time::pause();
        let (context, _session, mut ends) = context("patience").await;
        let _settling = Settling::count(&context);
        start(&context);
        context.stop.ask();
        assert_eq!(ends.recv().await, Some(ExitReason::Stopped));
    }
}
