//! `mcp-courier` delivers notifications of background workers to the clients of MCP servers.
//!
//! An MCP server runs as several processes. A worker in another process has a notification for one client: "task 7
//! needs your input". The worker holds no session. The client's session is in one server process, which may die at any
//! moment. So the worker pushes the notification into Redis under the session's id. The server process with the
//! client's newest stream takes the notification from there and delivers it. Order holds, and nothing is lost.
//!
//! ```text
//!  worker                     Redis                      server process on actix
//! ┌───────────┐  push   ┌───────────────┐  take, ack  ┌────────────────────────────────────┐
//! │ Publisher ├────────►│ a queue and a ├────────────►│ SupervisorActor                    │
//! └───────────┘         │ lease for     │◄────────────┤  └ SessionSubscriberActor          │
//!                       │ each session  │    wait     │      └ SessionActor ► McpSession ──┼──► client
//!                       └───────────────┘             └────────────────────────────────────┘
//! ```
//!
//! # A first look
//! This program runs in one process without Redis. With `redis://…` the publisher can be in any process.
//!
//! ```
//! use std::sync::Arc;
//!
//! use mcp_courier::{Config, Courier, HandOverError, McpSession, Notification, Outbound, SessionId, async_trait};
//! use tokio::sync::mpsc;
//!
//! struct Client(mpsc::Sender<Outbound>);
//!
//! #[async_trait]
//! impl McpSession for Client {
//!     async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
//!         self.0.send(notification.clone()).await.map_err(|_| HandOverError::Closed)
//!     }
//! }
//!
//! #[actix::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let courier = Courier::start("memory://first-look", Config::default()).await?;
//!     let session = SessionId::new("some-session")?;
//!     let (sender, mut client) = mpsc::channel(1);
//!     courier.ensure_subscriber(&session, Arc::new(Client(sender))).await?;
//!
//!     courier.publisher().push(&session, Notification::tools_list_changed()).await?;
//!     assert_eq!(client.recv().await.unwrap().method(), "notifications/tools/list_changed");
//!     Ok(())
//! }
//! ```
//!
//! # Where to look
//! - A worker needs [`Publisher`] and [`Notification`]. [`Inbox`] tests a worker without a server.
#![cfg_attr(feature = "rmcp", doc = "- A server on rmcp is made by [`Courier::mcp_server`]: see [`McpServer`].")]
#![cfg_attr(not(feature = "rmcp"), doc = "- A server on rmcp needs the feature `rmcp`.")]
//! - A server on anything else writes an [`McpSession`] and calls [`Courier::ensure_subscriber`].
//! - [`Config`] has every setting. [`SupervisorActor`] takes messages about what runs in a server: [`ListSubscribers`]
//!   and others.
//! - [`guarantees`] lists what is guaranteed, what is not, and the test of each. [`redis_trouble`] describes what
//!   happens when Redis is down, silent, full, or forgets.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)
)]

// Plain data types and pure decisions: no I/O, no clock, no async.
mod config;
mod failure;
mod hex;
mod json;
mod keys;
mod lock;
mod notification;
mod outcome;
mod principal;
mod question;
mod recent_set;
mod retry;
mod session_id;
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "the feature `testing` exports it"))]
mod timestamp;

#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "the feature `testing` exports it"))]
mod envelope;

// The ports and their backends.
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "the feature `testing` exports it"))]
#[cfg_attr(
    not(any(feature = "rmcp", feature = "testing")),
    expect(dead_code, reason = "only the adapter to rmcp asks what the fleet remembers")
)]
mod backend;
mod session;

mod connect;
mod subscription;

// Worker's side, server's side, entry point.
mod courier;
mod elicitation;
mod inbox;
mod publisher;

mod actors;

#[cfg(feature = "rmcp")]
mod http;

/// Inner rooms of the crate, for its own tests.
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing {
    /// Returns the notification id of this number, so that a schedule with it can be replayed.
    pub fn notification_id(number: u128) -> crate::NotificationId {
        crate::notification::NotificationId(uuid::Uuid::from_u128(number))
    }

    /// Backend port, its two backends, and their answers.
    pub mod backend {
        use std::sync::Arc;

        pub use crate::backend::memory::{Change, MemoryBackend, Moment, Store};
        pub use crate::backend::*;
        use crate::{Config, ConnectError};

        /// Opens the queue that a URL names.
        ///
        /// # Errors
        /// [`ConnectError`] where the URL cannot be used or the queue cannot be reached.
        pub async fn connect(url: &str, config: Arc<Config>) -> Result<Arc<dyn Backend>, ConnectError> {
            crate::connect::connect(url, config).await
        }

        /// Returns the name and the text of every Lua script.
        pub fn lua_scripts() -> Vec<(&'static str, &'static str)> {
            crate::backend::redis::lua::ALL.iter().map(|script| (script.name(), script.text())).collect()
        }

        /// Returns the failure of an operation for a reason.
        pub fn broken(operation: &str, why: &'static str) -> crate::QueueError {
            crate::QueueError::new(operation, crate::QueueErrorKind::Broken(why.into()))
        }
    }

    /// Messages of a queue, and their times.
    pub mod envelope {
        pub use crate::envelope::*;

        /// Returns a notification in the form for the client.
        pub fn outbound(envelope: &Envelope) -> crate::Outbound {
            envelope.outbound().clone()
        }

        /// Returns a notification as a new draft, as when its dead letter is redriven.
        pub fn again(envelope: &Envelope, default_time_to_live: std::time::Duration) -> Option<Draft> {
            envelope.again(default_time_to_live)
        }

        /// Gives a notification another id, also in its params.
        pub fn set_id(envelope: &mut Envelope, id: crate::NotificationId) {
            envelope.set_id(id);
        }
    }

    /// Starts a courier whose subscribers all run on this thread, so that a test can pause their time.
    ///
    /// # Errors
    /// [`ConnectError`](crate::ConnectError), as from [`Courier::start`](crate::Courier::start).
    pub async fn start_here(url: &str, config: crate::Config) -> Result<crate::Courier, crate::ConnectError> {
        crate::Courier::start_with(url, config, crate::actors::Arbiters::Here).await
    }

    /// Pure parts of a subscriber.
    pub mod subscription {
        pub use crate::subscription::*;
    }
}

#[doc = include_str!("../docs/guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("../docs/redis-trouble.md")]
pub mod redis_trouble {}

#[cfg(all(doctest, feature = "rmcp"))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(all(doctest, feature = "rmcp"))]
#[doc = include_str!("../docs/guide.md")]
mod guide {}

#[cfg(doctest)]
#[doc = include_str!("../docs/fastmcp.md")]
mod fastmcp {}

/// Attribute that an implementation of [`McpSession`] carries, so that its methods are written as `async fn`.
pub use async_trait::async_trait;

pub use self::actors::{
    EnsureSubscriber, Ensured, GetSubscriberCount, ListSubscribers, Placement, Shutdown, ShutdownReport,
    StopSubscriber, SubscriberInfo, SubscriberState, SupervisorActor,
};
pub use self::backend::{PushRefusal, QueueLimit, Settled};
pub use self::config::{Config, ConfigBuilder, ConfigError, Delivery, DeliveryLevel};
pub use self::connect::ConnectError;
pub use self::courier::Courier;
pub use self::elicitation::{ElicitError, Elicited, Elicitor};
pub use self::failure::{Cause, QueueError, QueueErrorKind, SharedCause};
#[cfg(feature = "rmcp")]
pub use self::http::{BoundServer, McpServer, McpService, ServeError};
pub use self::inbox::{Inbox, InboxError};
pub use self::notification::{
    InvalidNotification, LoggingLevel, Notification, NotificationId, ProgressToken, RequestId, Task, TaskStatus,
};
pub use self::outcome::{DiscardReason, Receipt};
pub use self::principal::{InvalidPrincipal, Principal};
pub use self::publisher::{DeadLetter, DeadLetters, Publisher, PushError, Pushed, Redriven, TaskReporter};
pub use self::question::{Answer, Elicitation, InvalidQuestion, Question, TaskKey};
#[cfg(feature = "rmcp")]
pub use self::session::rmcp::{CourierSessionManager, ManagerError, SessionManagerBuilder, acting_as};
pub use self::session::{
    AskError, EnsureError, HandOverError, InvalidMessageId, McpSession, MessageId, Outbound, Presence, PresenceSender,
    SessionState,
};
pub use self::session_id::{InvalidSessionId, SessionId, SessionStatus};
