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

use actix::prelude::*;
use actix_rt::task::JoinHandle;

use crate::actors::SubscriberState;
use crate::actors::post::{EndNotice, Memory, Post, StopReason, stopped};
use crate::actors::subscriber::at_most_once::{expire_in_hand, lose_in_hand};
use crate::session::{Presence, SessionState};
use crate::session_id::SessionId;

/// A subscriber whose client is away. Dropping it ends the watch.
pub(super) struct Parked {
    pub(super) presence: Presence,
    /// Shared with the watch. Whoever ends the parking takes it.
    pub(super) memory: Rc<RefCell<Option<Box<Memory>>>>,
    watch: JoinHandle<()>,
}

impl Parked {
    pub(super) fn new(post: Post, memory: Box<Memory>, supervisor: Recipient<Returned>) -> Self {
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
    pub(super) session: SessionId,
    pub(super) epoch: u64,
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
