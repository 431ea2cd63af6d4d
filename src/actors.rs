//! Threads, mailboxes, lifecycles: the actors of a server process.
//!
//! ```text
//!                      EnsureSubscriber, StopSubscriber, Shutdown …
//!                                        │
//!                             ┌──────────▼──────────┐
//!                             │   SupervisorActor   │  session id → subscriber
//!                             └──────────┬──────────┘
//!            an arbiter (thread) each    │ starts, stops, restarts
//!        ┌───────────────────────────────▼─────────────────────────────┐
//!        │  SessionSubscriberActor ──── Deliver(batch) ──►  SessionActor │ ──► McpSession
//!        │     │    ▲             ◄──── DeliverOutcome ───               │
//!        └─────┼────┼──────────────────────────────────────────────────┘
//!         ack+take  wait
//!              ▼    │
//!             the queue
//! ```
//!
//! The subscriber sends the next [`Deliver`] only after the answer to the last: order and back-pressure come from that
//! alone. No Redis and no JSON in here.

use actix::prelude::*;

use crate::session_id::SessionId;

mod arbiters;
mod questions;
mod recent;
mod session;
mod stats;
mod subscriber;
mod supervisor;

pub use self::session::{Deliver, DeliverOutcome, DiscardReason, SessionActor, Stopped};
pub use self::stats::{SubscriberInfo, SubscriberState};
pub use self::subscriber::{SessionSubscriberActor, StopReason};
pub use self::supervisor::{
    EnsureSubscriber, Ensured, GetSubscriberCount, ListSubscribers, Shutdown, ShutdownReport, StopSubscriber,
    SupervisorActor,
};

/// A subscriber has ended, and why: from the subscriber to its supervisor.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Ended {
    pub(crate) session: SessionId,
    pub(crate) epoch: u64,
    pub(crate) reason: StopReason,
}
