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

mod arbiters;
mod guarded;
mod post;
mod questions;
mod session;
mod stats;
mod subscriber;
mod supervisor;

pub use self::post::StopReason;
pub use self::session::{Deliver, DeliverOutcome, SessionActor, Stopped};
pub use self::stats::{SubscriberInfo, SubscriberState};
pub use self::subscriber::SessionSubscriberActor;
pub use self::supervisor::{
    EnsureSubscriber, Ensured, GetSubscriberCount, ListSubscribers, Shutdown, ShutdownReport, StopSubscriber,
    SupervisorActor,
};
