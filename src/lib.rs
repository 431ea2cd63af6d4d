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
#![cfg_attr(feature = "server", doc = "```")]
#![cfg_attr(not(feature = "server"), doc = "```ignore")]
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
//! - A worker needs [`Publisher`] and [`Notification`]. [`Elicitor`] asks users, and [`Inbox`] tests a worker without
//!   Redis.
//! - A server on rmcp is made by [`Courier::mcp_server`]: see [`McpServer`].
//! - A server on anything else writes an [`McpSession`] and calls [`Courier::ensure_subscriber`].
//! - An operator's tool needs an [`Inspector`]: sessions, owners, queued messages, and why a session gets nothing.
//! - [`Config`] has every setting. [`SupervisorActor`] takes messages about what runs in a server: [`ListSubscribers`]
//!   and others.
//! - [`guarantees`] lists what is guaranteed, what is not, and the test of each. [`redis_trouble`] describes what
//!   happens when Redis is down, silent, full, or forgets. [`ways_to_redis`] has the URLs, with TLS and Sentinel.
//!
//! # Features
//! `elicitation`, `server` and `rmcp` are on by default. A worker that only pushes needs none: with
//! `default-features = false` the crate has no actix.
//!
//! | feature | adds |
//! | --- | --- |
//! | none | [`Publisher`], [`Notification`], [`TaskReporter`], receipts and [`DeadLetters`], over Redis |
//! | `elicitation` | [`Elicitor`], which checks answers by jsonschema |
//! | `metrics` | [metrics](https://docs.rs/metrics) of workers and servers, for any recorder: see `docs/metrics.md` |
//! | `server` | [`Courier`], [`McpSession`] and the actors, on actix; queues in memory, and [`Inbox`] |
//! | `rmcp` | [`McpServer`] and [`CourierSessionManager`], on rmcp and actix-web; implies `server` |
//! | `cluster` | Redis Cluster, by `redis+cluster://` |
//! | `sentinel` | the primary that Sentinels name, by `redis+sentinel://`: see [`ways_to_redis`] |
//! | `tls` | TLS to Redis, by `rediss://`: see [`ways_to_redis`] |
//! | `opentelemetry` | spans of worker and server in one trace, linked by W3C trace context |
//! | `seal` | [`SealingKeys`]: payloads sealed at rest, by XChaCha20-Poly1305 |
//!
//! A server relays questions and answers without `elicitation` too: the worker that asked checks the answer.
#![cfg_attr(docsrs, feature(doc_cfg))]
// The documentation of a part of the features names items of the others. That of all features has every link checked.
#![cfg_attr(
    not(all(feature = "elicitation", feature = "rmcp", feature = "seal")),
    allow(rustdoc::broken_intra_doc_links)
)]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(clippy::expect_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)
)]

// Plain data types and pure decisions: no I/O, no clock, no async.
mod config;
mod examination;
mod failure;
#[cfg(feature = "server")]
mod health;
mod hex;
mod json;
mod keys;
mod lock;
mod metrics;
mod notification;
mod outcome;
mod principal;
mod question;
#[cfg(feature = "server")]
mod recent_set;
mod retry;
mod seal;
mod session_id;
#[cfg_attr(
    not(all(feature = "server", feature = "testing")),
    expect(unreachable_pub, reason = "the feature `testing` exports it")
)]
mod timestamp;
mod trace_context;

#[cfg_attr(
    not(all(feature = "server", feature = "testing")),
    expect(unreachable_pub, reason = "the feature `testing` exports it")
)]
mod envelope;

// The ports and their backends.
#[cfg_attr(
    not(all(feature = "server", feature = "testing")),
    expect(unreachable_pub, reason = "the feature `testing` exports it")
)]
mod backend;
#[cfg(feature = "server")]
mod session;

mod connect;
mod spans;
#[cfg(feature = "server")]
mod story;
#[cfg(feature = "server")]
mod subscription;

// Worker's side, server's side, entry point.
#[cfg(feature = "server")]
mod courier;
#[cfg(feature = "elicitation")]
mod elicitation;
#[cfg(feature = "server")]
mod inbox;
mod inspector;
mod publisher;

#[cfg(feature = "server")]
mod actors;

#[cfg(feature = "rmcp")]
mod http;

/// Inner rooms of the crate, for its own tests.
#[cfg(all(feature = "server", feature = "testing"))]
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

        /// Returns the record of a server process without subscribers, under a number of its own.
        pub fn server_record(heartbeat: std::time::Duration) -> ServerRecord {
            let started = std::time::SystemTime::UNIX_EPOCH;
            ServerRecord::new(ServerId::new(), started, heartbeat, SubscriberCounts::default(), Vec::new())
        }

        /// Returns the failure of an operation for a reason.
        pub fn broken(operation: &str, why: &'static str) -> crate::QueueError {
            crate::QueueError::new(operation, crate::QueueErrorKind::Broken(why.into()))
        }
    }

    /// Messages of a queue, and their times.
    pub mod envelope {
        pub use crate::envelope::*;

        /// Renders a notification for a queue as a process with these settings does, sealed where it seals.
        ///
        /// # Errors
        /// The reason why the notification cannot be sealed.
        pub fn draft_with(
            notification: &crate::Notification,
            id: crate::NotificationId,
            queue: &str,
            config: &crate::Config,
        ) -> Result<Draft, crate::Cause> {
            match crate::seal::sealer(config.sealing_keys()) {
                None => Ok(Draft::new(notification, id, config.time_to_live())),
                Some((keys, primary)) => {
                    Ok(Draft::sealed(notification, id, config.time_to_live(), None, (keys, primary, queue))?)
                }
            }
        }

        /// Reads a message of a queue as a process with these settings does, and opens a sealed one.
        ///
        /// # Errors
        /// [`Undecodable`] names the fault of the message.
        pub fn decode_with(queue: &str, raw: Vec<u8>, config: &crate::Config) -> Result<Envelope, Undecodable> {
            let read = Envelope::decode_or_give_back(queue, raw, config.time_to_live(), config.sealing_keys());
            read.map_err(|(why, _)| why)
        }

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

    /// Metrics of the crate, for the tests of their documents.
    #[cfg(feature = "metrics")]
    pub mod metrics {
        pub use crate::metrics::{Description, all};
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
#[doc = include_str!("../docs/metrics.md")]
mod metrics_page {}

#[doc = include_str!("../docs/redis.md")]
pub mod ways_to_redis {}

#[cfg(all(doctest, feature = "elicitation", feature = "rmcp"))]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(all(doctest, feature = "elicitation", feature = "rmcp"))]
#[doc = include_str!("../docs/guide.md")]
mod guide {}

#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../docs/inspecting.md")]
mod inspecting {}

#[cfg(doctest)]
#[doc = include_str!("../docs/fastmcp.md")]
mod fastmcp {}

#[cfg(all(doctest, feature = "seal"))]
#[doc = include_str!("../docs/sealing.md")]
mod sealing {}

/// Version of actix that this crate's API uses: [`Courier::supervisor`] returns an `actix::Addr`.
#[cfg(feature = "server")]
pub use actix;
/// Version of actix-web that this crate's API uses: [`McpService`] serves with an `actix_web::HttpServer`.
#[cfg(feature = "rmcp")]
pub use actix_web;
/// Version of rmcp that this crate's API uses: [`McpServer`] serves an `rmcp::ServerHandler`.
#[cfg(feature = "rmcp")]
pub use rmcp;
/// Version of schemars that this crate's API uses: [`Elicitor::elicit_as`] asks for a `schemars::JsonSchema`.
#[cfg(feature = "elicitation")]
pub use schemars;
/// Version of serde_json that this crate's API uses: params, forms and answers are of `serde_json::Value`.
pub use serde_json;

/// Attribute that an implementation of [`McpSession`] carries, so that its methods are written as `async fn`.
#[cfg(feature = "server")]
pub use async_trait::async_trait;

#[cfg(feature = "server")]
pub use self::actors::{
    EnsureSubscriber, Ensured, GetSubscriberCount, ListSubscribers, Placement, Shutdown, ShutdownReport,
    StopSubscriber, SubscriberInfo, SubscriberState, SupervisorActor,
};
#[cfg(any(feature = "elicitation", feature = "server"))]
pub use self::backend::Settled;
pub use self::backend::{
    PushRefusal, QueueLimit, ServerId, ServerRecord, SessionTrouble, SubscriberCounts, TroubleState,
};
pub use self::config::{Config, ConfigBuilder, ConfigError, Delivery, DeliveryLevel};
pub use self::connect::ConnectError;
#[cfg(feature = "server")]
pub use self::courier::Courier;
#[cfg(feature = "elicitation")]
pub use self::elicitation::{ElicitError, Elicited, Elicitor};
pub use self::envelope::{InvalidMessageId, MessageId, Outbound};
pub use self::examination::{Check, Verdict};
pub use self::failure::{Cause, QueueError, QueueErrorKind, SharedCause};
#[cfg(feature = "server")]
pub use self::health::{HealthCheck, HealthPart, HealthReport};
#[cfg(feature = "rmcp")]
pub use self::http::{BoundServer, McpServer, McpService, ServeError};
#[cfg(feature = "server")]
pub use self::inbox::{Inbox, InboxError};
pub use self::inspector::{
    ClientStream, Finding, FindingCode, Inspector, Owner, PeekedMessage, PeekedMessages, QueuedMessage, SessionCursor,
    SessionPage, SessionReport, SessionSummary, Severity,
};
pub use self::notification::{
    InvalidNotification, InvalidNotificationId, LoggingLevel, Notification, NotificationId, ProgressToken, RequestId,
    Task, TaskStatus,
};
pub use self::outcome::{DiscardReason, Receipt};
pub use self::principal::{InvalidPrincipal, Principal};
pub use self::publisher::{DeadLetter, DeadLetters, Publisher, PushError, Pushed, Redriven, TaskReporter};
#[cfg(any(feature = "elicitation", feature = "server"))]
pub use self::question::Answer;
pub use self::question::{Elicitation, InvalidQuestion, Question, TaskKey};
#[cfg(feature = "seal")]
pub use self::seal::{InvalidSealingKey, SealingKey, SealingKeys};
#[cfg(feature = "rmcp")]
pub use self::session::rmcp::{CourierSessionManager, ManagerError, SessionManagerBuilder, acting_as};
#[cfg(feature = "server")]
pub use self::session::{AskError, EnsureError, HandOverError, McpSession, Presence, PresenceSender, SessionState};
pub use self::session_id::{InvalidSessionId, SessionId, SessionStatus};
pub use self::trace_context::{InvalidTraceContext, TraceContext};
