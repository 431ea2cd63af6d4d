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
use super::child::{Child, RunState, StoppingSubscriber};
use crate::actors::clock;
use crate::actors::log_gate::log_through;
use crate::actors::subscriber_context::{Forced, SubscriberContext};
use crate::session_id::SessionId;
use crate::story;

/// Time that a stopping subscriber may take, beyond that of one hand-over, before it is dropped.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// Subscribers that were asked to stop or were replaced, and have not ended yet.
#[derive(Default)]
pub(super) struct StoppingSubscribers {
    /// Subscribers by their session ids. One id can have several, as of a client that reconnects quickly.
    by_session: HashMap<SessionId, Vec<StoppingSubscriber>>,
    /// Moments at which subscribers are dropped, the earliest first, with their session ids and epochs. Most of these
    /// subscribers have ended before their moment.
    deadlines: VecDeque<(Instant, SessionId, u64)>,
    /// Set while a timer runs for the earliest moment. One timer serves all subscribers.
    is_timed: bool,
}

impl StoppingSubscribers {
    pub(super) fn len(&self) -> usize {
        self.by_session.len()
    }

    /// Returns the subscribers of one session that have not ended.
    pub(super) fn of(&mut self, session: &SessionId) -> impl Iterator<Item = &mut StoppingSubscriber> {
        self.by_session.get_mut(session).into_iter().flatten()
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut StoppingSubscriber> {
        self.by_session.values_mut().flatten()
    }

    pub(super) fn get(&self, session: &SessionId, epoch: u64) -> Option<&StoppingSubscriber> {
        self.by_session.get(session)?.iter().find(|stopping| stopping.context.epoch == epoch)
    }

    /// Removes and returns all subscribers.
    pub(super) fn take(&mut self) -> Vec<StoppingSubscriber> {
        self.deadlines = VecDeque::new();
        std::mem::take(&mut self.by_session).into_values().flatten().collect()
    }

    fn insert(&mut self, stopping: StoppingSubscriber) {
        self.by_session.entry(stopping.context.session_id.clone()).or_default().push(stopping);
    }

    fn remove(&mut self, session: &SessionId, epoch: u64) -> Option<StoppingSubscriber> {
        let of_session = self.by_session.get_mut(session)?;
        let ended =
            of_session.iter().position(|stopping| stopping.context.epoch == epoch).map(|at| of_session.remove(at));
        if of_session.is_empty() {
            self.by_session.remove(session);
        }
        if self.by_session.is_empty() {
            // The memory is freed, so that a shutdown of many subscribers leaves none allocated.
            (self.by_session, self.deadlines) = Default::default();
        }
        ended
    }

    /// Removes and returns the next subscriber whose time is over at `now`.
    fn next_overdue(&mut self, now: Instant) -> Option<(SessionId, u64)> {
        self.deadlines.front().filter(|(at, ..)| *at <= now)?;
        self.deadlines.pop_front().map(|(_, session, epoch)| (session, epoch))
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
        let Child { context, run_state, place: _, restarts: _ } = self.children.remove(session_id)?;
        story::stopping(session_id, context.epoch);
        // The subscriber may have ended already. Its `Ended` is then on its way to this actor.
        context.stop.ask();
        let (ended, end) = oneshot::channel();
        // A subscriber that pauses before a restart has ended. Dropping `ended` reports that.
        if matches!(run_state, RunState::Pausing) {
            return Some(end);
        }
        if matches!(run_state, RunState::Running(_)) {
            // Only a running subscriber gets a time limit. A parked one ends at once, or as soon as the queue answers.
            let patience = self.config.hand_over_timeout() + STOP_GRACE;
            self.stopping.deadlines.push_back((clock::now() + patience, session_id.clone(), context.epoch));
            self.watch_deadlines(ctx);
        }
        self.stopping.insert(StoppingSubscriber { context, run_state, waiters: vec![ended] });
        Some(end)
    }

    /// Drops subscribers that do not end in time. One timer serves all.
    fn watch_deadlines(&mut self, ctx: &mut Context<Self>) {
        if self.stopping.is_timed {
            return;
        }
        let Some(&(at, ..)) = self.stopping.deadlines.front() else { return };
        self.stopping.is_timed = true;
        ctx.run_later(at.saturating_duration_since(clock::now()), |supervisor, ctx| {
            supervisor.stopping.is_timed = false;
            while let Some((session_id, epoch)) = supervisor.stopping.next_overdue(clock::now()) {
                supervisor.complete_stop(&session_id, epoch, true);
            }
            supervisor.watch_deadlines(ctx);
        });
    }

    /// Completes the end of a subscriber: frees its arbiter and answers the waiters. With `by_force` the subscriber is
    /// dropped, and its lease is released for it.
    pub(super) fn complete_stop(&mut self, session_id: &SessionId, epoch: u64, by_force: bool) {
        let Some(StoppingSubscriber { context, run_state, waiters }) = self.stopping.remove(session_id, epoch) else {
            return;
        };
        story::removed(session_id, epoch);
        match run_state {
            RunState::Parked(_) => {}
            run_state if by_force => drop(actix_rt::spawn(force_end(context, run_state, waiters))),
            run_state => run_state.end_then(move || drop(waiters)),
        }
    }
}

/// Drops a subscriber, releases its lease, answers the waiters, and ends the arbiter.
async fn force_end(context: Arc<SubscriberContext>, run_state: RunState, waiters: Vec<oneshot::Sender<Forced>>) {
    // The subscriber is stopped before the release. A subscriber that still ran could claim the lease again after the
    // release.
    run_state.stop(&context);
    let session = context.session_id.clone();
    log_through!(
        context.passes(|gates| &gates.dropped),
        warn,
        ?session,
        "a subscriber did not stop in time; it is dropped"
    );
    let (common, owner) = (Arc::clone(&context.common), context.owner);
    // The session is dropped now: a release can take long, and needs the session's id only.
    drop(context);
    if let Err(error) = common.queue.release(&session, owner).await {
        tracing::warn!(?session, %error, "releasing the lease of a dropped subscriber failed; it expires by itself");
    }
    // The waiters are answered before the thread has ended, because a thread that never reaches an await point would
    // block them for ever.
    waiters.into_iter().for_each(|waiter| drop(waiter.send(Forced)));
    run_state.end_then(|| {});
}
