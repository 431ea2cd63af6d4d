//! Giving parked subscribers their arbiters and places: taking both at the parking, and giving both when the client is back.

use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;

use super::child::{Child, Runs};
use super::parked::{Parked, Returned};
use super::{Identity, SupervisorActor};
use crate::actors::post::Memory;
use crate::session::{EnsureError, SessionState};
use crate::session_id::SessionId;

impl SupervisorActor {
    /// Takes the arbiter and the place of a subscriber whose client is away.
    pub(super) fn park(&mut self, session_id: &SessionId, memory: Box<Memory>, ctx: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(session_id) else { return };
        let parked = Parked::new(Arc::clone(&child.post), memory, ctx.address().recipient());
        let ran = std::mem::replace(&mut child.runs, Runs::Parked(parked));
        child.place = None;
        ran.end_then(|| {});
        // First of all this one, where its client came back meanwhile: it was promised a subscriber.
        self.start_returned(session_id, ctx);
        self.give_places(ctx);
    }

    /// Starts a parked subscriber whose client is back. Without a place or a thread it stays parked, says so, and waits.
    fn start_returned(&mut self, session_id: &SessionId, ctx: &mut Context<Self>) {
        let Err(error) = self.start_parked(session_id, ctx) else { return };
        let Some(Child { post, .. }) = self.children.get(session_id) else { return };
        post.stats.set_error(&error);
        let epoch = post.epoch;
        // A client may come and go many times before there is a place.
        if self.waiting.iter().all(|(_, waits)| *waits != epoch) {
            tracing::warn!(session = ?session_id, %error, "starting a parked subscriber failed; it waits");
            self.waiting.push_back((session_id.clone(), epoch));
        }
        self.try_again_after(&error, ctx);
    }

    /// Tries those that wait again after a pause, where the error says that there was no thread: nothing tells when there is one.
    fn try_again_after(&mut self, error: &EnsureError, ctx: &mut Context<Self>) {
        if !matches!(error, EnsureError::NoArbiter(_)) || std::mem::replace(&mut self.retrying, true) {
            return;
        }
        ctx.run_later(self.config.backoff_max(), |supervisor, ctx| {
            supervisor.retrying = false;
            supervisor.give_places(ctx);
        });
    }

    /// Starts a parked subscriber if its client is there. Does nothing for any other.
    ///
    /// # Errors
    /// [`EnsureError`] where there is no place or no thread for it; it stays parked.
    pub(super) fn start_parked(&mut self, session_id: &SessionId, ctx: &mut Context<Self>) -> Result<(), EnsureError> {
        let Some(Runs::Parked(parked)) = self.children.get(session_id).map(|child| &child.runs) else { return Ok(()) };
        if !matches!(parked.presence.now(), SessionState::Ready { .. }) {
            return Ok(());
        }
        let memory = Rc::clone(&parked.memory);
        let room = self.room(None)?;
        let memory = memory.borrow_mut().take();
        if let Some(Child { post, restarts, .. }) = self.children.remove(session_id) {
            self.start_child(room, Identity::of(&post), restarts, memory, ctx);
        }
        Ok(())
    }

    /// Starts those that wait, the longest waiting first, as far as there are places and threads.
    pub(super) fn give_places(&mut self, ctx: &mut Context<Self>) {
        while let Some((session_id, epoch)) = self.waiting.front().cloned() {
            if let Some(Child { post, .. }) = self.children.get(&session_id).filter(|child| child.post.epoch == epoch) {
                let stats = Arc::clone(&post.stats);
                if let Err(error) = self.start_parked(&session_id, ctx) {
                    tracing::debug!(session = ?session_id, %error, "starting a parked subscriber failed; it still waits");
                    stats.set_error(&error);
                    return self.try_again_after(&error, ctx);
                }
            }
            self.waiting.pop_front();
        }
    }
}

impl Handler<Returned> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, Returned { session, epoch }: Returned, ctx: &mut Context<Self>) {
        // Meanwhile it may have been started, stopped or replaced.
        if self.children.get(&session).is_some_and(|child| child.post.epoch == epoch) {
            self.start_returned(&session, ctx);
        }
    }
}
