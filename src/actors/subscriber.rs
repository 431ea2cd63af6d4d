//! [`SessionSubscriberActor`]: owns one session's queue and moves what is in it to the session.
//!
//! ```text
//!                    client away
//!        ┌──────────────────────────────────┐
//!        ▼          client there            │
//!     Parked ───────────────────► Connecting ──── claimed ───► Waiting ⇄ Delivering
//!                                  ▲  ▲                          │           │
//!                 lease absent, or │  └── BackingOff ◄── error ──┼───────────┤
//!               a newer stream     │                             │           │
//!                              StandingBy ◄───── lease lost ─────┴───────────┘
//! ```
//!
//! A parked subscriber has ended ([`StopReason::Parked`]): its arbiter and its connection are gone. The supervisor keeps
//! its [`Memory`], waits for the client, and starts it again with that.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::oneshot;

use self::drive::Drive;
use super::SessionActor;
use super::post::{EndNotice, Forced, Memory, Post, StopReason, text_of};
use crate::config::Delivery;

pub(super) mod arrivals;
pub(super) mod at_most_once;
mod drive;
mod serve;

/// How long a subscriber that replaces others waits for them to put down what they have in hand. Longer only repeats
/// less: order and ownership do not depend on it.
const PREDECESSOR: Duration = Duration::from_secs(1);

/// Owns one session's queue, on an arbiter of its own. Started by the [`SupervisorActor`](super::SupervisorActor).
pub struct SessionSubscriberActor {
    post: Post,
    /// What it kept while its client was away, where it was parked before.
    memory: Option<Box<Memory>>,
    predecessors: Vec<oneshot::Receiver<Forced>>,
}

impl std::fmt::Debug for SessionSubscriberActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionSubscriberActor").field("session", &self.post.session_id).finish_non_exhaustive()
    }
}

impl SessionSubscriberActor {
    pub(super) fn new(post: Post, memory: Option<Box<Memory>>, predecessors: Vec<oneshot::Receiver<Forced>>) -> Self {
        Self { post, memory, predecessors }
    }
}

impl Actor for SessionSubscriberActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let post = self.post.clone();
        let predecessors = std::mem::take(&mut self.predecessors);
        let memory = self.memory.take();
        let notice = EndNotice::new(post.clone());
        // Spawned, never waited for: the mailbox stays alive beside it.
        ctx.spawn(
            async move {
                let mut notice = notice;
                // Their ends, their being dropped, or the time: whatever comes first. For all at once: a client that came
                // back many times must not wait for each of them.
                let _ = tokio::time::timeout(PREDECESSOR, join_all(predecessors)).await;
                (notice.reason, notice.memory) = match AssertUnwindSafe(work(post, memory)).catch_unwind().await {
                    Ok((reason, memory)) => (reason, Some(memory)),
                    Err(panic) => (StopReason::Panicked(text_of(&*panic).to_owned()), None),
                };
            }
            .into_actor(self)
            .map(|(), _, ctx| ctx.stop()),
        );
    }
}

async fn work(post: Post, memory: Option<Box<Memory>>) -> (StopReason, Box<Memory>) {
    let memory = memory.unwrap_or_else(|| Box::new(Memory::new(&post)));
    let session = SessionActor::new(&post, &memory.ended_tasks).start();
    let drive = Drive::new(post, memory, session);
    match drive.post.config.delivery() {
        Delivery::AtLeastOnce => drive.run().await,
        Delivery::AtMostOnce => at_most_once::run(drive).await,
    }
}
