//! [`SupervisorActor`]: the registry of a process, session id → subscriber; starts, stops, restarts.
//!
//! `actix::Supervisor` restarts after a stop and not after a panic, so a subscriber tells its end itself, however it
//! comes ([`Ended`]), and this actor decides: restart with backoff within a budget, or drop it from the registry.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::prelude::*;

use self::child::{Child, Ending, Runs};
use self::endings::Endings;
use self::host::{Host, SharedArbiters};
use self::limits::{Limits, Place};
use super::arbiters::Arbiters;
use super::guarded::Guarded;
use super::log_gate::LogGates;
use super::post::{Common, Ended, Memory, Post, Settling};
use super::stats::Stats;
use super::stop::StopSignal;
use super::subscriber::SessionSubscriberActor;
use super::subscriber::driver::Driver;
use super::{Placement, SubscriberInfo};
use crate::backend::{Backend, OwnerToken};
use crate::config::Config;
use crate::retry::RestartBudget;
use crate::session::{EnsureError, McpSession};
use crate::session_id::SessionId;
use crate::subscription::ExitReason;

mod child;
mod endings;
mod host;
mod limits;
mod parked;
mod places;
mod restarts;
mod shutdown;

pub use self::shutdown::{Shutdown, ShutdownReport};

/// How often one subscriber may be restarted before it is given up.
const RESTARTS: usize = 5;
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// Arbiter for one subscriber that is about to start.
struct Room {
    placement: Placement,
    host: Host,
}

/// Properties of a subscriber that a restart does not change.
struct Identity {
    session_id: SessionId,
    session: Guarded,
    stats: Arc<Stats>,
}

impl Identity {
    fn of(Post { session_id, session, stats, .. }: &Post) -> Self {
        Self { session_id: session_id.clone(), session: session.clone(), stats: Arc::clone(stats) }
    }
}

/// Keeps one subscriber per session of this process.
///
/// Send it [`EnsureSubscriber`], [`StopSubscriber`], [`GetSubscriberCount`], [`ListSubscribers`] and [`Shutdown`]. Its
/// address may be used from any thread.
pub struct SupervisorActor {
    queue: Arc<dyn Backend>,
    config: Arc<Config>,
    arbiters: Arbiters,
    shared_arbiters: SharedArbiters,
    limits: Limits,
    children: HashMap<SessionId, Child>,
    endings: Endings,
    /// State that the subscribers share.
    common: Weak<Common>,
    /// Parked ones whose clients are back and for whom there is no place, with their epochs; the longest waiting first.
    waiting: VecDeque<(SessionId, u64)>,
    /// Whether a timer runs at whose end those that wait are tried again, as there was no thread.
    retrying: bool,
    epochs: u64,
    /// Set once: a supervisor that shuts down starts nothing new.
    shutting_down: bool,
}

impl std::fmt::Debug for SupervisorActor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SupervisorActor")
            .field("queue", &self.queue)
            .field("subscribers", &self.children.len())
            .field("ending", &self.endings.len())
            .finish_non_exhaustive()
    }
}

/// Runs a subscriber for a session, once.
///
/// The same session object again changes nothing. Another object under the same id (a client that came back) replaces
/// the old one: the new subscriber begins where the old one put down, so nothing is lost and order holds.
///
/// The subscriber is dedicated while fewer than [`Config::dedicated_limit`] run, and shared beyond, up to
/// [`Config::shared_limit`]: see [`Placement`].
///
/// A subscriber whose client is away ([`SubscriberState::Parked`](super::SubscriberState::Parked)) holds no thread, no connection and no place in
/// these limits. With the client back it is started again, by this message or by itself.
///
/// # Errors
/// [`EnsureError`]: the limit is reached, the process has no further thread, or the supervisor shuts down. A parked
/// subscriber stays parked then, and is started when a place gets free.
#[derive(Message)]
#[rtype(result = "Result<Ensured, EnsureError>")]
pub struct EnsureSubscriber {
    /// Its id.
    pub session_id: SessionId,
    /// The session.
    pub session: Arc<dyn McpSession>,
}

/// What an [`EnsureSubscriber`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ensured {
    /// There was none: one was started.
    Started,
    /// One ran, or was parked, for this very object.
    Unchanged,
    /// One ran for another object: it was replaced.
    Replaced,
}

/// Stops a session's subscriber; answered when it has ended, with whether there was one. What is pending stays queued.
#[derive(Message)]
#[rtype(result = "bool")]
pub struct StopSubscriber {
    /// Whose.
    pub session_id: SessionId,
    /// Only if it runs for this object: the end of an old one must not stop the subscriber of its successor. `None`
    /// stops whichever runs.
    pub session: Option<Arc<dyn McpSession>>,
}

/// Number of subscribers, the parked ones included.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "usize")]
pub struct GetSubscriberCount;

/// What runs, and how it goes.
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
    /// Returns a supervisor of the sessions that take from `queue`, whose subscribers run on `arbiters`.
    pub(crate) fn new(queue: Arc<dyn Backend>, config: Arc<Config>, arbiters: Arbiters) -> Self {
        Self {
            queue,
            config,
            arbiters,
            shared_arbiters: SharedArbiters::new(),
            limits: Limits::default(),
            children: HashMap::new(),
            endings: Endings::default(),
            common: Weak::new(),
            waiting: VecDeque::new(),
            retrying: false,
            epochs: 0,
            shutting_down: false,
        }
    }

    /// Finds an arbiter for a subscriber that takes the place of `replaced`, if that has one.
    ///
    /// # Errors
    /// [`EnsureError`] where no place is free, or no arbiter can be started.
    fn room(&mut self, replaced: Option<&SessionId>) -> Result<Room, EnsureError> {
        let place = replaced.and_then(|session_id| self.children.get(session_id)?.place.as_ref());
        let placement = self.limits.choose(&self.config, place)?;
        let host = match placement {
            Placement::Dedicated => {
                let arbiter = self.arbiters.start();
                Host::Dedicated(arbiter.map_err(|error| EnsureError::NoArbiter(error.to_string()))?)
            }
            Placement::Shared => Host::Shared(self.shared_arbiters.least_loaded(self.arbiters)?),
        };
        Ok(Room { placement, host })
    }

    /// Starts a subscriber where there is room, as the next epoch of `identity`.
    fn start_child(
        &mut self,
        Room { placement, host }: Room,
        identity: Identity,
        restarts: RestartBudget,
        memory: Option<Box<Memory>>,
        ctx: &Context<Self>,
    ) {
        let Identity { session_id, session, stats } = identity;
        self.epochs += 1;
        let post = Arc::new(Post {
            session_id: session_id.clone(),
            session,
            common: self.common(ctx),
            placement,
            owner: memory.as_ref().map_or_else(OwnerToken::new, |memory| memory.owner),
            epoch: self.epochs,
            stats,
            stop: StopSignal::default(),
            settling: Settling::default(),
        });
        // Whatever still ends under this id ends first, so that what it has under way is put down.
        let predecessors = self.endings.of(&session_id).map(Ending::watch).collect();
        let subscriber = SessionSubscriberActor::new(Arc::clone(&post), memory, predecessors);
        host.start(subscriber, &self.queue);
        let place = Some(self.limits.take(placement));
        self.children.insert(session_id, Child { post, runs: Runs::On(host), place, restarts });
    }

    /// Returns what the subscribers have in common. They alone keep it, and with it the supervisor alive: a supervisor that
    /// held its own address would never end.
    fn common(&mut self, ctx: &Context<Self>) -> Arc<Common> {
        self.common.upgrade().unwrap_or_else(|| {
            let common = Arc::new(Common {
                queue: Arc::clone(&self.queue),
                config: Arc::clone(&self.config),
                supervisor: ctx.address().recipient(),
                gates: LogGates::default(),
            });
            self.common = Arc::downgrade(&common);
            common
        })
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;
}

impl Handler<EnsureSubscriber> for SupervisorActor {
    type Result = Result<Ensured, EnsureError>;

    fn handle(&mut self, msg: EnsureSubscriber, ctx: &mut Context<Self>) -> Self::Result {
        let EnsureSubscriber { session_id, session } = msg;
        let session = Guarded::new(session);
        if self.shutting_down {
            return Err(EnsureError::ShuttingDown);
        }
        let ensured = match self.children.get(&session_id) {
            Some(child) if child.post.session.is_same(&session) => {
                return self.start_parked(&session_id, ctx).map(|()| Ensured::Unchanged);
            }
            Some(_) => Ensured::Replaced,
            None => Ensured::Started,
        };
        // Before the old one is stopped: where it cannot be replaced it goes on.
        let room = self.room(Some(&session_id))?;
        self.stop_child(&session_id, ctx);
        let identity = Identity { session_id, session, stats: Arc::new(Stats::new()) };
        self.start_child(room, identity, RestartBudget::new(RESTARTS, RESTARTS_WITHIN), None, ctx);
        Ok(ensured)
    }
}

impl Handler<StopSubscriber> for SupervisorActor {
    type Result = ResponseFuture<bool>;

    fn handle(&mut self, msg: StopSubscriber, ctx: &mut Context<Self>) -> Self::Result {
        let StopSubscriber { session_id, session } = msg;
        let session = session.map(Guarded::new);
        let meant = self
            .children
            .get(&session_id)
            .is_some_and(|child| session.as_ref().is_none_or(|session| child.post.session.is_same(session)));
        let end = if meant { self.stop_child(&session_id, ctx) } else { None };
        self.give_places(ctx);
        Box::pin(async move {
            match end {
                // However it ended.
                Some(end) => {
                    let _ = end.await;
                    true
                }
                None => false,
            }
        })
    }
}

impl Handler<GetSubscriberCount> for SupervisorActor {
    type Result = usize;

    fn handle(&mut self, _: GetSubscriberCount, _: &mut Context<Self>) -> usize {
        self.children.len()
    }
}

impl Handler<ListSubscribers> for SupervisorActor {
    type Result = MessageResult<ListSubscribers>;

    fn handle(&mut self, _: ListSubscribers, _: &mut Context<Self>) -> Self::Result {
        let infos = self.children.iter().map(|(id, child)| {
            let placement = child.place.as_ref().map(Place::placement);
            child.post.stats.info(id.clone(), placement)
        });
        MessageResult(infos.collect())
    }
}

impl Handler<Ended> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, Ended { session, epoch, reason, memory }: Ended, ctx: &mut Context<Self>) {
        if let Some(ending) = self.endings.get(&session, epoch) {
            // A stop came while it parked: the machine ends as a parked one does.
            if let (ExitReason::Parked, Some(memory)) = (reason, memory) {
                actix_rt::spawn(Driver::parked(Arc::clone(&ending.post), memory).run());
            }
            self.end(&session, epoch, false);
            return;
        }
        if self.children.get(&session).is_none_or(|child| child.post.epoch != epoch) {
            return;
        }
        match (reason, memory) {
            (ExitReason::Parked, Some(memory)) => self.park(&session, memory, ctx),
            (ExitReason::Closed | ExitReason::Left | ExitReason::Stopped, _) => {
                tracing::debug!(?session, "a subscriber has ended");
                if let Some(child) = self.children.remove(&session) {
                    child.runs.end_then(|| {});
                }
                self.give_places(ctx);
            }
            (reason, _) => self.restart(&session, &format!("{reason:?}"), ctx),
        }
    }
}
