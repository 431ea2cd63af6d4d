//! [`Registration`]: one consumer at a [`Multiplexer`](super::multiplexer::Multiplexer), with the state of its reads.
//!
//! A registration outlives each operation of its consumer and ends with the consumer. Two consumers of one queue may be
//! registered for a moment, while one subscriber replaces another; each has its own permit, reads and wait.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::round::Reply;
use crate::backend::Permit;
use crate::lock::lock;

/// End of a wait, and the number of the wait, which makes the end unique.
pub(super) type End = (Instant, u64);

/// Registration of one consumer on the line.
pub(super) struct Registration {
    /// Key of the queue, by which invalidations find the registration.
    pub(super) queue: Arc<str>,
    /// Permit of the owner, suspended where its lease may have changed.
    pub(super) permit: Arc<Permit>,
    /// State of the reads. A lock of its own, because an invalidation sets it while a round is composed.
    pub(super) reading: Mutex<Reading>,
}

/// State of the reads of one registration's queue.
pub(super) struct Reading {
    /// Cleared while the queue was empty at its last read and Redis will announce its next change.
    pub(super) is_stale: bool,
    /// Open wait of the consumer, if it waits.
    pub(super) wait: Option<Wait>,
}

/// Open wait: a read of the queue that is sent when the queue changes, or at the end of the wait.
pub(super) struct Wait {
    /// Moment at which the queue is read although Redis has announced no change.
    pub(super) end: End,
    /// Number of messages that the read asks for.
    pub(super) most: usize,
    /// Time that the answer to the read may take.
    pub(super) time: Duration,
    /// Sender of the answer to the waiting consumer.
    pub(super) answer: oneshot::Sender<Reply>,
}

impl Registration {
    /// Makes the next wait read the queue at once. Needed where the queue has a message, or where Redis will not
    /// announce the next change, as after a write over this line.
    pub(super) fn set_stale(&self) {
        lock(&self.reading).is_stale = true;
    }
}
