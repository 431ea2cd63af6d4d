//! The queue in the memory of one process, for tests, examples and servers that are alone.
//!
//! `memory://name` names one: whoever connects to the same name in the same process shares it, while anyone does.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, Weak};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::consumer::MemoryConsumer;
use self::fates::{Dead, Receipts};
use self::fleet::Sessions;
use self::questions::Tasks;
use super::{Backend, Consumer, LeaseState, Outgoing, OwnerToken, Permit, Queued, Refusal};
use crate::backend::QueueLimit;
use crate::config::Config;
use crate::envelope::{Draft, Timestamp};
use crate::failure::QueueError;
use crate::fate::Receipt;
use crate::keys::Keys;
use crate::lock::lock;
use crate::question::Question;
use crate::session_id::{SessionId, SessionStatus};

mod consumer;
mod fates;
mod fleet;
mod questions;

static STORES: LazyLock<Mutex<HashMap<String, Weak<Store>>>> = LazyLock::new(Mutex::default);

/// The queues of one name.
#[derive(Debug)]
struct Store {
    lists: Mutex<HashMap<String, List>>,
    tasks: Mutex<Tasks>,
    sessions: Mutex<Sessions>,
    /// Locked after the lists, where both are.
    receipts: Mutex<Receipts>,
    /// The clock runs with tokio's, so that tests may pause it.
    origin: (Instant, Timestamp),
}

#[derive(Debug, Default)]
struct List {
    /// The oldest first.
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    /// When the whole list goes, like the expiry of a key in Redis.
    expires: Option<Timestamp>,
    lease: Option<Lease>,
    session: Option<SessionId>,
    /// Delivered and not answered.
    questions: Vec<Question>,
    /// Discarded; the oldest first.
    dead: Dead,
    pushed: Arc<Notify>,
}

#[derive(Debug)]
struct Lease {
    owner: OwnerToken,
    until: Timestamp,
    permit: Weak<Permit>,
}

impl Store {
    fn named(name: &str) -> Arc<Self> {
        let mut stores = lock(&STORES);
        stores.retain(|_, store| store.strong_count() > 0);
        if let Some(store) = stores.get(name).and_then(Weak::upgrade) {
            return store;
        }
        let store = Arc::new(Self {
            lists: Mutex::default(),
            tasks: Mutex::default(),
            receipts: Mutex::default(),
            sessions: Mutex::default(),
            origin: (Instant::now(), Timestamp::of_this_host()),
        });
        stores.insert(name.to_owned(), Arc::downgrade(&store));
        store
    }

    fn now(&self) -> Timestamp {
        self.origin.1.plus(self.origin.0.elapsed())
    }

    /// Does something with a list as it is now: expired ones are gone, unused ones are not kept.
    fn with<T>(&self, queue: &str, act: impl FnOnce(&mut List, Timestamp) -> T) -> T {
        let mut lists = lock(&self.lists);
        let now = self.now();
        let list = lists.entry(queue.to_owned()).or_default();
        list.tidy(now);
        let result = act(list, now);
        let unused = list.messages.is_empty()
            && list.lease.is_none()
            && list.questions.is_empty()
            && list.dead.is_empty()
            && Arc::strong_count(&list.pushed) == 1;
        if unused {
            lists.remove(queue);
        }
        result
    }
}

impl List {
    fn tidy(&mut self, now: Timestamp) {
        self.questions.retain(|question| question.deadline > now);
        self.dead.tidy(now);
        if self.lease.as_ref().is_some_and(|lease| lease.until <= now) {
            self.end_lease();
        }
        // Under an owner no queue runs out: the owner discards and counts what has expired.
        if self.lease.is_none() && self.expires.is_some_and(|at| at <= now) {
            self.messages.clear();
            self.bytes = 0;
            self.expires = None;
        }
    }

    /// Whoever had it learns at once.
    fn end_lease(&mut self) {
        if let Some(permit) = self.lease.take().and_then(|lease| lease.permit.upgrade()) {
            permit.suspend();
        }
    }

    fn state_for(&self, owner: OwnerToken) -> LeaseState {
        match &self.lease {
            Some(lease) if lease.owner == owner => LeaseState::Held,
            Some(_) => LeaseState::Lost,
            None => LeaseState::Absent,
        }
    }

    fn remove_oldest(&mut self) -> Option<Vec<u8>> {
        let oldest = self.messages.pop_front()?;
        self.bytes -= oldest.len();
        Some(oldest)
    }
}

/// The queues of a fleet that is one process.
#[derive(Debug)]
pub(crate) struct MemoryBackend {
    store: Arc<Store>,
    config: Arc<Config>,
    keys: Keys,
}

impl MemoryBackend {
    pub(crate) fn new(name: &str, config: Arc<Config>) -> Self {
        Self { store: Store::named(name), keys: Keys::new(config.prefix()), config }
    }

    fn push_one(&self, outgoing: &Outgoing) -> Result<Queued, Refusal> {
        let Outgoing { session, draft } = outgoing;
        let (bytes, limit) = (draft.size(), self.config.message_max_bytes());
        if bytes > limit {
            return Err(Refusal::TooLarge { bytes, limit });
        }
        let queue = self.keys.of(session).queue;
        let mut queued = self.store.with(&queue, |list, now| self.push_into(list, &queue, draft, now))?;
        if queued.session != SessionStatus::Owned {
            queued.session = self.status_of_unowned(session);
        }
        Ok(queued)
    }

    fn push_into(&self, list: &mut List, queue: &str, draft: &Draft, now: Timestamp) -> Result<Queued, Refusal> {
        if list.messages.len() >= self.config.queue_max_messages() {
            return Err(Refusal::Full(QueueLimit::Messages(self.config.queue_max_messages())));
        }
        if list.bytes + draft.size() > self.config.queue_max_bytes() {
            return Err(Refusal::Full(QueueLimit::Bytes(self.config.queue_max_bytes())));
        }
        let expires = now.plus(draft.time_to_live + self.config.expiry_grace());
        list.expires = list.expires.max(Some(expires));
        list.messages.push_back(draft.stamp(now));
        list.bytes += draft.size();
        list.pushed.notify_waiters();
        if let Some(id) = draft.receipt {
            let queued = Receipt::Queued { expires_at: now.plus(draft.time_to_live) };
            lock(&self.store.receipts).tell(queue, id, queued, expires.plus(self.config.receipt_life()), now);
        }
        let session = if list.lease.is_some() { SessionStatus::Owned } else { SessionStatus::NotRead };
        Ok(Queued { waiting: list.messages.len(), session })
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    async fn push(&self, batch: Vec<Outgoing>) -> Vec<Result<Queued, Refusal>> {
        let mut refused = std::collections::HashSet::new();
        batch
            .iter()
            .map(|outgoing| {
                if refused.contains(&outgoing.session) {
                    return Err(Refusal::AfterRefused);
                }
                self.push_one(outgoing).inspect_err(|_| {
                    refused.insert(outgoing.session.clone());
                })
            })
            .collect()
    }

    async fn live_sessions(&self) -> Result<Vec<SessionId>, QueueError> {
        let now = self.store.now();
        let sessions = lock(&self.store.lists)
            .iter()
            .filter(|(queue, list)| {
                queue.starts_with(&self.keys.of_all()) && list.lease.as_ref().is_some_and(|l| l.until > now)
            })
            .filter_map(|(_, list)| list.session.clone())
            .collect();
        Ok(sessions)
    }

    async fn open(
        &self,
        session: &SessionId,
        owner: OwnerToken,
        permit: Arc<Permit>,
    ) -> Result<Box<dyn Consumer>, QueueError> {
        let queue = self.keys.of(session).queue;
        let pushed = self.store.with(&queue, |list, _| {
            list.session = Some(session.clone());
            Arc::clone(&list.pushed)
        });
        let consumer = MemoryConsumer {
            store: Arc::clone(&self.store),
            config: Arc::clone(&self.config),
            queue,
            owner,
            permit,
            pushed,
        };
        Ok(Box::new(consumer) as Box<dyn Consumer>)
    }

    async fn claim_if_absent(&self, session: &SessionId, owner: OwnerToken) -> Result<LeaseState, QueueError> {
        let state = self.store.with(&self.keys.of(session).queue, |list, now| {
            let state = list.state_for(owner);
            if state != LeaseState::Absent {
                return state;
            }
            let until = now.plus(self.config.lease());
            list.session = Some(session.clone());
            // It is not told of a takeover yet: it opens the queue next, and asks again there.
            list.lease = Some(Lease { owner, until, permit: Weak::new() });
            LeaseState::Reclaimed
        });
        Ok(state)
    }

    async fn release(&self, session: &SessionId, owner: OwnerToken) -> Result<bool, QueueError> {
        let released = self.store.with(&self.keys.of(session).queue, |list, _| {
            let ours = list.state_for(owner) == LeaseState::Held;
            if ours {
                list.end_lease();
            }
            ours
        });
        Ok(released)
    }

    async fn check(&self) -> Result<(), QueueError> {
        Ok(())
    }
}
