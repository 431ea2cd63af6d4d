//! What one subscriber is given, what it remembers while its client is away, and what it says at its end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::Notify;

use super::Placement;
use super::guarded::Guarded;
use super::log_gate::{LogGate, LogGates, log_through};
use super::stats::Stats;
use super::stop::StopSignal;
use crate::backend::questions::cancel_open;
use crate::backend::{Backend, LeaseState, LineLimit, OwnerToken, Queues};
use crate::config::Config;
use crate::session::Presence;
use crate::session_id::SessionId;
use crate::subscription::{EndedTasks, ExitReason, Subscription};

/// Longest time that a release may take at the end. The lease runs out by itself.
const RELEASE: Duration = Duration::from_secs(2);

/// Longest time that the end of a subscriber waits for answers and cancellations on their way to workers. Together with a
/// release it stays below the time after which a subscriber is stopped by force.
const SETTLE: Duration = Duration::from_secs(1);

/// All that one subscriber needs, shared by everything that runs for it.
pub(super) struct Post {
    pub(super) session_id: SessionId,
    pub(super) session: Guarded,
    pub(super) common: Arc<Common>,
    pub(super) placement: Placement,
    pub(super) owner: OwnerToken,
    pub(super) epoch: u64,
    pub(super) stats: Arc<Stats>,
    pub(super) stop: StopSignal,
    /// Answers and cancellations on their way to workers. They run on the subscriber's arbiter and end with it.
    pub(super) settling: Settling,
}

/// All that the subscribers of one supervisor have in common.
pub(super) struct Common {
    pub(super) queue: Arc<dyn Backend>,
    pub(super) config: Arc<Config>,
    pub(super) supervisor: Recipient<Ended>,
    pub(super) gates: LogGates,
}

impl Post {
    /// Returns whether the subscriber logs its trouble as such: a shared one only where the gate lets it pass.
    pub(super) fn passes(&self, gate: impl FnOnce(&LogGates) -> &LogGate) -> bool {
        self.placement == Placement::Dedicated || gate(&self.common.gates).passes()
    }

    /// Gives the lease up, if it is this subscriber's.
    pub(super) async fn release(&self, queues: &dyn Queues) {
        let Self { session_id, owner, .. } = self;
        match tokio::time::timeout(RELEASE, queues.release(session_id, *owner)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let passes = self.passes(|gates| &gates.not_released);
                log_through!(passes, warn, session = ?session_id, %error, "the lease was not released; it runs out by itself");
            }
            Err(_) => {
                let passes = self.passes(|gates| &gates.not_released);
                log_through!(passes, warn, session = ?session_id, "the lease was not released in time; it runs out by itself");
            }
        }
    }

    /// Cancels the open questions of a session that has ended, and tells their workers. The lease may be held afterwards.
    ///
    /// Where another process owns the queue nothing is done: the client goes on there, and the questions are that
    /// process's to ask.
    pub(super) async fn cancel_open_questions(&self) {
        let Self { session_id, owner, .. } = self;
        let queue = &self.common.queue;
        if !queue.claim_if_absent(session_id, *owner).await.is_ok_and(LeaseState::is_ours) {
            return;
        }
        if let Err(error) = cancel_open(&**queue, session_id, "the session has ended").await {
            tracing::warn!(session = ?session_id, %error, "questions were not cancelled; their workers wait out their time");
        }
    }

    /// Waits until no answer and no cancellation is on its way to its worker.
    pub(super) async fn settled(&self) {
        // An answer that has arrived is counted by its own task, which runs first.
        tokio::task::yield_now().await;
        self.settling.none().await;
    }

    /// Waits as [`settled`](Self::settled) does, for a short time only.
    pub(super) async fn settled_soon(&self) {
        if tokio::time::timeout(SETTLE, self.settled()).await.is_err() {
            let passes = self.passes(|gates| &gates.not_settled);
            log_through!(passes, warn, session = ?self.session_id,
                "settling questions took too long at the end of a subscriber; their workers wait out their time");
        }
    }
}

/// Number of answers and cancellations on their way to workers.
#[derive(Debug, Default)]
pub(super) struct Settling {
    count: AtomicUsize,
    none: Notify,
}

/// Guard that counts one answer or one cancellation on its way to its worker.
pub(super) struct Counted(Arc<Post>);

impl Settling {
    /// Counts one of a subscriber's for as long as the returned guard lives.
    pub(super) fn count(post: &Arc<Post>) -> Counted {
        post.settling.count.fetch_add(1, Ordering::AcqRel);
        Counted(Arc::clone(post))
    }

    /// Waits until there are none.
    pub(super) async fn none(&self) {
        loop {
            let none = self.none.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let settling = &self.0.settling;
        if settling.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            settling.none.notify_waiters();
        }
    }
}

/// Parts of a subscriber that outlive its arbiter while its client is away.
pub(super) struct Memory {
    pub(super) machine: Subscription,
    pub(super) presence: Presence,
    /// Token of the lease. It stays the same: a lease that could not be released is then still this subscriber's.
    pub(super) owner: OwnerToken,
    /// Bounds of the next take: the lessons of earlier connections hold for the next one too.
    pub(super) limit: Arc<Mutex<LineLimit>>,
    /// Tasks whose end was delivered.
    pub(super) ended_tasks: Arc<EndedTasks>,
}

impl Memory {
    /// Memory of a subscriber that begins. Calls the session's code.
    pub(super) fn new(post: &Post) -> Self {
        let config = &post.common.config;
        Self {
            machine: Subscription::new(Arc::clone(config)),
            presence: post.session.presence(),
            owner: post.owner,
            limit: Arc::new(Mutex::new(LineLimit::of_batches(config))),
            ended_tasks: Arc::default(),
        }
    }
}

/// A subscriber has ended, and why: from the subscriber to its supervisor.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Ended {
    pub(super) session: SessionId,
    pub(super) epoch: u64,
    pub(super) reason: ExitReason,
    /// Parts of a parked subscriber, to start it again with.
    pub(super) memory: Option<Box<Memory>>,
}

/// Tells the supervisor however the subscriber ends, also where it is dropped.
pub(super) struct EndNotice {
    pub(super) post: Arc<Post>,
    pub(super) reason: ExitReason,
    pub(super) memory: Option<Box<Memory>>,
}

impl EndNotice {
    pub(super) fn new(post: Arc<Post>) -> Self {
        Self { post, reason: ExitReason::Dropped, memory: None }
    }
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        self.post.common.supervisor.do_send(Ended {
            session: self.post.session_id.clone(),
            epoch: self.post.epoch,
            reason: self.reason.clone(),
            memory: self.memory.take(),
        });
    }
}

/// A subscriber did not end by itself: it was dropped.
#[derive(Debug)]
pub(super) struct Forced;
