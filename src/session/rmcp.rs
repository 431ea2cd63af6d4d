//! Adapter to rmcp's Streamable HTTP server: [`CourierSessionManager`] decorates rmcp's session manager.
//!
//! ```text
//!   GET ──► create_standalone_stream ──► rmcp's own stream ───┐
//!                                                             ├─ Standalone ──► HTTP body
//!   the queue ──► ClientSession::hand_over ──► Frames (bytes) ┘
//! ```
//!
//! No notification passes through rmcp's `Peer`: it answers `Ok` also where no stream is open, and keeps only 16
//! messages.
//!
//! rmcp decides several things by itself that a fleet needs otherwise. Each has its place here:
//! - *Restores* are unsafe under load in rmcp's main service, so each runs in a service of its own: `restorer`,
//!   `restore`, `sessions`.
//! - *Streams* must be served before the restore, and past rmcp's events: `handoff`, `detachable_stream`, `stream`,
//!   `frames`.
//! - *Event ids* are numbered from 0 in every process, so they are marked: `event_id`.
//! - *Broken streams* make clients give up, so each is followed by one that ends cleanly: `early_close`.
//! - *Users* are unknown to rmcp, so every step checks the acting one: `principal`.
//! - *The request* does not reach the session manager, so task-locals carry its head and its response: `head`,
//!   `handoff`.

mod answers;
mod builder;
mod client;
mod deferred_arrivals;
mod detachable_stream;
mod early_close;
mod error;
mod escape;
mod event_id;
mod frames;
mod handoff;
mod head;
mod housekeeping;
mod layer_answers;
mod manager;
mod news;
mod other_servers;
mod pending_ends;
mod principal;
mod restore;
mod restorer;
mod sessions;
mod settings;
mod shared;
mod sse;
mod store;
mod stored_state;
mod stream;
mod subscribers;

pub use self::builder::SessionManagerBuilder;
pub(crate) use self::client::FIRST_WITH_PRIMING;
pub use self::error::ManagerError;
pub(crate) use self::escape::Escaper;
pub(crate) use self::handoff::{Demand, collect};
pub(crate) use self::head::{offer, with_head};
pub(crate) use self::layer_answers::EarlyCloseDecision;
pub use self::manager::CourierSessionManager;
pub use self::principal::acting_as;
pub(crate) use self::restorer::Restorer;
pub(crate) use self::sse::push_event;
pub(crate) use self::stream::{Part, Standalone};
pub(crate) use self::subscribers::Subscribers;

#[cfg(test)]
mod tests;
