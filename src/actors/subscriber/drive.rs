//! The life of a subscriber around its service: parked, connecting, claiming, standing by, backing off, releasing.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix::Addr;

use super::serve::{Left, serve};
use crate::actors::post::{Post, StopReason};
use crate::actors::session::{Ask, StopAsking};
use crate::actors::{SessionActor, SubscriberState};
use crate::config::Delivery;
use crate::envelope::Timestamp;
use crate::error::QueueError;
use crate::notification::NotificationId;
use crate::question::{Answer, Question};
use crate::queue::questions::{cancel_open, settle_open};
use crate::queue::{Consumer, LeaseState, LineLimit, Permit};
use crate::recent::Recent;
use crate::session::{Presence, SessionState};

/// How long a release may take at the end. The lease runs out by itself.
const RELEASE: Duration = Duration::from_secs(2);

pub(super) struct Drive {
    pub(super) post: Post,
    pub(super) session: Addr<SessionActor>,
    pub(super) presence: Presence,
    pub(super) permit: Arc<Permit>,
    pub(super) recent: Recent<NotificationId>,
    /// Bounds of the next take: what earlier connections taught holds for the next one too.
    pub(super) limit: Arc<Mutex<LineLimit>>,
    /// Failures of the queue in a row, for the backoff.
    pub(super) failures: u32,
    /// The newest opening of the client's stream that the queue was claimed for.
    claimed: Option<u64>,
    /// Whether a claim may stand in the queue.
    pub(super) to_release: bool,
}

impl Drive {
    pub(super) fn new(post: Post, session: Addr<SessionActor>) -> Self {
        // A batch may come again after an unknown outcome, and another one may have been delivered behind it.
        let recent = Recent::new((post.config.batch_messages() * 2).max(1024));
        let messages = match post.config.delivery() {
            Delivery::AtLeastOnce => post.config.batch_messages(),
            Delivery::AtMostOnce => 1,
        };
        let limit = LineLimit::new(messages, post.config.batch_bytes());
        Self {
            presence: post.session.presence(),
            session,
            permit: Arc::new(Permit::new()),
            recent,
            limit: Arc::new(Mutex::new(limit)),
            failures: 0,
            claimed: None,
            to_release: false,
            post,
        }
    }

    pub(super) async fn run(mut self) -> StopReason {
        let reason = self.live().await;
        if reason == StopReason::Closed {
            self.cancel_open_questions().await;
        }
        self.set_state(SubscriberState::Stopping);
        self.release().await;
        reason
    }

    async fn live(&mut self) -> StopReason {
        loop {
            let seen = self.presence.now();
            let opened = match seen {
                _ if self.stopping() => return StopReason::Stopped,
                SessionState::Ended => return StopReason::Closed,
                SessionState::Left => return StopReason::Left,
                SessionState::Ready { opened } => opened,
                SessionState::Away => {
                    self.set_state(SubscriberState::Parked);
                    self.release().await;
                    // From what was seen before the release: the client may have come back during it.
                    self.until_changed_from(seen, std::future::pending()).await;
                    continue;
                }
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
                        self.park(seen).await;
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
        consumer.share_limit(Arc::clone(&self.limit));
        self.to_release = true;
        if self.claimed.is_some_and(|claimed| opened <= claimed) {
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
            self.claimed = Some(opened);
        }
        Ok(Some(consumer))
    }

    /// Has the client asked, beside all else.
    pub(super) fn ask(&self, questions: Vec<Question>, read_at: (Timestamp, Instant)) {
        if !questions.is_empty() {
            // It answers nothing, and is there as long as this is.
            self.session.do_send(Ask { questions, read_at });
        }
    }

    /// Nobody will answer any more: whoever asked is told. Unless the client goes on at another server, which may be why
    /// its session has ended here: then its questions are that one's.
    async fn cancel_open_questions(&mut self) {
        self.to_release = true;
        let Post { queue, session_id, owner, .. } = &self.post;
        if !queue.claim_if_absent(session_id, *owner).await.is_ok_and(LeaseState::is_ours) {
            return;
        }
        if let Err(error) = cancel_open(&**queue, session_id, "the session has ended").await {
            tracing::warn!(session = ?session_id, %error, "questions were not cancelled; their workers wait out their time");
        }
    }

    /// The session takes nothing now. If its presence does not say so, only time can tell when it does again.
    async fn park(&mut self, seen: SessionState) {
        self.set_state(SubscriberState::Parked);
        let pause = self.post.config.backoff().pause(self.failures, fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        self.until_changed_from(seen, tokio::time::sleep(pause)).await;
    }

    /// Another owns the queue. Looks once a heartbeat whether it still does.
    async fn stand_by(&mut self, seen: SessionState) {
        self.set_state(SubscriberState::StandingBy);
        self.failures = 0;
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
        let earlier = self.failures;
        self.failures = earlier.saturating_add(1);
        if let Some(earlier) = earlier.checked_sub(1) {
            self.set_state(SubscriberState::BackingOff);
            let pause = self.post.config.backoff().pause(earlier, fastrand::f64());
            self.until_changed_from(seen, tokio::time::sleep(pause)).await;
        }
    }

    /// A wait ended as it should, or something was delivered.
    pub(super) fn succeeded(&mut self) {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            tracing::info!(session = ?self.post.session_id, failures, "the subscriber is at work again");
        }
    }

    pub(super) async fn back_off(&mut self, seen: SessionState, error: &QueueError) {
        self.permit.revoke();
        self.set_state(SubscriberState::BackingOff);
        self.post.stats.set_error(error);
        let pause = self.post.config.backoff().pause(self.failures, fastrand::f64());
        self.failures = self.failures.saturating_add(1);
        let source = std::error::Error::source(error).map(ToString::to_string);
        // A thousand subscribers fail together, and for hours: the first failure is told, and then each time that there have
        // been twice as many.
        let (session, failures) = (&self.post.session_id, self.failures);
        if failures.is_power_of_two() {
            tracing::warn!(?session, %error, source, failures, ?pause, "the queue failed; trying again");
        } else {
            tracing::debug!(?session, %error, source, failures, ?pause, "the queue failed; trying again");
        }
        self.until_changed_from(seen, tokio::time::sleep(pause)).await;
    }

    /// Waits for `what`, for a stop, or until the client's presence is no longer `seen`; whether it was one of the latter.
    pub(super) async fn until_changed_from(&self, seen: SessionState, what: impl Future<Output = ()>) -> bool {
        let mut presence = self.presence.clone();
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
        if !std::mem::take(&mut self.to_release) {
            return;
        }
        let Post { queue, session_id, owner, .. } = &self.post;
        match tokio::time::timeout(RELEASE, queue.release(session_id, *owner)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(session = ?session_id, %error, "the lease was not released; it runs out by itself");
            }
            Err(_) => {
                tracing::warn!(session = ?session_id, "the lease was not released in time; it runs out by itself");
            }
        }
    }

    pub(super) fn stopping(&self) -> bool {
        *self.post.stop.borrow()
    }

    pub(super) fn set_state(&self, state: SubscriberState) {
        self.post.stats.set_state(state);
    }
}

/// A question that nobody will answer: its worker is told why, at once.
pub(super) async fn cancel(post: &Post, question: &Question, why: &str) {
    let answer = Answer::cancelled(why);
    if let Err(error) = settle_open(&*post.queue, &post.session_id, question, &answer).await {
        tracing::warn!(session = ?post.session_id, %error, "a question was not cancelled; its worker waits out its time");
    }
}

/// Ends when the subscriber is asked to stop.
pub(super) async fn stopped(stop: &mut tokio::sync::watch::Receiver<bool>) {
    // The supervisor is gone, and with it whoever could ask for anything: that is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}
