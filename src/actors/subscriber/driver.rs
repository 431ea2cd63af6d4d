//! Driver of a subscriber: performs the actions of one [`Subscription`](crate::subscription::Subscription) and gives
//! the machine its events.
//!
//! The driver makes no decision. At most one operation on the queue runs at a time, and at most one delivery beside the
//! operation. Each event is handled, and all actions that follow are begun, before the next event is awaited.
//!
//! *Rules*. Every operation that the machine begins is answered by exactly one event, or closed by the machine. A
//! connection is either in the driver or in the running operation, so dropping the operation drops the connection with
//! it: Redis may still perform a dropped request, and nothing else may follow on that connection.
//!
//! *Priority*. Events are taken in a fixed order: a stop, the presence of the client, then answers. The machine handles
//! any order. The fixed one keeps a busy queue from delaying a stop
//! (`g8_a_stop_waits_for_what_is_in_hand_only_though_the_lease_is_renewed_meanwhile`).

use std::collections::VecDeque;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;

use actix::{Actor, Addr};

use super::notes::{note, record};
use super::operation::{self, Answer, Running};
use crate::actors::clock;
use crate::actors::session::{Ask, Confirmation, Deliver, SessionActor, StopAsking};
use crate::actors::subscriber_context::{RetainedState, SubscriberContext};
use crate::backend::{Consumer, Queues};
use crate::metrics;
use crate::session::{HandOverError, Presence};
use crate::story;
use crate::subscription::{Action, DeliveryOutcome, Event, ExitReason, SessionState, SubscriberState};

/// Performs the actions of one subscriber's machine, and holds the futures of those that run.
pub(in crate::actors) struct Driver {
    context: Arc<SubscriberContext>,
    /// Queues from which the subscriber takes: the backend itself, or the queues that an arbiter shares.
    queues: Arc<dyn Queues>,
    retained: Box<RetainedState>,
    /// Actor that performs the deliveries. The first delivery starts the actor, because an idle session needs none.
    session: Option<Addr<SessionActor>>,
    /// Connection to the queue while no operation uses it. A running operation holds the connection in its own future.
    connection: Option<Box<dyn Consumer>>,
    /// Operation that runs now. Dropping the operation closes its connection.
    operation: Option<Running<Answer>>,
    /// Delivery that runs now: the hand-overs of one batch.
    delivery: Option<Running<DeliveryAnswer>>,
    /// Confirmations that are awaited, with the numbers of their deliveries. Only the oldest is polled, because a later
    /// confirmation counts for the earlier deliveries too and confirmations end in order.
    confirmations: VecDeque<(u64, Confirmation)>,
}

/// Answer of the session's actor to a delivery; `None` where the actor gave the delivery up. The number of the delivery
/// is present where a confirmation is still awaited.
type DeliveryAnswer = Option<(DeliveryOutcome, Option<(u64, Confirmation)>)>;

impl Driver {
    pub(in crate::actors) fn new(
        context: Arc<SubscriberContext>,
        queues: Arc<dyn Queues>,
        retained: Box<RetainedState>,
    ) -> Self {
        Self {
            context,
            queues,
            retained,
            session: None,
            connection: None,
            operation: None,
            delivery: None,
            confirmations: VecDeque::new(),
        }
    }

    /// Creates the driver of a parked subscriber. Such a driver delivers nothing, and releases its lease over the
    /// backend's own connections.
    pub(in crate::actors) fn parked(context: Arc<SubscriberContext>, retained: Box<RetainedState>) -> Self {
        let queues = Arc::clone(&context.common.queue) as Arc<dyn Queues>;
        Self::new(context, queues, retained)
    }

    /// Runs the machine until the subscriber exits. The first event is the client's present state.
    pub(in crate::actors) async fn run(mut self) -> (ExitReason, Box<RetainedState>) {
        let (context, permit) = (Arc::clone(&self.context), Arc::clone(self.retained.machine.permit()));
        let presence = self.retained.presence.clone();
        let seen = presence.now();
        let mut event = Event::Presence(seen);
        // The two futures below outlive many events. Only the future that has ended is made again.
        let mut changed = pin!(changed(seen, presence));
        let (mut asked, mut is_stopping) = (pin!(context.stop.asked()), false);
        loop {
            let before = self.retained.machine.state();
            story::event(&context.session_id, &event);
            if let Err(defect) = self.retained.machine.handle(event, clock::now(), fastrand::f64()) {
                return (ExitReason::Panicked(defect.to_string()), self.retained);
            }
            while let Some(action) = self.retained.machine.next_action() {
                if let Some(reason) = self.perform(action) {
                    return (reason, self.retained);
                }
            }
            let state = self.retained.machine.state();
            story::state(&context.session_id, before, state);
            context.stats.set_state(state, self.retained.machine.oldest_since());
            let deadline = self.retained.machine.deadline();
            event = tokio::select! {
                biased;
                () = &mut asked, if !is_stopping => {
                    is_stopping = true;
                    Event::Stop
                }
                (seen, presence) = &mut changed => {
                    changed.set(self::changed(seen, presence));
                    Event::Presence(seen)
                }
                (connection, event) = end_of(&mut self.operation) => {
                    self.connection = connection;
                    event
                }
                answer = end_of(&mut self.delivery) => self.take_outcome(answer),
                (delivery, answer) = next_of(&mut self.confirmations) => Event::Confirmed { delivery, answer },
                () = permit.until_suspended(), if state == SubscriberState::Waiting => Event::PermitSuspended,
                () = clock::until(deadline) => Event::Timer,
            };
        }
    }

    /// Performs an action, and returns the reason where the subscriber exits.
    fn perform(&mut self, action: Action) -> Option<ExitReason> {
        story::action(&self.context.session_id, &action);
        match action {
            Action::Begin(operation) => {
                let (context, queues) = (Arc::clone(&self.context), Arc::clone(&self.queues));
                self.operation =
                    Some(operation::begin(operation, self.connection.take(), context, queues, &self.retained));
            }
            Action::Close => (self.operation, self.connection) = (None, None),
            Action::Deliver { delivery, batch, read_at, permit } => {
                let sent = self.session().send(Deliver { batch, read_at, permit });
                self.delivery = Some(Box::pin(async move {
                    let (outcome, confirmation) = sent.await.ok()??;
                    Some((outcome, confirmation.map(|confirmation| (delivery, confirmation))))
                }));
            }
            // `do_send` loses nothing here: this driver holds the actor's address, so the actor's mailbox is open.
            Action::Ask { questions, read_at } => self.session().do_send(Ask { questions, read_at }),
            Action::StopAsking => {
                if let Some(session) = &self.session {
                    session.do_send(StopAsking);
                }
            }
            Action::Record { outcome, raw } => record(&self.context, outcome, raw),
            Action::Note(fact) => note(&self.context, fact),
            Action::Exit(reason) => return Some(reason),
        }
        None
    }

    /// Takes the answer to a delivery, and returns the machine's event.
    fn take_outcome(&mut self, answer: DeliveryAnswer) -> Event {
        let Some((outcome, confirmation)) = answer else { return Event::Delivered(None) };
        metrics::DELIVERED.count(outcome.accepted);
        self.confirmations.extend(confirmation);
        Event::Delivered(Some(outcome))
    }

    /// Returns the address of the session's actor, which the first call starts.
    fn session(&mut self) -> &Addr<SessionActor> {
        let (context, retained) = (&self.context, &self.retained);
        self.session
            .get_or_insert_with(|| SessionActor::new(Arc::clone(context), Arc::clone(&retained.ended_tasks)).start())
    }
}

/// Waits until the client's presence differs from `seen`, and returns the new one.
async fn changed(seen: SessionState, mut presence: Presence) -> (SessionState, Presence) {
    presence.changed_from(seen).await;
    (presence.now(), presence)
}

/// Waits for the end of a running future, and removes the future then. Never ends where nothing runs.
async fn end_of<T>(running: &mut Option<Running<T>>) -> T {
    let done = match running {
        Some(running) => running.await,
        None => pending().await,
    };
    *running = None;
    done
}

/// Waits for the oldest confirmation, and removes it then. Never ends where none is awaited.
async fn next_of(confirmations: &mut VecDeque<(u64, Confirmation)>) -> (u64, Result<(), HandOverError>) {
    let (delivery, answer) = match confirmations.front_mut() {
        Some((delivery, confirmation)) => (*delivery, confirmation.await),
        None => pending().await,
    };
    confirmations.pop_front();
    (delivery, answer)
}
