//! The adapter to rmcp's Streamable HTTP server: a decorated
//! [`SessionManager`](::rmcp::transport::streamable_http_server::session::SessionManager).
//!
//! Mount it and be done: opening a stream (GET) claims the session and starts its subscriber; the end of the last stream
//! parks it; the end of the session stops it. Initialising claims nothing, and neither does a request: a POST that was
//! balanced to another server does not steal the session.
//!
//! ```text
//!   GET ──► create_standalone_stream ──► rmcp's own stream ──┐
//!                                                            ├─ merged ──► HTTP body
//!   the queue ──► ClientSession::hand_over ──► channel of 1 ─┘
//! ```
//!
//! Nothing of ours passes through rmcp's `Peer`: that answers `Ok` although no stream is open, and keeps 16 messages.
//! The newest stream receives; older ones stay open and idle, and the newest of them goes on when it ends.
//!
//! With [`DeliveryLevel::Confirmed`](crate::DeliveryLevel::Confirmed) an MCP `ping` follows each batch down the same
//! stream. Any client answers it by itself, and the answer proves that all before it has arrived. One that does not
//! answer, or does not read, within [`Config::hand_over_timeout`](crate::Config::hand_over_timeout) has its stream cut;
//! what it did not confirm comes again on its next one.
//!
//! Mount [`CourierSessionManager::session_store`] besides, and a client may go on at any server of the fleet, whenever it
//! likes: with its session id, without initialising again. rmcp restores the session there; the decorated manager sees to
//! it that concurrent requests, and clients that hang up half-way, do not break that. Requests and answers may go to any
//! server, the newest stream receives, and what was not confirmed comes again down it. Put [`acting_as`] around requests
//! where sessions are to be their users'.
//!
//! A client that comes back with a `Last-Event-ID` first gets an early close: a stream that ends cleanly, with `retry: 10`.
//! Then the real stream follows, at whatever server. Python's SDK gives up after two broken streams in a row, unless one
//! has ended cleanly in between.
//!
//! [`Courier::mcp_server`](crate::Courier::mcp_server) mounts all of this in an HTTP server with the right settings. A
//! manager that is mounted in rmcp's own service by hand lacks the layer of [`http`](crate::http): its events are written as
//! rmcp writes them, and a number that neither 64 bits nor an `f64` hold becomes the nearest `f64`.

mod answers;
mod client;
mod early_close;
mod event_id;
mod gates;
mod handoff;
mod housekeeping;
mod manager;
mod news;
mod pending_ends;
mod principal;
mod restoring;
mod shared;
mod slot;
mod store;
mod stream;
mod subscribers;

pub(crate) use self::handoff::{Handoff, PrimingEvent, collect};
pub use self::manager::{CourierSessionManager, ManagerError};
pub use self::principal::acting_as;
pub use self::store::CourierSessionStore;
pub(crate) use self::stream::Messages;
pub(crate) use self::subscribers::Subscribers;
