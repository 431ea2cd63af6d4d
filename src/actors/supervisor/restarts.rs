//! Restarts of subscribers that failed, after a pause and within a budget.
//!
//! *Why a budget*. A subscriber that fails at once, again and again, would fill the log and take a thread each time.
//! After [`RESTARTS`](super::RESTARTS) within a minute it is given up, and its place is free; its queue keeps all
//! notifications, and the client's next stream starts it anew (`a_subscriber_that_panics_for_ever_is_given_up`).
//!
//! *During the pause* the child keeps its place and stays in the registry. A stop or a replacement finds it there, and
//! the epoch in [`StartAgain`] tells whether the pause is still its own
//! (`a_subscriber_that_is_stopped_while_it_pauses_before_a_restart_stays_stopped`,
//! `a_subscriber_that_pauses_before_a_restart_counts_against_the_limit_and_is_restarted`).

use std::sync::Arc;

use actix::prelude::*;

use super::child::{Child, RunState};
use super::{Identity, SupervisorActor};
use crate::actors::log_gate::log_through;
use crate::actors::{SubscriberState, clock};
use crate::metrics;
use crate::session_id::SessionId;

/// Message of the supervisor to itself: the pause of a failed subscriber is over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct StartAgain {
    session: SessionId,
    epoch: u64,
}

impl SupervisorActor {
    /// Starts a failed child again after a pause. The child stays in the registry meanwhile, so that it can be stopped
    /// or replaced.
    pub(super) fn restart(&mut self, session_id: &SessionId, reason: &str, ctx: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(session_id) else { return };
        let context = Arc::clone(&child.context);
        let epoch = context.epoch;
        context.stats.set_error(&reason);
        context.stats.set_state(SubscriberState::BackingOff, None);
        metrics::SUBSCRIBERS_FAILED.count(1);
        // Futures that still run for the child, such as a delivery, must not run beside its successor.
        child.run_state.stop(&context);
        std::mem::replace(&mut child.run_state, RunState::Pausing).end_then(|| {});
        let Some(earlier) = child.restarts.spend(clock::now()) else {
            let passes = context.passes(|gates| &gates.given_up);
            log_through!(passes, error, session = ?session_id, reason,
                "a subscriber failed too often; it is removed until the session is ensured again");
            self.children.remove(session_id);
            self.start_waiting(ctx);
            return;
        };
        let pause = self.config.backoff().pause(earlier, fastrand::f64());
        let passes = context.passes(|gates| &gates.restarted);
        log_through!(passes, error, session = ?session_id, reason, ?pause, "a subscriber failed; it is started again");
        let (session, supervisor) = (session_id.clone(), ctx.address());
        // A task and not `run_later`: an actor's context polls all its timers at each message, and thousands of
        // subscribers may fail together.
        actix_rt::spawn(async move {
            tokio::time::sleep(pause).await;
            supervisor.do_send(StartAgain { session, epoch });
        });
    }
}

impl Handler<StartAgain> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, StartAgain { session, epoch }: StartAgain, ctx: &mut Context<Self>) {
        // Meanwhile the child may have been stopped, or replaced by a client that came back with another object.
        if self.children.get(&session).is_none_or(|child| child.context.epoch != epoch) {
            return;
        }
        let allocation = match self.allocate(Some(&session)) {
            Ok(allocation) => allocation,
            Err(error) => return self.restart(&session, &error.to_string(), ctx),
        };
        if let Some(Child { context, restarts, .. }) = self.children.remove(&session) {
            self.start_child(allocation, Identity::of(&context), restarts, None, ctx);
        }
    }
}
