//! [`Subscribers`]: operations of the process's subscribers that the adapter needs. Their room lies below this one.

use std::sync::{Arc, Weak};

use async_trait::async_trait;

use crate::backend::Settled;
use crate::failure::QueueError;
use crate::health::Room;
use crate::question::Answer;
use crate::session::{EnsureError, McpSession};
use crate::session_id::SessionId;

/// Subscribers of this process. [`Courier`](crate::Courier) implements the trait.
#[async_trait]
pub(crate) trait Subscribers: Send + Sync + 'static {
    /// Runs one subscriber for a session: [`Courier::ensure_subscriber`](crate::Courier::ensure_subscriber).
    async fn ensure(&self, session_id: &SessionId, session: Arc<dyn McpSession>) -> Result<(), EnsureError>;

    /// Adds the sessions of a manager to what decides whether this process has room for more:
    /// [`Courier::check`](crate::Courier::check).
    fn add_room(&self, room: Weak<dyn Room>);

    /// Gives an answer to an open question of a session: [`Courier::answer`](crate::Courier::answer).
    async fn answer(&self, session_id: &SessionId, request_id: &str, answer: Answer) -> Result<Settled, QueueError>;
}
