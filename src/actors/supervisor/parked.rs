//! Subscribers whose clients are away: no thread, no connection and no place, only one future on the supervisor's
//! arbiter.
//!
//! ```text
//!                Ended { Parked, memory }                     client there, place free
//!   on an arbiter ────────────────────────► parked ───────────────────────────────────► on an arbiter
//!                                            │  ▲ │                                          (the next epoch)
//!              session ended, or a stop asked│  │ │client there, no place free
//!                                            ▼  │ ▼
//!                                      Ended    waits for a place
//! ```

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use actix_rt::task::JoinHandle;

use super::SupervisorActor;
use super::child::{Child, Runs};
use crate::actors::SubscriberState;
use crate::actors::arbiters::OwnArbiter;
use crate::actors::post::{EndNotice, Memory, Post, StopReason, stopped};
use crate::actors::subscriber::at_most_once::{expire_in_hand, lose_in_hand};
use crate::session::EnsureError;
use crate::session::{Presence, SessionState};
use crate::session_id::SessionId;

/// A subscriber whose client is away. Dropping it ends the watch.
pub(super) struct Parked {
    presence: Presence,
    /// Shared with the watch. Whoever ends the parking takes it.
    memory: Rc<RefCell<Option<Box<Memory>>>>,
    watch: JoinHandle<()>,
}

impl Parked {
    fn new(post: Post, memory: Box<Memory>, supervisor: Recipient<Returned>) -> Self {
        let presence = memory.presence.clone();
        let memory = Rc::new(RefCell::new(Some(memory)));
        let watch = actix_rt::spawn(watch(post, presence.clone(), Rc::clone(&memory), supervisor));
        Self { presence, memory, watch }
    }

    pub(super) fn abort(&self) {
        self.watch.abort();
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.abort();
    }
}

/// The client of a parked subscriber is back: from the watch to the supervisor.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Returned {
    session: SessionId,
    epoch: u64,
}

/// Waits for the client, for the end of its session, or for a stop, and does what a subscriber does at its end.
async fn watch(
    post: Post,
    mut presence: Presence,
    memory: Rc<RefCell<Option<Box<Memory>>>>,
    supervisor: Recipient<Returned>,
) {
    let mut notice = EndNotice::new(post.clone());
    let mut stop = post.stop.clone();
    let mut seen = SessionState::Away;
    let reason = loop {
        tokio::select! {
            () = presence.changed_from(seen) => {}
            () = stopped(&mut stop) => break StopReason::Stopped,
            () = in_hand_expired(&post, &memory) => {
                let in_hand = memory.borrow_mut().as_mut().and_then(|memory| memory.in_hand.take());
                if let Some((envelope, _)) = in_hand {
                    let post = post.clone();
                    // The client may come back and end this watch before all is written down.
                    actix_rt::spawn(async move { expire_in_hand(&post, &envelope).await });
                }
                continue;
            }
        }
        seen = presence.now();
        match seen {
            SessionState::Ended => break StopReason::Closed,
            SessionState::Left => break StopReason::Left,
            SessionState::Away => {}
            SessionState::Ready { .. } => {
                supervisor.do_send(Returned { session: post.session_id.clone(), epoch: post.epoch });
            }
        }
    };
    let ended = memory.borrow_mut().take();
    if let Some(mut memory) = ended {
        lose_in_hand(&post, &mut memory, &reason).await;
    }
    if reason == StopReason::Closed && post.keeps_questions() {
        post.cancel_open_questions().await;
        post.release().await;
    }
    post.stats.set_state(SubscriberState::Stopping);
    notice.reason = reason;
}

/// Waits until the time to live of what is in hand is over. For ever where nothing is.
async fn in_hand_expired(post: &Post, memory: &RefCell<Option<Box<Memory>>>) {
    let expiry =
        memory.borrow().as_ref().and_then(|memory| memory.in_hand.as_ref()).map(|(envelope, (clock, read))| {
            // What has no time of its own is kept for as long as what this crate pushes.
            let left = envelope.expires_at.map_or(post.config.time_to_live(), |at| at.since(*clock));
            *read + left
        });
    match expiry {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

impl SupervisorActor {
    /// Takes the arbiter and the place of a subscriber whose client is away.
    pub(super) fn park(&mut self, session_id: &SessionId, memory: Box<Memory>, ctx: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(session_id) else { return };
        let parked = Parked::new(child.post.clone(), memory, ctx.address().recipient());
        let ran = std::mem::replace(&mut child.runs, Runs::Parked(parked));
        ctx.spawn(ran.end().into_actor(self));
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
        self.check_place()?;
        let arbiter = OwnArbiter::start().map_err(|error| EnsureError::NoArbiter(error.to_string()))?;
        let memory = parked.memory.borrow_mut().take();
        if let Some(Child { post, restarts, .. }) = self.children.remove(session_id) {
            self.start_child(session_id.clone(), post.session, post.stats, restarts, arbiter, memory, ctx);
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
