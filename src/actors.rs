//! Actors of a server process: threads, mailboxes and lifecycles.
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
//!        │     │    ▲             ◄──── Outcome ──────────               │
//!        └─────┼────┼──────────────────────────────────────────────────┘
//!         ack+take  wait
//!              ▼    │
//!             the queue
//! ```
//!
//! The subscriber sends the next `Deliver` only after the answer to the one before. Order and back-pressure come from
//! that rule alone. This room names neither Redis nor JSON.

mod arbiters;
mod clock;
mod isolated_session;
mod log_gate;
mod questions;
mod session;
mod stats;
mod stop;
mod subscriber;
mod subscriber_context;
mod supervisor;

pub(crate) use self::arbiters::Arbiters;
pub use self::stats::{Placement, SubscriberInfo};
pub(crate) use self::supervisor::CheckHealth;
pub use self::supervisor::{
    EnsureSubscriber, Ensured, GetSubscriberCount, ListSubscribers, Shutdown, ShutdownReport, StopSubscriber,
    SupervisorActor,
};
pub use crate::subscription::SubscriberState;
