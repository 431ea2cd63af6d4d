//! [`Registration`]: one consumer at a [`Multiplexer`](super::multiplexer::Multiplexer), with the state of its reads.

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
    pub(super) queue: Arc<str>,
    pub(super) permit: Arc<Permit>,
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
    pub(super) end: End,
    pub(super) most: usize,
    pub(super) time: Duration,
    pub(super) answer: oneshot::Sender<Reply>,
}

impl Registration {
    /// Makes the next wait read the queue at once. Needed where the queue has a message, or where Redis will not
    /// announce the next change, as after a write over this line.
    pub(super) fn set_stale(&self) {
        lock(&self.reading).is_stale = true;
    }
}
