//! The driver of a subscriber: performs the actions of one [`Subscription`](crate::subscription::Subscription) and
//! gives the machine its events.
//!
//! The driver makes no decision. One operation on the queue is under way at a time, and at most one delivery beside it.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use actix::Addr;

use super::notes::{note, record};
use crate::actors::clock;
use crate::actors::post::{Memory, Post};
use crate::actors::session::{Ask, Deliver, SessionActor, StopAsking};
use crate::backend::{Consumer, LineLimit, Queues};
use crate::failure::{QueueError, QueueErrorKind};
use crate::subscription::{Action, Event, ExitReason, Operation, Outcome, Permit, SubscriberState};

type Running<T> = Pin<Box<dyn Future<Output = T>>>;

/// Answer to an operation, with the connection where it is still whole.
type Answer = (Option<Box<dyn Consumer>>, Event);

pub(in crate::actors) struct Driver {
    post: Arc<Post>,
    /// Queues that the subscriber takes from: the backend itself, or those that an arbiter shares.
    queues: Arc<dyn Queues>,
    memory: Box<Memory>,
    /// Actor that deliveries go to; `None` for a parked subscriber, whose machine delivers nothing.
    session: Option<Addr<SessionActor>>,
    /// Connection on which nothing is under way.
    connection: Option<Box<dyn Consumer>>,
    /// Operation under way. Dropping it closes its connection.
    operation: Option<Running<Answer>>,
    delivery: Option<Running<Option<Outcome>>>,
}

impl Driver {
    pub(in crate::actors) fn new(
        post: Arc<Post>,
        queues: Arc<dyn Queues>,
        memory: Box<Memory>,
        session: Option<Addr<SessionActor>>,
    ) -> Self {
        Self { post, queues, memory, session, connection: None, operation: None, delivery: None }
    }

    /// Driver of a parked subscriber, which releases its lease over the backend's own connections.
    pub(in crate::actors) fn parked(post: Arc<Post>, memory: Box<Memory>) -> Self {
        let queues = Arc::clone(&post.common.queue) as Arc<dyn Queues>;
        Self::new(post, queues, memory, None)
    }

    /// Runs the machine, from the client's presence on, until the subscriber exits.
    pub(in crate::actors) async fn run(mut self) -> (ExitReason, Box<Memory>) {
        let (mut presence, post) = (self.memory.presence.clone(), Arc::clone(&self.post));
        let permit = Arc::clone(self.memory.machine.permit());
        let (mut seen, mut is_stopping) = (presence.now(), false);
        let mut event = Event::Presence(seen);
        loop {
            if let Err(defect) = self.memory.machine.handle(event, clock::now(), fastrand::f64()) {
                return (ExitReason::Panicked(defect.to_string()), self.memory);
            }
            while let Some(action) = self.memory.machine.next_action() {
                if let Some(reason) = self.perform(action) {
                    return (reason, self.memory);
                }
            }
            let state = self.memory.machine.state();
            self.post.stats.set_state(state);
            let deadline = self.memory.machine.deadline();
            event = tokio::select! {
                biased;
                () = post.stop.asked(), if !is_stopping => {
                    is_stopping = true;
                    Event::Stop
                }
                () = presence.changed_from(seen) => {
                    seen = presence.now();
                    Event::Presence(seen)
                }
                (connection, event) = end_of(&mut self.operation) => {
                    self.connection = connection;
                    event
                }
                outcome = end_of(&mut self.delivery) => Event::Delivered(outcome),
                () = permit.doubted(), if state == SubscriberState::Waiting => Event::Doubted,
                () = clock::until(deadline) => Event::Timer,
            };
        }
    }

    /// Performs an action, and returns the reason where the subscriber exits.
    fn perform(&mut self, action: Action) -> Option<ExitReason> {
        match action {
            Action::Begin(operation) => self.begin(operation),
            Action::Close => (self.operation, self.connection) = (None, None),
            Action::Deliver { batch, read_at, permit } => {
                let sent = self.session.as_ref().map(|session| session.send(Deliver { batch, read_at, permit }));
                self.delivery = Some(Box::pin(async move { sent?.await.ok()? }));
            }
            // The session's actor answers neither, and is there as long as this is.
            Action::Ask { questions, read_at } => {
                if let Some(session) = &self.session {
                    session.do_send(Ask { questions, read_at });
                }
            }
            Action::StopAsking => {
                if let Some(session) = &self.session {
                    session.do_send(StopAsking);
                }
            }
            Action::Record { fate, raw } => record(&self.post, fate, raw),
            Action::Note(fact) => note(&self.post, fact),
            Action::Exit(reason) => return Some(reason),
        }
        None
    }

    fn begin(&mut self, operation: Operation) {
        let (connection, post, queues) = (self.connection.take(), Arc::clone(&self.post), Arc::clone(&self.queues));
        let (permit, limit) = (Arc::clone(self.memory.machine.permit()), Arc::clone(&self.memory.limit));
        self.operation = Some(Box::pin(async move {
            perform(operation, connection, &post, &*queues, permit, limit)
                .await
                .unwrap_or_else(|error| (None, Event::Failed(error)))
        }));
    }
}

/// Performs an operation, and returns its answer with the connection.
async fn perform(
    operation: Operation,
    connection: Option<Box<dyn Consumer>>,
    post: &Post,
    queues: &dyn Queues,
    permit: Arc<Permit>,
    limit: Arc<Mutex<LineLimit>>,
) -> Result<Answer, QueueError> {
    let Post { session_id, owner, .. } = post;
    let connected = |connection: Option<Box<dyn Consumer>>| {
        let closed = QueueErrorKind::Broken("the subscriber has no connection".into());
        connection.ok_or_else(|| QueueError::new(format!("serving the queue of {session_id:?}"), closed))
    };
    Ok(match operation {
        Operation::Open => {
            let mut consumer = queues.open(session_id, *owner, permit).await?;
            consumer.share_limit(limit);
            (Some(consumer), Event::Opened)
        }
        Operation::Claim => {
            let mut consumer = connected(connection)?;
            consumer.claim().await?;
            (Some(consumer), Event::Claimed)
        }
        Operation::Renew => {
            let mut consumer = connected(connection)?;
            let lease = consumer.renew().await?;
            (Some(consumer), Event::Renewed(lease))
        }
        Operation::Take(delivered) => {
            let mut consumer = connected(connection)?;
            let taken = consumer.take(delivered.as_ref()).await?;
            (Some(consumer), Event::Taken(taken))
        }
        Operation::Wait(block) => {
            let mut consumer = connected(connection)?;
            let taken = consumer.wait(block).await?;
            (Some(consumer), Event::Taken(taken))
        }
        Operation::Rewrite { oldest, replacement } => {
            let mut consumer = connected(connection)?;
            let replaced = consumer.replace_oldest(&oldest, replacement).await?;
            (Some(consumer), Event::Rewritten(replaced))
        }
        Operation::ReadQuestions => (connection, Event::Questions(queues.open_questions(session_id).await?)),
        Operation::ClaimIfAbsent => (None, Event::Renewed(queues.claim_if_absent(session_id, *owner).await?)),
        Operation::CancelQuestions => {
            post.cancel_open_questions().await;
            (None, Event::Cancelled)
        }
        Operation::Release => {
            post.release(queues).await;
            (None, Event::Released)
        }
        Operation::Settle => {
            post.settled().await;
            (None, Event::Settled)
        }
    })
}

/// Waits for the end of what runs, and forgets it then. Never ends where nothing runs.
async fn end_of<T>(running: &mut Option<Running<T>>) -> T {
    let done = match running {
        Some(running) => running.await,
        None => pending().await,
    };
    *running = None;
    done
}
