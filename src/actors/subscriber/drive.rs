//! The life of a subscriber around its service: parked, connecting, claiming, standing by, backing off, releasing.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use actix::Addr;

use super::serve::{Left, serve};
use crate::actors::post::{Memory, Post, StopReason, stopped};
use crate::actors::session::{Ask, StopAsking};
use crate::actors::{SessionActor, SubscriberState};
use crate::backend::{Consumer, Item, LeaseState, Permit};
use crate::envelope::Timestamp;
use crate::failure::QueueError;
use crate::question::Question;
use crate::session::SessionState;

pub(super) struct Drive {
    pub(super) post: Post,
    /// What outlives this while the client is away.
    pub(super) memory: Box<Memory>,
    pub(super) session: Addr<SessionActor>,
    pub(super) permit: Arc<Permit>,
    /// Whether a claim may stand in the queue.
    pub(super) to_release: bool,
}

impl Drive {
    pub(super) fn new(post: Post, memory: Box<Memory>, session: Addr<SessionActor>) -> Self {
        Self { post, memory, session, permit: Arc::new(Permit::new()), to_release: false }
    }

    pub(super) async fn run(mut self) -> (StopReason, Box<Memory>) {
        let reason = self.live().await;
        if reason == StopReason::Closed {
            self.to_release = true;
            self.post.cancel_open_questions().await;
        }
        if reason != StopReason::Parked {
            self.set_state(SubscriberState::Stopping);
        }
        self.release().await;
        (reason, self.memory)
    }

    async fn live(&mut self) -> StopReason {
        loop {
            let seen = self.memory.presence.now();
            let opened = match seen {
                _ if self.stopping() => return StopReason::Stopped,
                SessionState::Ended => return StopReason::Closed,
                SessionState::Left => return StopReason::Left,
                SessionState::Ready { opened } => opened,
                SessionState::Away if self.park_for_long(seen).await => return StopReason::Parked,
                SessionState::Away => continue,
            };
            self.set_state(SubscriberState::Connecting);
            let mut stop = self.post.stop.clone();
            let connected = tokio::select! {
                connected = self.connect(opened) => connected,
                () = stopped(&mut stop) => return StopReason::Stopped,
            };
            match connected {
                Ok(Some(mut consumer)) => match serve(self, consumer.as_mut(), opened).await {
                    Ok(Left::ToLookAround) => {}
                    Ok(Left::InDoubt) => {
                        drop(consumer);
                        self.look_again(seen).await;
                    }
                    Ok(Left::Displaced) => {
                        // The connection is closed first: while standing by none is needed.
                        drop(consumer);
                        self.stand_by(seen).await;
                    }
                    Ok(Left::NotReady) => {
                        drop(consumer);
                        self.await_ready(seen).await;
                    }
                    Ok(Left::Closed) => return StopReason::Closed,
                    Ok(Left::SessionActorGone) => {
                        return StopReason::Panicked("the session actor is gone".to_owned());
                    }
                    Err(error) => {
                        // A pause may be long, and it is of no more use.
                        drop(consumer);
                        self.back_off(seen, &error).await;
                    }
                },
                Ok(None) => self.stand_by(seen).await,
                Err(error) => self.back_off(seen, &error).await,
            }
        }
    }

    /// A consumer of a queue that is ours, or `None` where another has it.
    async fn connect(&mut self, opened: u64) -> Result<Option<Box<dyn Consumer>>, QueueError> {
        let Post { queue, session_id, owner, .. } = &self.post;
        let mut consumer = queue.open(session_id, *owner, Arc::clone(&self.permit)).await?;
        consumer.share_limit(Arc::clone(&self.memory.limit));
        self.to_release = true;
        if self.memory.claimed.is_some_and(|claimed| opened <= claimed) {
            // A new connection, or an older stream, but not a newer one: who was displaced does not claim again by itself.
            let state = consumer.renew().await?;
            if !state.is_ours() {
                return Ok(None);
            }
            if state == LeaseState::Reclaimed {
                tracing::warn!(session = ?self.post.session_id, "the lease had gone and is ours again");
            }
        } else {
            consumer.claim().await?;
            self.memory.claimed = Some(opened);
        }
        Ok(Some(consumer))
    }

    /// Gives the messages of a batch the ids and the times that they lack.
    pub(super) fn arrived(&mut self, items: &mut [Item], now: Timestamp) {
        if let Some(off) = self.memory.arrivals.seen(items, now) {
            tracing::warn!(session = ?self.post.session_id, ?off,
                "a producer's clock is wrong; its notifications expire by what their owner saw of the queue");
        }
    }

    /// Has the client asked, beside all else.
    pub(super) fn ask(&self, questions: Vec<Question>, read_at: (Timestamp, Instant)) {
        if !questions.is_empty() {
            // It answers nothing, and is there as long as this is.
            self.session.do_send(Ask { questions, read_at });
        }
    }

    /// Gives everything up while the client has no stream, and returns whether the client is still away then.
    pub(super) async fn park_for_long(&mut self, seen: SessionState) -> bool {
        self.set_state(SubscriberState::Parked);
        self.release().await;
        // The arbiter ends, and with it all that runs there. An answer that the user gave goes to its worker first, as the user
        // is not asked again for it; so does a cancellation, as nobody else tells the worker.
        //
        // From what was seen before the release: the client may have come back during it.
        !self.until_changed_from(seen, self.post.settled()).await && !self.stopping()
    }

    /// Pauses while the session takes nothing. Where its presence does not say so, only time can tell when it does again.
    async fn await_ready(&mut self, seen: SessionState) {
        self.set_state(SubscriberState::BackingOff);
        let pause = self.post.config.backoff().pause(self.memory.failures, fastrand::f64());
        self.memory.failures = self.memory.failures.saturating_add(1);
        self.until_changed_from(seen, tokio::time::sleep(pause)).await;
    }

    /// Another owns the queue. Looks once a heartbeat whether it still does.
    async fn stand_by(&mut self, seen: SessionState) {
        self.set_state(SubscriberState::StandingBy);
        self.memory.failures = 0;
        self.session.do_send(StopAsking);
        tracing::info!(session = ?self.post.session_id, "another subscriber has taken the session over");
        loop {
            if self.until_changed_from(seen, tokio::time::sleep(self.post.config.heartbeat())).await {
                return;
            }
            let Post { queue, session_id, owner, .. } = &self.post;
            match queue.claim_if_absent(session_id, *owner).await {
                Ok(state) if state.is_ours() => return,
                Ok(_) => {}
                Err(error) => self.post.stats.set_error(&error),
            }
        }
    }

    /// The connection broke or the lease changed under it. At once the first time; but where that is what every wait ends
    /// with, as behind a proxy that cuts blocking commands, it is a failure like others.
    async fn look_again(&mut self, seen: SessionState) {
        let earlier = self.memory.failures;
        self.memory.failures = earlier.saturating_add(1);
        if let Some(earlier) = earlier.checked_sub(1) {
            self.set_state(SubscriberState::BackingOff);
            let pause = self.post.config.backoff().pause(earlier, fastrand::f64());
            self.until_changed_from(seen, tokio::time::sleep(pause)).await;
        }
    }

    /// A wait ended as it should, or something was delivered.
    pub(super) fn succeeded(&mut self) {
        let failures = std::mem::take(&mut self.memory.failures);
        if failures > 0 {
            tracing::info!(session = ?self.post.session_id, failures, "the subscriber is at work again");
        }
    }

    pub(super) async fn back_off(&mut self, seen: SessionState, error: &QueueError) {
        self.permit.revoke();
        self.set_state(SubscriberState::BackingOff);
        self.post.stats.set_error(error);
        let pause = self.post.config.backoff().pause(self.memory.failures, fastrand::f64());
        self.memory.failures = self.memory.failures.saturating_add(1);
        let source = std::error::Error::source(error).map(ToString::to_string);
        // A thousand subscribers fail together, and for hours: the first failure is told, and then each time that there have
        // been twice as many.
        let (session, failures) = (&self.post.session_id, self.memory.failures);
        if failures.is_power_of_two() {
            tracing::warn!(?session, %error, source, failures, ?pause, "the queue failed; trying again");
        } else {
            tracing::debug!(?session, %error, source, failures, ?pause, "the queue failed; trying again");
        }
        self.until_changed_from(seen, tokio::time::sleep(pause)).await;
    }

    /// Waits for `what`, for a stop, or until the client's presence is no longer `seen`; whether it was one of the latter.
    pub(super) async fn until_changed_from(&self, seen: SessionState, what: impl Future<Output = ()>) -> bool {
        let mut presence = self.memory.presence.clone();
        let mut stop = self.post.stop.clone();
        tokio::select! {
            () = what => false,
            () = presence.changed_from(seen) => true,
            () = stopped(&mut stop) => true,
        }
    }

    pub(super) async fn release(&mut self) {
        self.permit.revoke();
        self.session.do_send(StopAsking);
        if std::mem::take(&mut self.to_release) {
            self.post.release().await;
        }
    }

    pub(super) fn stopping(&self) -> bool {
        self.post.stopping()
    }

    pub(super) fn set_state(&self, state: SubscriberState) {
        self.post.stats.set_state(state);
    }
}
