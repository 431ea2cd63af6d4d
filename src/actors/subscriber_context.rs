//! Context of one subscriber ([`SubscriberContext`]), its state while its client is away ([`RetainedState`]), and the
//! message at its end ([`Ended`]).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::Notify;

use super::Placement;
use super::isolated_session::IsolatedSession;
use super::log_gate::{LogGate, LogGates, log_through};
use super::stats::{Stats, Totals};
use super::stop::StopSignal;
use crate::backend::relay::cancel_open;
use crate::backend::{Backend, LeaseState, LineLimit, OwnerToken, Queues};
use crate::config::Config;
use crate::session::Presence;
use crate::session_id::SessionId;
use crate::subscription::{EndedTasks, ExitReason, Subscription};

/// Longest time that the release of a lease may take at the end of a subscriber. A lease that was not released runs out
/// by itself.
const RELEASE: Duration = Duration::from_secs(2);

/// Longest time that the end of a subscriber waits for answers and cancellations on their way to workers. The sum of
/// this time and [`RELEASE`] is below the time after which the supervisor drops a stopping subscriber.
const SETTLE: Duration = Duration::from_secs(1);

/// Context of one subscriber. The subscriber, its session's actor and their tasks share the context.
pub(super) struct SubscriberContext {
    pub(super) session_id: SessionId,
    pub(super) session: IsolatedSession,
    /// State that this subscriber shares with all others of its supervisor.
    pub(super) common: Arc<Common>,
    pub(super) placement: Placement,
    /// Token that proves this subscriber's lease.
    pub(super) owner: OwnerToken,
    /// Number of this start of the subscriber. Each start of any subscriber has a number of its own. The supervisor
    /// ignores messages of an earlier start.
    pub(super) epoch: u64,
    pub(super) stats: Arc<Stats>,
    /// Signal by which the supervisor stops this subscriber, and drops it where it takes too long.
    pub(super) stop: StopSignal,
    /// Number of answers and cancellations on their way to workers. Their tasks run on the subscriber's arbiter and end
    /// with the arbiter, so a subscriber waits for them before its end.
    pub(super) settling: Settling,
}

/// State that all subscribers of one supervisor share.
pub(super) struct Common {
    pub(super) queue: Arc<dyn Backend>,
    pub(super) config: Arc<Config>,
    /// Address of the supervisor, for the ends of subscribers.
    pub(super) supervisor: Recipient<Ended>,
    /// Gates that keep a fault of many shared subscribers from filling the log.
    pub(super) gates: LogGates,
    /// Counters that outlive this state.
    pub(super) totals: Arc<Totals>,
}

impl SubscriberContext {
    /// Returns whether a line about trouble may be logged at its own level. A dedicated subscriber always may, a shared
    /// one only where the gate lets the line pass.
    pub(super) fn passes(&self, gate: impl FnOnce(&LogGates) -> &LogGate) -> bool {
        self.placement == Placement::Dedicated || gate(&self.common.gates).passes()
    }

    /// Releases the lease, if this subscriber holds the lease. A failure, or a release that takes longer than
    /// [`RELEASE`], is logged and ignored.
    pub(super) async fn release(&self, queues: &dyn Queues) {
        let Self { session_id, owner, .. } = self;
        match tokio::time::timeout(RELEASE, queues.release(session_id, *owner)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                let passes = self.passes(|gates| &gates.not_released);
                log_through!(passes, warn, session = ?session_id, %error, "releasing the lease failed; it expires by itself");
            }
            Err(_) => {
                let passes = self.passes(|gates| &gates.not_released);
                log_through!(passes, warn, session = ?session_id, "releasing the lease took too long; it expires by itself");
            }
        }
    }

    /// Cancels the open questions of a session that has ended, so that their workers get an answer at once. The lease
    /// may be held afterwards.
    ///
    /// Nothing happens where another process owns the queue: the client uses that process now, and that process asks
    /// the questions.
    pub(super) async fn cancel_open_questions(&self) {
        let Self { session_id, owner, .. } = self;
        let queue = &self.common.queue;
        if !queue.claim_if_absent(session_id, *owner).await.is_ok_and(LeaseState::is_held) {
            return;
        }
        if let Err(error) = cancel_open(&**queue, session_id, "the session has ended").await {
            tracing::warn!(session = ?session_id, %error, "cancelling open questions failed; their workers wait until their timeouts");
        }
    }

    /// Waits until no answer and no cancellation is on its way to its worker.
    pub(super) async fn settled(&self) {
        // The task of an answer counts the answer when it first runs. Yielding once lets such a task run before the
        // count is read.
        tokio::task::yield_now().await;
        self.settling.until_none().await;
    }

    /// Waits as [`settled`](Self::settled) does, for a short time only.
    pub(super) async fn settled_soon(&self) {
        if tokio::time::timeout(SETTLE, self.settled()).await.is_err() {
            let passes = self.passes(|gates| &gates.not_settled);
            log_through!(passes, warn, session = ?self.session_id,
                "settling questions took too long at the end of a subscriber; their workers wait until their timeouts");
        }
    }
}

/// Counter of the answers and cancellations that are on their way to workers.
#[derive(Debug, Default)]
pub(super) struct Settling {
    count: AtomicUsize,
    /// Wakes the waiters when the count reaches zero.
    none: Notify,
}

/// Guard of one answer or one cancellation on its way to a worker. Dropping the guard ends the count of it.
pub(super) struct SettlingGuard(Arc<SubscriberContext>);

impl Settling {
    /// Counts one answer or cancellation of a subscriber until the returned guard is dropped.
    pub(super) fn count(context: &Arc<SubscriberContext>) -> SettlingGuard {
        context.settling.count.fetch_add(1, Ordering::AcqRel);
        SettlingGuard(Arc::clone(context))
    }

    /// Waits until no answer and no cancellation is counted.
    pub(super) async fn until_none(&self) {
        loop {
            let none = self.none.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Drop for SettlingGuard {
    fn drop(&mut self) {
        let settling = &self.0.settling;
        if settling.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            settling.none.notify_waiters();
        }
    }
}

/// Parts of a subscriber that outlive its arbiter while its client is away.
pub(super) struct RetainedState {
    /// Machine of the subscriber. It remembers the ids of delivered notifications, also while the client is away.
    pub(super) machine: Subscription,
    /// Client's presence, as this subscriber saw it last.
    pub(super) presence: Presence,
    /// Token of the subscriber's lease. The token survives the parking, so a lease that could not be released still
    /// belongs to this subscriber.
    pub(super) owner: OwnerToken,
    /// Bounds of the next take. The bounds that earlier connections have learned hold for the next connection too.
    pub(super) limit: Arc<Mutex<LineLimit>>,
    /// Tasks whose end was delivered to the client.
    pub(super) ended_tasks: Arc<EndedTasks>,
}

impl RetainedState {
    /// Creates the memory of a subscriber that starts for the first time. Calls the session's `presence`, which is a
    /// user's code.
    pub(super) fn new(context: &SubscriberContext) -> Self {
        let config = &context.common.config;
        Self {
            machine: Subscription::new(Arc::clone(config)),
            presence: context.session.presence(),
            owner: context.owner,
            limit: Arc::new(Mutex::new(LineLimit::of_batches(config))),
            ended_tasks: Arc::default(),
        }
    }
}

/// Message from a subscriber to its supervisor: the subscriber has ended, for this reason.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Ended {
    pub(super) session: SessionId,
    pub(super) epoch: u64,
    pub(super) reason: ExitReason,
    /// Retained state of a parked subscriber, with which the supervisor starts the subscriber again.
    pub(super) retained: Option<Box<RetainedState>>,
}

/// Guard that sends [`Ended`] to the supervisor when it is dropped. The supervisor thereby hears of every end: a
/// return, a panic, or the drop of the subscriber with its arbiter.
pub(super) struct EndNotice {
    pub(super) context: Arc<SubscriberContext>,
    /// Reason to report. The reason is [`ExitReason::Dropped`] until the subscriber sets another.
    pub(super) reason: ExitReason,
    pub(super) retained: Option<Box<RetainedState>>,
}

impl EndNotice {
    pub(super) fn new(context: Arc<SubscriberContext>) -> Self {
        Self { context, reason: ExitReason::Dropped, retained: None }
    }
}

impl Drop for EndNotice {
    fn drop(&mut self) {
        self.context.common.supervisor.do_send(Ended {
            session: self.context.session_id.clone(),
            epoch: self.context.epoch,
            reason: self.reason.clone(),
            retained: self.retained.take(),
        });
    }
}

/// Message to the waiters of a subscriber that was dropped by force. Where a subscriber ended by itself, the waiters
/// get no message and find the channel closed.
#[derive(Debug)]
pub(super) struct Forced;
