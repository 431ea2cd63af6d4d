//! [`SupervisorActor`]: the registry of a process, session id → subscriber; starts, stops, restarts.
//!
//! `actix::Supervisor` restarts after a stop and not after a panic, so a subscriber tells its end itself, however it
//! comes ([`Ended`]), and this actor decides: restart with backoff within a budget, or drop it from the registry.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{oneshot, watch};

use self::child::{Child, Ending, Runs};
use self::host::{Host, SharedArbiters};
use self::limits::{Limits, Place};
use super::arbiters::Arbiters;
use super::clock;
use super::guarded::Guarded;
use super::post::{Ended, Forced, Memory, Post};
use super::stats::Stats;
use super::subscriber::SessionSubscriberActor;
use super::subscriber::driver::Driver;
use super::{Placement, SubscriberInfo, SubscriberState};
use crate::backend::{Backend, OwnerToken};
use crate::config::Config;
use crate::retry::RestartBudget;
use crate::session::{EnsureError, McpSession};
use crate::session_id::SessionId;
use crate::subscription::ExitReason;

mod child;
mod host;
mod limits;
mod parked;
mod places;
mod shutdown;

pub use self::shutdown::{Shutdown, ShutdownReport};

/// How often one subscriber may be restarted before it is given up.
const RESTARTS: usize = 5;
const RESTARTS_WITHIN: Duration = Duration::from_secs(60);

/// How much longer than one hand-over may last a stopping subscriber may take before it is dropped.
const STOP_GRACE: Duration = Duration::from_secs(5);

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
    /// Those that were asked to stop, or were replaced, and have not ended yet.
    ending: HashMap<u64, Ending>,
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
            .field("ending", &self.ending.len())
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
/// A subscriber whose client is away ([`SubscriberState::Parked`]) holds no thread, no connection and no place in
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
            ending: HashMap::new(),
            waiting: VecDeque::new(),
            retrying: false,
            epochs: 0,
            shutting_down: false,
        }
    }

    /// Chooses the placement of a subscriber that takes the place of `replaced`, if that has one, and finds its arbiter.
    fn host(&mut self, replaced: Option<&SessionId>) -> Result<(Placement, Host), EnsureError> {
        let place = replaced.and_then(|session_id| self.children.get(session_id)?.place.as_ref());
        let placement = self.limits.choose(&self.config, place)?;
        let host = match placement {
            Placement::Dedicated => {
                let arbiter = self.arbiters.start();
                Host::Dedicated(arbiter.map_err(|error| EnsureError::NoArbiter(error.to_string()))?)
            }
            Placement::Shared => Host::Shared(self.shared_arbiters.least_loaded(self.arbiters)?),
        };
        Ok((placement, host))
    }

    #[allow(clippy::too_many_arguments)] // each is a part of one child
    fn start_child(
        &mut self,
        session_id: SessionId,
        session: Guarded,
        stats: Arc<Stats>,
        restarts: RestartBudget,
        host: Host,
        place: Place,
        memory: Option<Box<Memory>>,
        ctx: &Context<Self>,
    ) {
        self.epochs += 1;
        let post = Post {
            session_id: session_id.clone(),
            session,
            queue: Arc::clone(&self.queue),
            config: Arc::clone(&self.config),
            owner: memory.as_ref().map_or_else(OwnerToken::new, |memory| memory.owner),
            epoch: self.epochs,
            stats,
            supervisor: ctx.address().recipient(),
            stop: Arc::default(),
            settling: watch::Sender::new(0),
        };
        // Whatever still ends under this id ends first, so that what it has in hand is put down.
        let predecessors =
            self.ending.values_mut().filter(|ending| ending.post.session_id == session_id).map(Ending::watch).collect();
        let subscriber = SessionSubscriberActor::new(post.clone(), memory, predecessors);
        host.start(subscriber, &self.queue);
        self.children.insert(session_id, Child { post, runs: Runs::On(host), place: Some(place), restarts });
    }

    /// Asks a child to stop, and what is told when it has.
    fn stop_child(&mut self, session_id: &SessionId, ctx: &mut Context<Self>) -> Option<oneshot::Receiver<Forced>> {
        let Child { post, runs, place: _, restarts: _ } = self.children.remove(session_id)?;
        // It may have ended already: then its notice is on its way.
        post.stop.ask();
        let (ended, end) = oneshot::channel();
        // One that pauses before a restart has ended: `ended` is dropped, which says so.
        if matches!(runs, Runs::Pausing) {
            return Some(end);
        }
        let epoch = post.epoch;
        if matches!(runs, Runs::On(_)) {
            // A parked one ends at once, or as soon as the queue answers: thousands of them need no timer each.
            let patience = self.config.hand_over_timeout() + STOP_GRACE;
            ctx.run_later(patience, move |supervisor, ctx| supervisor.end(epoch, true, ctx));
        }
        self.ending.insert(epoch, Ending { post, runs, waiters: vec![ended] });
        Some(end)
    }

    /// Gives an ended subscriber's thread back. One that did not end by itself has its lease released for it.
    fn end(&mut self, epoch: u64, by_force: bool, ctx: &mut Context<Self>) {
        let Some(Ending { post, runs, waiters }) = self.ending.remove(&epoch) else { return };
        if matches!(runs, Runs::Parked(_)) {
            return;
        }
        let work = async move {
            if by_force {
                // Before the release: what still ran could take the lease again behind it.
                runs.stop(&post);
                let Post { session_id: session, queue, owner, .. } = post;
                tracing::warn!(?session, "a subscriber did not stop in time; it is dropped");
                if let Err(error) = queue.release(&session, owner).await {
                    tracing::warn!(?session, %error, "its lease was not released; it runs out by itself");
                }
                // A thread that never comes to an await point would hold up its waiters for ever.
                waiters.into_iter().for_each(|waiter| drop(waiter.send(Forced)));
                runs.end().await;
            } else {
                runs.end().await;
                drop(waiters);
            }
        };
        ctx.spawn(work.into_actor(self));
    }

    /// Starts a child that failed again, after a pause. It stays in the registry meanwhile, to be stopped or replaced.
    fn restart(&mut self, session_id: &SessionId, reason: &str, ctx: &mut Context<Self>) {
        let Some(child) = self.children.get_mut(session_id) else { return };
        let Post { epoch, stats, .. } = &child.post;
        let epoch = *epoch;
        stats.set_error(&reason);
        stats.set_state(SubscriberState::BackingOff);
        let ran = std::mem::replace(&mut child.runs, Runs::Pausing);
        let earlier = child.restarts.spend(clock::now());
        ctx.spawn(ran.end().into_actor(self));
        let Some(earlier) = earlier else {
            tracing::error!(session = ?session_id, reason, "a subscriber failed too often; it is given up");
            self.children.remove(session_id);
            self.give_places(ctx);
            return;
        };
        let pause = self.config.backoff().pause(earlier, fastrand::f64());
        tracing::error!(session = ?session_id, reason, ?pause, "a subscriber failed; it is started again");
        let session_id = session_id.clone();
        ctx.run_later(pause, move |supervisor, ctx| supervisor.start_again(session_id, epoch, ctx));
    }

    fn start_again(&mut self, session_id: SessionId, epoch: u64, ctx: &mut Context<Self>) {
        // Meanwhile it may have been stopped, or the client have come back with another object.
        if self.children.get(&session_id).is_none_or(|child| child.post.epoch != epoch) {
            return;
        }
        let (placement, host) = match self.host(Some(&session_id)) {
            Ok(host) => host,
            Err(error) => return self.restart(&session_id, &error.to_string(), ctx),
        };
        if let Some(Child { post, restarts, place, .. }) = self.children.remove(&session_id) {
            drop(place);
            let place = self.limits.take(placement);
            self.start_child(session_id, post.session, post.stats, restarts, host, place, None, ctx);
        }
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
        let (placement, host) = self.host(Some(&session_id))?;
        self.stop_child(&session_id, ctx);
        let place = self.limits.take(placement);
        let restarts = RestartBudget::new(RESTARTS, RESTARTS_WITHIN);
        self.start_child(session_id, session, Arc::new(Stats::new()), restarts, host, place, None, ctx);
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
        if let Some(ending) = self.ending.get(&epoch) {
            // A stop came while it parked: the machine ends as a parked one does.
            if let (ExitReason::Parked, Some(memory)) = (reason, memory) {
                actix_rt::spawn(Driver::parked(ending.post.clone(), memory).run());
            }
            self.end(epoch, false, ctx);
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
                    ctx.spawn(child.runs.end().into_actor(self));
                }
                self.give_places(ctx);
            }
            (reason, _) => self.restart(&session, &format!("{reason:?}"), ctx),
        }
    }
}
