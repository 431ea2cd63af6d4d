//! Places and arbiters of parked subscribers. Parking takes both from a subscriber, and the return of its client gives
//! both back.
//!
//! *Why a queue of its own*. A parked subscriber whose client is back may find all places taken. It waits for the next
//! free place, in the order of arrival, and its error in [`ListSubscribers`](crate::ListSubscribers) names the limit
//! (`a_client_that_is_back_where_all_places_are_taken_is_refused_and_served_when_one_gets_free`). A client that leaves
//! again before its turn takes none (`a_client_that_waited_for_a_place_and_left_again_takes_none`).
//!
//! *Without threads* no end of another subscriber announces that a thread can be started again, so a timer tries
//! (`a_client_that_returns_many_times_where_no_thread_can_be_had_is_tried_once_a_pause`).

use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;

use super::child::{Child, RunState};
use super::parked::{ClientReturned, Parked};
use super::{Identity, SupervisorActor};
use crate::actors::subscriber_context::RetainedState;
use crate::session::{EnsureError, SessionState};
use crate::session_id::SessionId;
use crate::story;

impl SupervisorActor {
    /// Parks a subscriber whose client is away: frees its arbiter and its place.
    pub(super) fn park(&mut self, session_id: &SessionId, retained: Box<RetainedState>, ctx: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(session_id) else { return };
        story::parked(session_id, child.context.epoch);
        let parked = Parked::new(Arc::clone(&child.context), retained, ctx.address().recipient());
        let ran = std::mem::replace(&mut child.run_state, RunState::Parked(parked));
        child.place = None;
        ran.end_then(|| {});
        // The parked subscriber itself comes before those that wait. Its client may be back already, and was promised a
        // subscriber.
        self.start_returned(session_id, ctx);
        self.start_waiting(ctx);
    }

    /// Starts a parked subscriber whose client is back. Without a free place or a thread the subscriber stays parked,
    /// reports the error in its statistics, and waits.
    fn start_returned(&mut self, session_id: &SessionId, ctx: &mut Context<Self>) {
        let Err(error) = self.start_parked(session_id, ctx) else { return };
        let Some(Child { context, .. }) = self.children.get(session_id) else { return };
        context.stats.set_error(&error);
        let epoch = context.epoch;
        // The subscriber is queued once, although its client may come and go many times before a place is free.
        if self.waiting.iter().all(|(_, waits)| *waits != epoch) {
            tracing::warn!(session = ?session_id, %error, "starting a parked subscriber failed; it waits for a place");
            self.waiting.push_back((session_id.clone(), epoch));
        }
        self.retry_waiting_after(&error, ctx);
    }

    /// Sets a timer that starts waiting subscribers again, where an arbiter could not be started. Nothing reports when
    /// the process can start threads again.
    fn retry_waiting_after(&mut self, error: &EnsureError, ctx: &mut Context<Self>) {
        if !matches!(error, EnsureError::NoArbiter(_)) || std::mem::replace(&mut self.retrying, true) {
            return;
        }
        ctx.run_later(self.config.backoff_max(), |supervisor, ctx| {
            supervisor.retrying = false;
            supervisor.start_waiting(ctx);
        });
    }

    /// Starts a parked subscriber if its client is there. Does nothing for any other subscriber.
    ///
    /// # Errors
    /// [`EnsureError`] where no place or no thread is free for the subscriber, which then stays parked.
    pub(super) fn start_parked(&mut self, session_id: &SessionId, ctx: &mut Context<Self>) -> Result<(), EnsureError> {
        let Some(RunState::Parked(parked)) = self.children.get(session_id).map(|child| &child.run_state) else {
            return Ok(());
        };
        if !matches!(parked.presence.now(), SessionState::Connected { .. }) {
            return Ok(());
        }
        let retained = Rc::clone(&parked.retained);
        let allocation = self.allocate(None)?;
        let retained = retained.borrow_mut().take();
        if let Some(Child { context, restarts, .. }) = self.children.remove(session_id) {
            self.start_child(allocation, Identity::of(&context), restarts, retained, ctx);
        }
        Ok(())
    }

    /// Starts waiting subscribers, the longest waiting first, until a place or a thread is lacking.
    pub(super) fn start_waiting(&mut self, ctx: &mut Context<Self>) {
        while let Some((session_id, epoch)) = self.waiting.front().cloned() {
            if let Some(Child { context, .. }) =
                self.children.get(&session_id).filter(|child| child.context.epoch == epoch)
            {
                let stats = Arc::clone(&context.stats);
                if let Err(error) = self.start_parked(&session_id, ctx) {
                    tracing::debug!(session = ?session_id, %error,
                        "starting a parked subscriber failed again; it waits for a place");
                    stats.set_error(&error);
                    return self.retry_waiting_after(&error, ctx);
                }
            }
            self.waiting.pop_front();
        }
    }
}

impl Handler<ClientReturned> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, ClientReturned { session, epoch }: ClientReturned, ctx: &mut Context<Self>) {
        // Meanwhile the subscriber may have been started, stopped or replaced.
        if self.children.get(&session).is_some_and(|child| child.context.epoch == epoch) {
            story::returned(&session, epoch);
            self.start_returned(&session, ctx);
        }
    }
}
