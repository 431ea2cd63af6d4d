//! Part of the queue port that carries questions and answers between a worker and the server that asks its user.
//!
//! ```text
//!            pose                settle (the first answer to this id)
//!   nothing ──────► waiting ─────────────────────────────────────────► responded ──► nothing
//!      ▲               │ withdraw, deadline                                 the worker has it
//!      └───────────────┘
//! ```

use async_trait::async_trait;

use crate::failure::QueueError;
use crate::question::TaskKey;

#[cfg(any(feature = "elicitation", feature = "server"))]
mod answers;
#[cfg(feature = "elicitation")]
mod elicitations;

#[cfg(any(feature = "elicitation", feature = "server"))]
pub use self::answers::{Answers, GRACE, Settled};
#[cfg(feature = "elicitation")]
pub(crate) use self::elicitations::TAKEN_OVER;
#[cfg(feature = "elicitation")]
pub use self::elicitations::{Elicitations, Posed};

/// Questions of tasks, for everyone. A task has one question at a time, because FastMCP's keys have room for one.
#[async_trait]
pub trait Questions {
    /// Returns whether a worker waits for the answer to the question with this id.
    async fn is_waiting(&self, task: &TaskKey, request_id: &str) -> Result<bool, QueueError>;
}
