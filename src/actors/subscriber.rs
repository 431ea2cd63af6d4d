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

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::{oneshot, watch};

use self::drive::Drive;
use super::stats::Stats;
use super::{Ended, SessionActor, session::text_of};
use crate::config::{Config, Delivery};
use crate::queue::{OwnerToken, Queue};
use crate::session::McpSession;
use crate::session_id::SessionId;

mod at_most_once;
mod drive;
mod serve;

/// How long a subscriber that replaces others waits for them to put down what they have in hand. Longer only repeats
/// less: order and ownership do not depend on it.
const PREDECESSOR: Duration = Duration::from_secs(1);

/// Why a subscriber ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// It was asked to.
    Stopped,
    /// The session is over.
    Closed,
    /// It panicked, with this text.
    Panicked(String),
    /// Its arbiter was stopped under it.
    Dropped,
}

/// All that one subscriber needs.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) session_id: SessionId,
    pub(super) session: Arc<dyn McpSession>,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) config: Arc<Config>,
    pub(super) owner: OwnerToken,
    pub(super) epoch: u64,
    pub(super) stats: Arc<Stats>,
    pub(super) supervisor: Recipient<Ended>,
    pub(super) stop: watch::Receiver<bool>,
}

/// Owns one session's queue, on an arbiter of its own. Started by the [`SupervisorActor`](super::SupervisorActor).
pub struct SessionSubscriberActor {
    post: Post,
    predecessors: Vec<oneshot::Receiver<()>>,
}

impl std::fmt::Debug for SessionSubscriberActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionSubscriberActor").field("session", &self.post.session_id).finish_non_exhaustive()
    }
}

impl SessionSubscriberActor {
    pub(super) fn new(post: Post, predecessors: Vec<oneshot::Receiver<()>>) -> Self {
        Self { post, predecessors }
    }
}

impl Actor for SessionSubscriberActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let post = self.post.clone();
        let predecessors = std::mem::take(&mut self.predecessors);
        let notice = EndNotice { post: post.clone(), reason: StopReason::Dropped };
        // Spawned, never waited for: the mailbox stays alive beside it.
        ctx.spawn(
            async move {
                let mut notice = notice;
                // Their ends, their being dropped, or the time: whatever comes first. For all at once: a client that came
                // back many times must not wait for each of them.
                let _ = tokio::time::timeout(PREDECESSOR, join_all(predecessors)).await;
                notice.reason = match AssertUnwindSafe(work(post)).catch_unwind().await {
                    Ok(reason) => reason,
                    Err(panic) => StopReason::Panicked(text_of(&*panic).to_owned()),
                };
            }
            .into_actor(self)
            .map(|(), _, ctx| ctx.stop()),
        );
    }
}

async fn work(post: Post) -> StopReason {
    let session = SessionActor::new(&post).start();
    match post.config.delivery() {
        Delivery::AtLeastOnce => Drive::new(post, session).run().await,
        Delivery::AtMostOnce => at_most_once::run(post, session).await,
    }
}

/// Tells the supervisor however the subscriber ends, also when its arbiter is stopped under it.
struct EndNotice {
    post: Post,
    reason: StopReason,
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        self.post.supervisor.do_send(Ended {
            session: self.post.session_id.clone(),
            epoch: self.post.epoch,
            reason: self.reason.clone(),
        });
    }
}
