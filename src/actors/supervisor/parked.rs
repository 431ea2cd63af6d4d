//! Parked subscribers: their clients are away. Each has no thread, no connection and no place, only one future on the
//! supervisor's arbiter.
//!
//! ```text
//!                Ended { Parked, memory }                     client there, place free
//!   on an arbiter ────────────────────────► parked ───────────────────────────────────► on an arbiter
//!                                            │  ▲ │                                          (the next epoch)
//!              session ended, or a stop asked│  │ │client there, no place free
//!                                            ▼  │ ▼
//!                                      Ended    waits for a place
//! ```
//!
//! *Why it costs so little*. Clients of a large fleet come and go, and most sessions have no stream. The machine alone
//! remembers the delivered ids and the newest claim. Without that memory a returning client would get repeats, and an
//! older stream could claim the session back (`g3_what_was_delivered_before_is_known_after_the_client_was_away`,
//! `g4_an_older_stream_that_receives_again_after_the_client_was_away_claims_nothing`).
//!
//! *The memory has one owner*. The watch and the supervisor share it, and either takes it once: for the end, or for the
//! next start. So a client that returns at the moment of a stop is either served or stopped, and never both
//! (`g1_a_subscriber_that_is_replaced_or_stopped_while_it_parks_loses_and_reorders_nothing`).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use actix::prelude::*;
use actix_rt::task::JoinHandle;

use crate::actors::clock;
use crate::actors::subscriber::driver::Driver;
use crate::actors::subscriber::notes::{note, record};
use crate::actors::subscriber_context::{EndNotice, RetainedState, SubscriberContext};
use crate::session::{Presence, SessionState};
use crate::session_id::SessionId;
use crate::subscription::{Action, Event, Subscription};

/// Parked subscriber. Dropping the value aborts the watch of the client.
pub(super) struct Parked {
    /// Presence of the client, which the supervisor checks before it starts the subscriber again.
    pub(super) presence: Presence,
    /// Retained state of the subscriber, shared with the watch. The state is taken once: by the watch when the
    /// subscriber ends, or by the supervisor when it starts the subscriber again.
    pub(super) retained: Rc<RefCell<Option<Box<RetainedState>>>>,
    /// Task that waits for the client, for the end of the session, and for a stop.
    watch: JoinHandle<()>,
}

impl Parked {
    pub(super) fn new(
        context: Arc<SubscriberContext>,
        retained: Box<RetainedState>,
        supervisor: Recipient<ClientReturned>,
    ) -> Self {
        let presence = retained.presence.clone();
        let retained = Rc::new(RefCell::new(Some(retained)));
        let watch = actix_rt::spawn(watch(context, presence.clone(), Rc::clone(&retained), supervisor));
        Self { presence, retained, watch }
    }

    pub(super) fn abort(&self) {
        self.watch.abort();
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Message from the watch to the supervisor: the client of a parked subscriber is back.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct ClientReturned {
    pub(super) session: SessionId,
    pub(super) epoch: u64,
}

/// Waits for the client, for the end of its session, and for a stop. The end of the session and a stop end the
/// subscriber.
async fn watch(
    context: Arc<SubscriberContext>,
    mut presence: Presence,
    retained: Rc<RefCell<Option<Box<RetainedState>>>>,
    supervisor: Recipient<ClientReturned>,
) {
    let mut notice = EndNotice::new(Arc::clone(&context));
    let mut seen = SessionState::Disconnected;
    loop {
        let deadline = retained.borrow().as_ref().and_then(|retained| retained.machine.deadline());
        tokio::select! {
            () = presence.changed_from(seen) => seen = presence.now(),
            () = context.stop.asked() => break,
            () = clock::until(deadline) => {
                if let Some(retained) = retained.borrow_mut().as_mut() {
                    pass_time(&context, &mut retained.machine);
                }
                continue;
            }
        }
        match seen {
            SessionState::Ended | SessionState::Detached => break,
            SessionState::Disconnected => {}
            SessionState::Connected { .. } => {
                supervisor.do_send(ClientReturned { session: context.session_id.clone(), epoch: context.epoch });
            }
        }
    }
    let ended = retained.borrow_mut().take();
    if let Some(retained) = ended {
        (notice.reason, _) = Driver::parked(Arc::clone(&context), retained).run().await;
        context.settled_soon().await;
    }
}

/// Lets a parked machine act on the time. The machine discards a notification whose time to live is over.
fn pass_time(context: &Arc<SubscriberContext>, machine: &mut Subscription) {
    if let Err(defect) = machine.handle(Event::Timer, clock::now(), 0.0) {
        tracing::error!(session = ?context.session_id, %defect,
            "a parked subscriber refused to act on the time; it stays parked");
    }
    while let Some(action) = machine.next_action() {
        match action {
            Action::Note(fact) => note(context, fact),
            Action::Record { outcome, raw } => record(context, outcome, raw),
            _ => {}
        }
    }
}
