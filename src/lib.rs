//! x
pub mod actors;
pub mod envelope;
pub mod queue;
pub mod session;

mod config;
mod courier;
mod error;
mod keys;
mod notification;
mod publisher;
mod retry;
mod session_id;

pub use self::config::{Config, ConfigBuilder, Delivery, DeliveryLevel};
pub use self::courier::Courier;
pub use self::error::{
    Cause, ConfigError, ConnectError, EnsureError, HandOverError, InvalidNotification, InvalidSessionId, PushError,
    PushRefusal, QueueError, QueueErrorKind, QueueLimit,
};
pub use self::notification::{LoggingLevel, Notification, NotificationId, ProgressToken, RequestId, Task, TaskStatus};
pub use self::publisher::{Publisher, Pushed};
pub use self::session::{McpSession, Outbound, Presence, PresenceSender, SessionState};
pub use self::session_id::SessionId;
