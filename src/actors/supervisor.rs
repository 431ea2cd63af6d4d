//! [`SupervisorActor`]: registry of a process, session id → subscriber. Starts, stops and restarts subscribers.
//!
//! ```text
//!                      place found             client away
//!   EnsureSubscriber ─────────────► running ─────────────────► parked
//!                                    │ ▲ ▲                       │
//!                             failed │ │ └── client back, place ─┘
//!                                    ▼ │ pause over
//!                                  pausing ── budget spent ──► removed
//! ```
//!
//! A stop, or another session object under the same id, moves a subscriber from any of these states to the
//! [`StoppingSubscribers`]. A successor waits a short time for the end of its predecessor, then runs anyway. Order
//! holds all the same: the successor claims the lease, and the predecessor's permit ends.
//!
//! *Ends*. `actix::Supervisor` restarts an actor after a stop and not after a panic. So each subscriber reports its own
//! end by [`Ended`], whatever the cause, and this actor decides what follows.
//!
//! *Epochs*. Each start of a subscriber has a number of its own, its epoch. A message about a start carries this
//! number. The supervisor ignores a message about an earlier start, such as the late end of a subscriber that was
//! replaced.
//!
//! *Places*. A running or pausing subscriber holds a place within the limits of the process. A parked one holds none,
//! so a process can keep many more sessions than it has places.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::prelude::*;

use self::announcing::Announcer;
use self::child::{Child, RunState, StoppingSubscriber};
use self::host::{Host, SharedArbiters};
use self::limits::Limits;
use self::stopping::StoppingSubscribers;
use super::arbiters::Arbiters;
use super::isolated_session::IsolatedSession;
use super::log_gate::LogGates;
use super::stats::Stats;
use super::stop::StopSignal;
use super::subscriber::SessionSubscriberActor;
use super::subscriber::driver::Driver;
use super::subscriber_context::{Common, Ended, RetainedState, Settling, SubscriberContext};
use super::{Placement, SubscriberInfo};
use crate::backend::{Backend, OwnerToken};
use crate::config::Config;
use crate::retry::RestartBudget;
use crate::session::{EnsureError, McpSession};
use crate::session_id::SessionId;
use crate::story;
use crate::subscription::ExitReason;

mod announcing;
mod child;
mod health;
mod host;
mod limits;
mod listing;
mod parked;
mod parking;
mod restarts;
#[cfg(feature = "metrics")]
mod sampling;
mod shutdown;
mod stopping;

pub(crate) use self::health::CheckHealth;
pub use self::shutdown::{Shutdown, ShutdownReport};

/// Number of restarts of one subscriber within [`RESTARTS_WITHIN`]. A subscriber that fails more often is given up.
const RESTARTS: usize = 5;
/// Time in which restarts count against the budget of a subscriber.
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// Free place, with the arbiter for the subscriber that is about to start there.
struct Allocation {
    placement: Placement,
    host: Host,
}

/// Properties of a subscriber that a restart does not change.
struct Identity {
    session_id: SessionId,
    session: IsolatedSession,
    stats: Arc<Stats>,
}

impl Identity {
    fn of(SubscriberContext { session_id, session, stats, .. }: &SubscriberContext) -> Self {
        Self { session_id: session_id.clone(), session: session.clone(), stats: Arc::clone(stats) }
    }
}

/// Actor that runs one subscriber per session of this process.
///
/// The messages are [`EnsureSubscriber`], [`StopSubscriber`], [`GetSubscriberCount`], [`ListSubscribers`] and
/// [`Shutdown`]. The actor's address can be used from any thread.
pub struct SupervisorActor {
    queue: Arc<dyn Backend>,
    config: Arc<Config>,
    /// Kind of the arbiters to start: threads, or sets of tasks in tests.
    arbiters: Arbiters,
    /// Arbiters of the shared subscribers. They are started when they are needed, and end at the shutdown.
    shared_arbiters: SharedArbiters,
    limits: Limits,
    /// Subscribers that run, pause before a restart, or are parked.
    children: HashMap<SessionId, Child>,
    /// Subscribers that were asked to stop or were replaced, and have not ended.
    stopping: StoppingSubscribers,
    /// State that the subscribers share. The reference is weak: the state holds this actor's address, and an actor that
    /// keeps its own address never ends.
    common: Weak<Common>,
    /// Parked subscribers whose clients are back and for which no place is free, with their epochs. The subscriber that
    /// has waited longest is first.
    waiting: VecDeque<(SessionId, u64)>,
    /// Set while a timer runs that starts waiting subscribers again. Such a timer runs where an arbiter could not be
    /// started.
    retrying: bool,
    /// Number of starts so far. The next start gets the next number as its epoch.
    epochs: u64,
    /// Set once a shutdown begins. The supervisor starts no subscriber then.
    shutting_down: bool,
    /// Writer of the record of this process.
    announcer: Arc<Announcer>,
}

impl std::fmt::Debug for SupervisorActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SupervisorActor")
            .field("queue", &self.queue)
            .field("subscribers", &self.children.len())
            .field("ending", &self.stopping.len())
            .finish_non_exhaustive()
    }
}

/// Request to run one subscriber for a session.
///
/// A second request with the same session object changes nothing. Another object under the same id, as of a client that
/// came back, replaces the old subscriber. The new subscriber begins where the old one has stopped, so nothing is lost
/// and order holds.
///
/// The subscriber is dedicated while fewer than [`Config::dedicated_limit`] run, and shared beyond, up to
/// [`Config::shared_limit`]: see [`Placement`].
///
/// A subscriber whose client is away ([`SubscriberState::Parked`](super::SubscriberState::Parked)) holds no thread, no
/// connection and no place within these limits. This message starts the subscriber again if the client is back, and so
/// does the supervisor itself.
///
/// # Errors
/// [`EnsureError`]: the limit is reached, the process has no further thread, or the supervisor shuts down. A parked
/// subscriber then stays parked, and is started when a place becomes free.
#[derive(Message)]
#[rtype(result = "Result<Ensured, EnsureError>")]
pub struct EnsureSubscriber {
    /// Id of the session. The session's queue has this id.
    pub session_id: SessionId,
    /// Session to which the notifications are delivered.
    pub session: Arc<dyn McpSession>,
}

/// Outcome of an [`EnsureSubscriber`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// No subscriber ran for this session id. The supervisor started one.
    Started,
    /// A subscriber ran, or was parked, for this very session object.
    Unchanged,
    /// A subscriber of another session object ran under this id. The supervisor replaced it.
    Replaced,
}

/// Request to stop a session's subscriber. Pending notifications stay queued.
///
/// The answer comes when the subscriber has ended, and is `true` if there was a subscriber to stop.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct StopSubscriber {
    /// Id of the session.
    pub session_id: SessionId,
    /// Session object whose subscriber is to stop. A subscriber of another object is left alone, so the late end of an
    /// old object does not stop its successor. `None` stops the subscriber of any object.
    pub session: Option<Arc<dyn McpSession>>,
}

/// Request for the number of subscribers, the parked ones included.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "usize")]
pub struct GetSubscriberCount;

/// Request for the state and the statistics of all subscribers, the parked ones included.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<SubscriberInfo>")]
pub struct ListSubscribers;

impl std::fmt::Debug for EnsureSubscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EnsureSubscriber").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StopSubscriber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StopSubscriber").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

impl SupervisorActor {
    /// Creates a supervisor whose subscribers take from `queue` and run on `arbiters`.
    pub(crate) fn new(queue: Arc<dyn Backend>, config: Arc<Config>, arbiters: Arbiters) -> Self {
        Self {
            announcer: Announcer::new(Arc::clone(&queue)),
            queue,
            config,
            arbiters,
            shared_arbiters: SharedArbiters::new(),
            limits: Limits::default(),
            children: HashMap::new(),
            stopping: StoppingSubscribers::default(),
            common: Weak::new(),
            waiting: VecDeque::new(),
            retrying: false,
            epochs: 0,
            shutting_down: false,
        }
    }

    /// Finds a place and an arbiter for a subscriber. The place of the subscriber of `replaced`, if that one has a
    /// place, counts as free.
    ///
    /// # Errors
    /// [`EnsureError`] where no place is free, or no arbiter can be started.
    fn allocate(&mut self, replaced: Option<&SessionId>) -> Result<Allocation, EnsureError> {
        let place = replaced.and_then(|session_id| self.children.get(session_id)?.place.as_ref());
        let placement = self.limits.choose(&self.config, place)?;
        let host = match placement {
            Placement::Dedicated => {
                let arbiter = self.arbiters.start();
                Host::Dedicated(arbiter.map_err(|error| EnsureError::NoArbiter(error.to_string()))?)
            }
            Placement::Shared => Host::Shared(self.shared_arbiters.least_loaded(self.arbiters)?),
        };
        Ok(Allocation { placement, host })
    }

    /// Starts a subscriber at a free place, as the next epoch of `identity`.
    fn start_child(
        &mut self,
        Allocation { placement, host }: Allocation,
        identity: Identity,
        restarts: RestartBudget,
        retained: Option<Box<RetainedState>>,
        ctx: &Context<Self>,
    ) {
        let Identity { session_id, session, stats } = identity;
        self.epochs += 1;
        let context = Arc::new(SubscriberContext {
            session_id: session_id.clone(),
            session,
            common: self.common(ctx),
            placement,
            owner: retained.as_ref().map_or_else(|| OwnerToken::of(self.announcer.server), |retained| retained.owner),
            epoch: self.epochs,
            stats,
            stop: StopSignal::default(),
            settling: Settling::default(),
        });
        // Subscribers of this id that have not ended yet end first, so that they acknowledge the deliveries that they
        // have made.
        let predecessors = self.stopping.of(&session_id).map(StoppingSubscriber::watch).collect();
        story::started(&session_id, self.epochs, &placement);
        let subscriber = SessionSubscriberActor::new(Arc::clone(&context), retained, predecessors);
        host.start(subscriber, &self.queue);
        let place = Some(self.limits.take(placement));
        self.children.insert(session_id, Child { context, run_state: RunState::Running(host), place, restarts });
    }

    /// Returns the state that the subscribers share. Only the subscribers keep that state, and with it the supervisor,
    /// alive. A supervisor that held its own address would never end.
    fn common(&mut self, ctx: &Context<Self>) -> Arc<Common> {
        self.common.upgrade().unwrap_or_else(|| {
            let common = Arc::new(Common {
                queue: Arc::clone(&self.queue),
                config: Arc::clone(&self.config),
                supervisor: ctx.address().recipient(),
                gates: LogGates::default(),
                totals: Arc::clone(&self.announcer.totals),
            });
            self.common = Arc::downgrade(&common);
            common
        })
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        self.announce(ctx);
        #[cfg(feature = "metrics")]
        sampling::begin(ctx);
    }
}

impl Handler<EnsureSubscriber> for SupervisorActor {
    type Result = Result<Ensured, EnsureError>;

    fn handle(&mut self, msg: EnsureSubscriber, ctx: &mut Context<Self>) -> Self::Result {
        let EnsureSubscriber { session_id, session } = msg;
        let session = IsolatedSession::new(session);
        if self.shutting_down {
            return Err(EnsureError::ShuttingDown);
        }
        let ensured = match self.children.get(&session_id) {
            Some(child) if child.context.session.is_same(&session) => {
                return self.start_parked(&session_id, ctx).map(|()| Ensured::Unchanged);
            }
            Some(_) => Ensured::Replaced,
            None => Ensured::Started,
        };
        // The place is found before the old subscriber is stopped: where no place is free, the old subscriber
        // continues.
        let allocation = self.allocate(Some(&session_id))?;
        story::ensured(&session_id, &ensured);
        self.stop_child(&session_id, ctx);
        let identity = Identity { session_id, session, stats: Arc::new(Stats::new()) };
        self.start_child(allocation, identity, RestartBudget::new(RESTARTS, RESTARTS_WITHIN), None, ctx);
        Ok(ensured)
    }
}

impl Handler<StopSubscriber> for SupervisorActor {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, msg: StopSubscriber, ctx: &mut Context<Self>) -> Self::Result {
        let StopSubscriber { session_id, session } = msg;
        let session = session.map(IsolatedSession::new);
        let meant = self
            .children
            .get(&session_id)
            .is_some_and(|child| session.as_ref().is_none_or(|session| child.context.session.is_same(session)));
        let end = if meant { self.stop_child(&session_id, ctx) } else { None };
        self.start_waiting(ctx);
        Box::pin(async move {
            match end {
                // Any end counts, by itself or by force.
                Some(end) => {
                    let _ = end.await;
                    true
                }
                None => false,
            }
        })
    }
}

impl Handler<Ended> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, Ended { session, epoch, reason, retained }: Ended, ctx: &mut Context<Self>) {
        if let Some(stopping) = self.stopping.get(&session, epoch) {
            // The subscriber parked before it saw the stop. Its machine stops as that of a parked subscriber does.
            if let (ExitReason::Parked, Some(retained)) = (reason, retained) {
                actix_rt::spawn(Driver::parked(Arc::clone(&stopping.context), retained).run());
            }
            self.complete_stop(&session, epoch, false);
            return;
        }
        if self.children.get(&session).is_none_or(|child| child.context.epoch != epoch) {
            return;
        }
        match (reason, retained) {
            (ExitReason::Parked, Some(retained)) => self.park(&session, retained, ctx),
            (ExitReason::Closed | ExitReason::Detached | ExitReason::Stopped, _) => {
                story::removed(&session, epoch);
                if let Some(child) = self.children.remove(&session) {
                    child.run_state.end_then(|| {});
                }
                self.start_waiting(ctx);
            }
            (reason, _) => self.restart(&session, &format!("{reason:?}"), ctx),
        }
    }
}
