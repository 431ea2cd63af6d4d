//! Sessions without a transport, which take what they are handed at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcp_courier::{HandOverError, McpSession, Outbound, async_trait};
use tokio::sync::{Notify, mpsc};

use super::messages;

/// Counts what all sessions that share the counter are handed.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    count: AtomicUsize,
    awaited: AtomicUsize,
    reached: Notify,
}

impl Counter {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Counts one more.
    pub(crate) fn add(&self) {
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 == self.awaited.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until this many are counted. Only one at a time may wait.
    pub(crate) async fn until(&self, count: usize) {
        self.awaited.store(count, Ordering::SeqCst);
        while self.count() < count {
            let waits = self.reached.notified();
            // The count may have been reached before it was awaited.
            let _ = tokio::time::timeout(Duration::from_millis(100), waits).await;
        }
    }
}

#[async_trait]
impl McpSession for Counter {
    async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
        self.add();
        Ok(())
    }
}

/// Tells how long each notification took from its making, in microseconds.
#[derive(Debug)]
pub(crate) struct Stopwatch(pub(crate) mpsc::UnboundedSender<f64>);

#[async_trait]
impl McpSession for Stopwatch {
    async fn hand_over(&self, outbound: &Outbound) -> Result<(), HandOverError> {
        let age = messages::age(outbound.params.get().as_bytes());
        let _ = self.0.send(age.as_secs_f64() * 1e6);
        Ok(())
    }
}
