//! Stops of subscribers, and drops of subscribers that do not stop in time.
//!
//! *Why a subscriber is first stopped, then released*. A subscriber that still runs could claim the lease again after
//! the release. The session would then have an owner that nobody knows.
//!
//! *A successor does not wait for long*. The machine's order rests on the lease and the permit. A stuck predecessor,
//! which blocks its thread, must not keep the client from being served
//! (`a_client_that_came_back_many_times_waits_for_all_its_stuck_predecessors_at_once`).
//!
//! *By force*. A dedicated subscriber is dropped with its arbiter. A shared one is dropped alone, by its stop signal:
//! its neighbours continue (`a_shared_subscriber_that_does_not_stop_in_time_is_dropped_alone`).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::SupervisorActor;
use super::child::{Child, Ending, Runs};
use crate::actors::clock;
use crate::actors::log_gate::log_through;
use crate::actors::post::{Forced, Post};
use crate::session_id::SessionId;

/// Time that a stopping subscriber may take, beyond that of one hand-over, before it is dropped.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Subscribers that were asked to stop or were replaced, and have not ended yet.
#[derive(Default)]
pub(super) struct Endings {
    /// Subscribers by their session ids. One id can have several, as of a client that reconnects quickly.
    ending: HashMap<SessionId, Vec<Ending>>,
    /// Moments at which subscribers are dropped, the earliest first, with their session ids and epochs. Most of these
    /// subscribers have ended before their moment.
    patience: VecDeque<(Instant, SessionId, u64)>,
    /// Set while a timer runs for the earliest moment. One timer serves all subscribers.
    is_timed: bool,
}

impl Endings {
    pub(super) fn len(&self) -> usize {
        self.ending.len()
    }

    /// Returns the subscribers of one session that have not ended.
    pub(super) fn of(&mut self, session: &SessionId) -> impl Iterator<Item = &mut Ending> {
        self.ending.get_mut(session).into_iter().flatten()
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Ending> {
        self.ending.values_mut().flatten()
    }

    pub(super) fn get(&self, session: &SessionId, epoch: u64) -> Option<&Ending> {
        self.ending.get(session)?.iter().find(|ending| ending.post.epoch == epoch)
    }

    /// Removes and returns all subscribers.
    pub(super) fn take(&mut self) -> Vec<Ending> {
        self.patience = VecDeque::new();
        std::mem::take(&mut self.ending).into_values().flatten().collect()
    }

    fn insert(&mut self, ending: Ending) {
        self.ending.entry(ending.post.session_id.clone()).or_default().push(ending);
    }

    fn remove(&mut self, session: &SessionId, epoch: u64) -> Option<Ending> {
        let of_session = self.ending.get_mut(session)?;
        let ended = of_session.iter().position(|ending| ending.post.epoch == epoch).map(|at| of_session.remove(at));
        if of_session.is_empty() {
            self.ending.remove(session);
        }
        if self.ending.is_empty() {
            // The memory is freed, so that a shutdown of many subscribers leaves none allocated.
            (self.ending, self.patience) = Default::default();
        }
        ended
    }

    /// Removes and returns the next subscriber whose time is over at `now`.
    fn next_overdue(&mut self, now: Instant) -> Option<(SessionId, u64)> {
        self.patience.front().filter(|(at, ..)| *at <= now)?;
        self.patience.pop_front().map(|(_, session, epoch)| (session, epoch))
    }
}

impl SupervisorActor {
    /// Asks a child to stop and removes it from the registry. Returns a receiver that ends when the child has ended, or
    /// `None` where there is no such child.
    pub(super) fn stop_child(
        &mut self,
        session_id: &SessionId,
        ctx: &mut Context<Self>,
    ) -> Option<oneshot::Receiver<Forced>> {
        let Child { post, runs, place: _, restarts: _ } = self.children.remove(session_id)?;
        // The subscriber may have ended already. Its `Ended` is then on its way to this actor.
        post.stop.ask();
        let (ended, end) = oneshot::channel();
        // A subscriber that pauses before a restart has ended. Dropping `ended` reports that.
        if matches!(runs, Runs::Pausing) {
            return Some(end);
        }
        if matches!(runs, Runs::On(_)) {
            // Only a running subscriber gets a time limit. A parked one ends at once, or as soon as the queue answers.
            let patience = self.config.hand_over_timeout() + STOP_GRACE;
            self.endings.patience.push_back((clock::now() + patience, session_id.clone(), post.epoch));
            self.watch_patience(ctx);
        }
        self.endings.insert(Ending { post, runs, waiters: vec![ended] });
        Some(end)
    }

    /// Drops subscribers that do not end in time. One timer serves all.
    fn watch_patience(&mut self, ctx: &mut Context<Self>) {
        if self.endings.is_timed {
            return;
        }
        let Some(&(at, ..)) = self.endings.patience.front() else { return };
        self.endings.is_timed = true;
        ctx.run_later(at.saturating_duration_since(clock::now()), |supervisor, ctx| {
            supervisor.endings.is_timed = false;
            while let Some((session_id, epoch)) = supervisor.endings.next_overdue(clock::now()) {
                supervisor.end(&session_id, epoch, true);
            }
            supervisor.watch_patience(ctx);
        });
    }

    /// Completes the end of a subscriber: frees its arbiter and answers the waiters. With `by_force` the subscriber is
    /// dropped, and its lease is released for it.
    pub(super) fn end(&mut self, session_id: &SessionId, epoch: u64, by_force: bool) {
        let Some(Ending { post, runs, waiters }) = self.endings.remove(session_id, epoch) else { return };
        match runs {
            Runs::Parked(_) => {}
            runs if by_force => drop(actix_rt::spawn(end_by_force(post, runs, waiters))),
            runs => runs.end_then(move || drop(waiters)),
        }
    }
}

/// Drops a subscriber, releases its lease, answers the waiters, and ends the arbiter.
async fn end_by_force(post: Arc<Post>, runs: Runs, waiters: Vec<oneshot::Sender<Forced>>) {
    // The subscriber is stopped before the release. A subscriber that still ran could claim the lease again after the
    // release.
    runs.stop(&post);
    let session = post.session_id.clone();
    log_through!(
        post.passes(|gates| &gates.dropped),
        warn,
        ?session,
        "a subscriber did not stop in time; it is dropped"
    );
    let (common, owner) = (Arc::clone(&post.common), post.owner);
    // The session is dropped now: a release can take long, and needs the session's id only.
    drop(post);
    if let Err(error) = common.queue.release(&session, owner).await {
        tracing::warn!(?session, %error, "its lease was not released; it runs out by itself");
    }
    // The waiters are answered before the thread has ended, because a thread that never reaches an await point would
    // block them for ever.
    waiters.into_iter().for_each(|waiter| drop(waiter.send(Forced)));
    runs.end_then(|| {});
}
