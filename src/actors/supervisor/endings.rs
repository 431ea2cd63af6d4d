//! Stopping subscribers, and dropping those that do not stop in time.

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

/// Subscribers that were asked to stop, or were replaced, and have not ended yet.
#[derive(Default)]
pub(super) struct Endings {
    ending: HashMap<SessionId, Vec<Ending>>,
    /// Moments at which subscribers are dropped, the earliest first, with their sessions and epochs. Many have ended before.
    patience: VecDeque<(Instant, SessionId, u64)>,
    /// Set while a timer runs for the first of them: one for all.
    is_timed: bool,
}

impl Endings {
    pub(super) fn len(&self) -> usize {
        self.ending.len()
    }

    /// Returns those of one session.
    pub(super) fn of(&mut self, session: &SessionId) -> impl Iterator<Item = &mut Ending> {
        self.ending.get_mut(session).into_iter().flatten()
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Ending> {
        self.ending.values_mut().flatten()
    }

    pub(super) fn get(&self, session: &SessionId, epoch: u64) -> Option<&Ending> {
        self.ending.get(session)?.iter().find(|ending| ending.post.epoch == epoch)
    }

    /// Takes all out.
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
            // A shutdown of many leaves no memory taken.
            (self.ending, self.patience) = Default::default();
        }
        ended
    }

    fn next_overdue(&mut self, now: Instant) -> Option<(SessionId, u64)> {
        self.patience.front().filter(|(at, ..)| *at <= now)?;
        self.patience.pop_front().map(|(_, session, epoch)| (session, epoch))
    }
}

impl SupervisorActor {
    /// Asks a child to stop, and returns what is told when it has.
    pub(super) fn stop_child(
        &mut self,
        session_id: &SessionId,
        ctx: &mut Context<Self>,
    ) -> Option<oneshot::Receiver<Forced>> {
        let Child { post, runs, place: _, restarts: _ } = self.children.remove(session_id)?;
        // It may have ended already: then its notice is on its way.
        post.stop.ask();
        let (ended, end) = oneshot::channel();
        // One that pauses before a restart has ended: `ended` is dropped, which says so.
        if matches!(runs, Runs::Pausing) {
            return Some(end);
        }
        if matches!(runs, Runs::On(_)) {
            // A parked one ends at once, or as soon as the queue answers.
            let patience = self.config.hand_over_timeout() + STOP_GRACE;
            self.endings.patience.push_back((clock::now() + patience, session_id.clone(), post.epoch));
            self.watch_patience(ctx);
        }
        self.endings.insert(Ending { post, runs, waiters: vec![ended] });
        Some(end)
    }

    /// Has those that do not end in time dropped, by one timer for all.
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

    /// Gives an ended subscriber's thread back. One that did not end by itself is dropped, and its lease released for it.
    pub(super) fn end(&mut self, session_id: &SessionId, epoch: u64, by_force: bool) {
        let Some(Ending { post, runs, waiters }) = self.endings.remove(session_id, epoch) else { return };
        match runs {
            Runs::Parked(_) => {}
            runs if by_force => drop(actix_rt::spawn(end_by_force(post, runs, waiters))),
            runs => runs.end_then(move || drop(waiters)),
        }
    }
}

async fn end_by_force(post: Arc<Post>, runs: Runs, waiters: Vec<oneshot::Sender<Forced>>) {
    // Before the release: what still ran could take the lease again behind it.
    runs.stop(&post);
    let session = post.session_id.clone();
    log_through!(
        post.passes(|gates| &gates.dropped),
        warn,
        ?session,
        "a subscriber did not stop in time; it is dropped"
    );
    let (common, owner) = (Arc::clone(&post.common), post.owner);
    // The session is not kept for as long as its release takes.
    drop(post);
    if let Err(error) = common.queue.release(&session, owner).await {
        tracing::warn!(?session, %error, "its lease was not released; it runs out by itself");
    }
    // A thread that never comes to an await point would hold up its waiters for ever.
    waiters.into_iter().for_each(|waiter| drop(waiter.send(Forced)));
    runs.end_then(|| {});
}
