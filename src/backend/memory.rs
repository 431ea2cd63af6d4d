//! Queue in the memory of one process, for tests, examples and servers that run alone.
//!
//! `memory://name` names one such queue. All who connect to the same name in the same process share it, and it lives as
//! long as one of them does. [`Store`] decides everything. This module adds the lock, the clock, the permits of owners,
//! and the wake-ups.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::consumer::MemoryConsumer;
pub use self::store::{Change, Moment, Store};
use super::{
    Backend, Consumer, LeaseState, MessageOutcome, Outgoing, OwnerToken, Permit, PushRefusal, Queued, Queues, ServerId,
    ServerQueues, ServerRecord,
};
use crate::config::Config;
use crate::envelope::Timestamp;
use crate::examination::Check;
use crate::failure::QueueError;
use crate::lock::lock;
use crate::question::Question;
use crate::session_id::SessionId;

mod consumer;
#[cfg(feature = "rmcp")]
mod fleet;
mod inspection;
mod outcomes;
mod questions;
mod store;

/// Name of a store, and the prefix of the keys in it.
type Place = (String, String);

/// Stores by name and prefix. Weak, so that a store ends with the last backend that uses it.
static SHARED: LazyLock<Mutex<HashMap<Place, Weak<Shared>>>> = LazyLock::new(Mutex::default);

/// Store under its lock, and the listeners to its changes.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Start of the clock, which runs with tokio's, so that tests may pause it.
    origin: (Instant, Timestamp),
}

/// Parts of a shared store that one lock protects: an operation and its wake-ups are one step.
#[derive(Debug)]
struct State {
    store: Store,
    /// Permits of the owners that have opened a queue.
    permits: HashMap<(SessionId, OwnerToken), Weak<Permit>>,
    /// Number of permits after the last removal of those that are gone.
    permits_tidied: usize,
    /// Waiters by the change that they wait for. An entry without a waiter is removed.
    watches: HashMap<Change, Arc<Notify>>,
    /// Processes of the fleet that listen to news. In memory all of them are this process, under several ids.
    #[cfg(feature = "rmcp")]
    listeners: Vec<(super::ProcessId, super::fleet::NewsSender)>,
}

impl Shared {
    /// Returns the store of this name and prefix. Makes one where nobody uses it at present.
    fn named(name: &str, prefix: &str) -> Arc<Self> {
        let mut all = lock(&SHARED);
        all.retain(|_, shared| shared.strong_count() > 0);
        let key = (name.to_owned(), prefix.to_owned());
        if let Some(shared) = all.get(&key).and_then(Weak::upgrade) {
            return shared;
        }
        let state = State {
            store: Store::new(prefix),
            permits: HashMap::new(),
            permits_tidied: 0,
            watches: HashMap::new(),
            #[cfg(feature = "rmcp")]
            listeners: Vec::new(),
        };
        let shared = Arc::new(Self { state: Mutex::new(state), origin: (Instant::now(), Timestamp::of_this_host()) });
        all.insert(key, Arc::downgrade(&shared));
        shared
    }

    /// Performs one operation, and notifies those who wait for its changes.
    fn step<T>(&self, config: &Config, operation: impl FnOnce(&mut Moment<'_>) -> T) -> T {
        self.step_then(config, operation, |_| {})
    }

    /// Performs one operation as [`step`](Self::step) does, and `then` under the same lock, after all were notified.
    fn step_then<T>(&self, config: &Config, operation: impl FnOnce(&mut Moment<'_>) -> T, then: impl FnOnce(&T)) -> T {
        let mut state = lock(&self.state);
        let now = self.origin.1.plus(self.origin.0.elapsed());
        let done = operation(&mut state.store.at(config, now));
        for change in state.store.changes() {
            state.notify(change);
        }
        then(&done);
        done
    }

    /// Registers for a change. The caller reads the store only after this, so that it misses no change between the two.
    fn watch(self: &Arc<Self>, change: Change) -> Watch {
        let changed = Arc::clone(lock(&self.state).watches.entry(change.clone()).or_default());
        Watch { shared: Arc::clone(self), change, changed }
    }
}

impl State {
    /// Wakes those who wait for a change, and suspends the permit of an owner whose lease ended.
    fn notify(&self, change: Change) {
        if let Some(watch) = self.watches.get(&change) {
            watch.notify_waiters();
        }
        if let Change::LeaseEnded(session, owner) = change
            && let Some(permit) = self.permits.get(&(session, owner)).and_then(Weak::upgrade)
        {
            permit.suspend();
        }
    }

    fn open(&mut self, session: &SessionId, owner: OwnerToken, permit: &Arc<Permit>) {
        // The removal costs each permit a bounded number of checks, however many permits there are.
        if self.permits.len() > 2 * self.permits_tidied + 64 {
            self.permits.retain(|_, permit| permit.strong_count() > 0);
            self.permits_tidied = self.permits.len();
        }
        self.permits.insert((session.clone(), owner), Arc::downgrade(permit));
    }
}

/// Registration for one change, until it is dropped.
#[derive(Debug)]
struct Watch {
    shared: Arc<Shared>,
    change: Change,
    changed: Arc<Notify>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        // Two references are left: this registration, and the entry itself.
        if Arc::strong_count(&self.changed) == 2 {
            state.watches.remove(&self.change);
        }
    }
}

/// Queues of a fleet that is one process.
pub struct MemoryBackend {
    name: String,
    shared: Arc<Shared>,
    config: Arc<Config>,
}

/// Shows no content of a queue: a publisher shows its backend.
impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}

impl MemoryBackend {
    /// Opens the store of this name, under the prefix in `config`.
    pub fn new(name: &str, config: Arc<Config>) -> Self {
        Self { name: name.to_owned(), shared: Shared::named(name, config.prefix()), config }
    }

    /// Performs one operation now, and notifies those who wait for its changes.
    pub fn step<T>(&self, operation: impl FnOnce(&mut Moment<'_>) -> T) -> T {
        self.shared.step(&self.config, operation)
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn system(&self) -> &'static str {
        "memory"
    }

    async fn push(&self, batch: Vec<Outgoing>) -> Vec<Result<Queued, PushRefusal>> {
        self.step(|moment| moment.push(&batch))
    }

    async fn live_sessions(&self) -> Result<Vec<SessionId>, QueueError> {
        Ok(self.step(|moment| moment.live_sessions()))
    }

    async fn examine(&self) -> Result<Vec<Check>, QueueError> {
        Ok(vec![Check::good("memory", "a queue in this process, which ends with the process")])
    }

    async fn check(&self) -> Result<(), QueueError> {
        Ok(())
    }

    async fn probe(&self) -> Result<(), QueueError> {
        Ok(())
    }
}

#[async_trait]
impl Queues for MemoryBackend {
    async fn open(
        &self,
        session: &SessionId,
        owner: OwnerToken,
        permit: Arc<Permit>,
    ) -> Result<Box<dyn Consumer>, QueueError> {
        lock(&self.shared.state).open(session, owner, &permit);
        let (shared, config) = (Arc::clone(&self.shared), Arc::clone(&self.config));
        let consumer = MemoryConsumer { shared, config, session: session.clone(), owner, permit };
        Ok(Box::new(consumer) as Box<dyn Consumer>)
    }

    async fn claim_if_absent(&self, session: &SessionId, owner: OwnerToken) -> Result<LeaseState, QueueError> {
        Ok(self.step(|moment| moment.renew(session, owner)))
    }

    async fn release(&self, session: &SessionId, owner: OwnerToken) -> Result<bool, QueueError> {
        Ok(self.step(|moment| moment.release(session, owner)))
    }

    async fn open_questions(&self, session: &SessionId) -> Result<Vec<Question>, QueueError> {
        Ok(self.step(|moment| moment.open_questions(session)))
    }
}

#[async_trait]
impl ServerQueues for MemoryBackend {
    async fn record(&self, session: &SessionId, outcome: &MessageOutcome, raw: &[u8]) -> Result<(), QueueError> {
        self.step(|moment| moment.record(session, outcome, raw));
        Ok(())
    }

    async fn announce_server(&self, record: &ServerRecord) -> Result<(), QueueError> {
        self.step(|moment| moment.announce_server(record));
        Ok(())
    }

    async fn withdraw_server(&self, server: ServerId) -> Result<(), QueueError> {
        self.step(|moment| moment.withdraw_server(server));
        Ok(())
    }

    #[cfg(feature = "metrics")]
    async fn lengths(&self, sessions: &[SessionId]) -> Result<Vec<usize>, QueueError> {
        Ok(self.step(|moment| sessions.iter().map(|session| moment.length(session)).collect()))
    }

    fn share(self: Arc<Self>) -> Arc<dyn Queues> {
        self
    }
}
