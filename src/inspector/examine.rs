//! Examination of the server behind a queue, for operators.

use super::Inspector;
use crate::examination::Check;
use crate::failure::QueueError;

impl Inspector {
    /// Examines the Redis server behind the queue: version, role, rights, eviction, memory, persistence, tracking, clock
    /// and more, each with a verdict and an advice. `INFO`, `CONFIG GET`, `TIME` and `ACL WHOAMI` are asked.
    ///
    /// Nothing is changed, and no session's keys are read. The rights concern the user of the queue's URL. A property
    /// that the server does not tell is [`Verdict::Unknown`](crate::Verdict::Unknown).
    ///
    /// ```no_run
    /// use mcp_courier::{Inspector, Verdict};
    ///
    /// # async fn operator(inspector: Inspector) -> Result<(), Box<dyn std::error::Error>> {
    /// for check in inspector.examine().await?.iter().filter(|check| check.verdict > Verdict::Unknown) {
    ///     println!("{}: {}", check.name, check.found);
    ///     println!("  {}", check.advice.as_deref().unwrap_or_default());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`QueueError`] where the connection broke.
    ///
    /// # Cancellation
    /// Dropping the future has no effect on the server.
    pub async fn examine(&self) -> Result<Vec<Check>, QueueError> {
        self.queue.examine().await
    }
}
