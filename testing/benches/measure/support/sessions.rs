//! Sessions without a transport, which take what they are handed at once, and ends of bare loops.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mcp_courier::{HandOverError, McpSession, Outbound, async_trait};
use tokio::sync::Notify;

use super::messages;

/// End of a message's way, for a courier and for a bare loop.
pub(crate) trait Sink: Send + Sync + 'static {
    /// Takes a message, or the params of a notification.
    fn take(&self, text: &[u8]);
}

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

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Waits until this many are counted. Only one at a time may wait.
    ///
    /// # Panics
    /// Panics where nothing more was counted for a minute.
    pub(crate) async fn until(&self, count: usize) {
        self.awaited.store(count, Ordering::SeqCst);
        while self.count() < count {
            let before = self.count();
            let waits = self.reached.notified();
            // The count may have been reached before it was awaited.
            if self.count() < count && tokio::time::timeout(Duration::from_secs(60), waits).await.is_err() {
                assert_ne!(self.count(), before, "{before} of {count} messages, and no more");
            }
        }
    }

    /// Returns the number of messages a second from the call of `push`, whose thread pushes so many, to the last delivery.
    pub(crate) async fn rate(&self, count: usize, push: impl FnOnce() -> JoinHandle<()>) -> f64 {
        let begun = Instant::now();
        let pusher = push();
        self.until(count).await;
        let rate = count as f64 / begun.elapsed().as_secs_f64();
        pusher.join().unwrap();
        rate
    }
}

impl Sink for Counter {
    fn take(&self, _: &[u8]) {
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 == self.awaited.load(Ordering::SeqCst) {
            self.reached.notify_one();
        }
    }
}

/// Notes how long each message took from its making, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Stopwatch {
    times: Mutex<Vec<f64>>,
    counter: Counter,
}

impl Stopwatch {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Waits until this many more are noted, and returns their times, sorted.
    pub(crate) async fn times(&self, count: usize) -> Vec<f64> {
        self.counter.until(count).await;
        self.counter.count.store(0, Ordering::SeqCst);
        self.times_so_far()
    }

    /// Returns the times that were noted since they were last returned, sorted.
    pub(crate) fn times_so_far(&self) -> Vec<f64> {
        let mut times = std::mem::take(&mut *self.times.lock().unwrap());
        times.sort_by(f64::total_cmp);
        times
    }
}

impl Sink for Stopwatch {
    fn take(&self, text: &[u8]) {
        self.times.lock().unwrap().push(messages::age(text).as_secs_f64() * 1e6);
        self.counter.take(text);
    }
}

#[async_trait]
impl McpSession for Counter {
    async fn hand_over(&self, outbound: &Outbound) -> Result<(), HandOverError> {
        self.take(outbound.params().as_bytes());
        Ok(())
    }
}

#[async_trait]
impl McpSession for Stopwatch {
    async fn hand_over(&self, outbound: &Outbound) -> Result<(), HandOverError> {
        self.take(outbound.params().as_bytes());
        Ok(())
    }
}
