//! The queue in the memory of one process, for tests, examples and servers that are alone.
//!
//! `memory://name` names one: whoever connects to the same name in the same process shares it, while anyone does.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{
    BoxFuture, Consumer, Delivered, Item, LeaseState, Mark, Outgoing, OwnerToken, Permit, Queue, Queued, Refusal,
    Replaced, Taken,
};
use crate::config::Config;
use crate::envelope::Timestamp;
use crate::error::{QueueError, QueueLimit};
use crate::keys::Keys;
use crate::session_id::SessionId;

static STORES: LazyLock<Mutex<HashMap<String, Weak<Store>>>> = LazyLock::new(Mutex::default);

/// The queues of one name.
#[derive(Debug)]
struct Store {
    lists: Mutex<HashMap<String, List>>,
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
        let store = Arc::new(Self { lists: Mutex::default(), origin: (Instant::now(), Timestamp::of_this_host()) });
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
        let unused = list.messages.is_empty() && list.lease.is_none() && Arc::strong_count(&list.pushed) == 1;
        if unused {
            lists.remove(queue);
        }
        result
    }
}

impl List {
    fn tidy(&mut self, now: Timestamp) {
        if self.expires.is_some_and(|at| at <= now) {
            self.messages.clear();
            self.bytes = 0;
            self.expires = None;
        }
        if self.lease.as_ref().is_some_and(|lease| lease.until <= now) {
            self.end_lease();
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing in here panics half-way, so what a poisoned lock holds is whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The queues of a fleet that is one process.
#[derive(Debug)]
pub(crate) struct MemoryQueue {
    store: Arc<Store>,
    config: Arc<Config>,
    keys: Keys,
}

impl MemoryQueue {
    pub(crate) fn new(name: &str, config: Arc<Config>) -> Self {
        Self { store: Store::named(name), keys: Keys::new(config.prefix()), config }
    }

    fn push_one(&self, outgoing: &Outgoing) -> Result<Queued, Refusal> {
        let Outgoing { session, draft } = outgoing;
        let (bytes, limit) = (draft.size(), self.config.message_max_bytes());
        if bytes > limit {
            return Err(Refusal::TooLarge { bytes, limit });
        }
        self.store.with(&self.keys.of(session).queue, |list, now| {
            if list.messages.len() >= self.config.queue_max_messages() {
                return Err(Refusal::Full(QueueLimit::Messages(self.config.queue_max_messages())));
            }
            if list.bytes + bytes > self.config.queue_max_bytes() {
                return Err(Refusal::Full(QueueLimit::Bytes(self.config.queue_max_bytes())));
            }
            let expires = now.plus(draft.time_to_live + self.config.expiry_grace());
            list.expires = list.expires.max(Some(expires));
            list.messages.push_back(draft.stamp(now));
            list.bytes += bytes;
            list.pushed.notify_waiters();
            Ok(Queued { waiting: list.messages.len() })
        })
    }
}

impl Queue for MemoryQueue {
    fn push(&self, batch: Vec<Outgoing>) -> BoxFuture<'_, Vec<Result<Queued, Refusal>>> {
        let mut refused = std::collections::HashSet::new();
        let results = batch
            .iter()
            .map(|outgoing| {
                if refused.contains(&outgoing.session) {
                    return Err(Refusal::AfterRefused);
                }
                self.push_one(outgoing).inspect_err(|_| {
                    refused.insert(outgoing.session.clone());
                })
            })
            .collect();
        Box::pin(std::future::ready(results))
    }

    fn live_sessions(&self) -> BoxFuture<'_, Result<Vec<SessionId>, QueueError>> {
        let now = self.store.now();
        let sessions = lock(&self.store.lists)
            .iter()
            .filter(|(queue, list)| {
                queue.starts_with(&self.keys.of_all()) && list.lease.as_ref().is_some_and(|l| l.until > now)
            })
            .filter_map(|(_, list)| list.session.clone())
            .collect();
        Box::pin(std::future::ready(Ok(sessions)))
    }

    fn open(
        &self,
        session: &SessionId,
        owner: OwnerToken,
        permit: Arc<Permit>,
    ) -> BoxFuture<'_, Result<Box<dyn Consumer>, QueueError>> {
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
        Box::pin(std::future::ready(Ok(Box::new(consumer) as Box<dyn Consumer>)))
    }

    fn claim_if_absent(&self, session: &SessionId, owner: OwnerToken) -> BoxFuture<'_, Result<LeaseState, QueueError>> {
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
        Box::pin(std::future::ready(Ok(state)))
    }

    fn release(&self, session: &SessionId, owner: OwnerToken) -> BoxFuture<'_, Result<bool, QueueError>> {
        let released = self.store.with(&self.keys.of(session).queue, |list, _| {
            let ours = list.state_for(owner) == LeaseState::Held;
            if ours {
                list.end_lease();
            }
            ours
        });
        Box::pin(std::future::ready(Ok(released)))
    }

    fn check(&self) -> BoxFuture<'_, Result<(), QueueError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

struct MemoryConsumer {
    store: Arc<Store>,
    config: Arc<Config>,
    queue: String,
    owner: OwnerToken,
    permit: Arc<Permit>,
    pushed: Arc<Notify>,
}

impl MemoryConsumer {
    fn with<T>(&self, act: impl FnOnce(&mut List, Timestamp) -> T) -> T {
        self.store.with(&self.queue, act)
    }

    fn set_lease(&self, list: &mut List, now: Timestamp) {
        // Under the lock, after what ran out was tidied: an old lease's end is no doubt of the new one.
        let mark = self.permit.mark();
        let until = now.plus(self.config.lease());
        let permit = Arc::downgrade(&self.permit);
        list.lease = Some(Lease { owner: self.owner, until, permit });
        self.permit.renewed(std::time::Instant::now(), self.config.lease(), mark);
    }

    /// Whose it is; where it is ours the permit is told, where it is nobody's it is taken if that is wanted.
    fn settle_lease(&self, list: &mut List, now: Timestamp, reclaim: bool) -> LeaseState {
        let mark = self.permit.mark();
        match list.state_for(self.owner) {
            LeaseState::Absent if reclaim => {
                self.set_lease(list, now);
                LeaseState::Reclaimed
            }
            LeaseState::Held => {
                if let Some(lease) = &mut list.lease {
                    // It may have been claimed before this consumer was opened.
                    lease.permit = Arc::downgrade(&self.permit);
                }
                self.permit.confirmed(mark);
                LeaseState::Held
            }
            other => {
                self.permit.revoke();
                other
            }
        }
    }

    fn look(&self, delivered: Option<&Delivered>, reclaim: bool) -> Taken {
        self.with(|list, now| {
            let lease = self.settle_lease(list, now, reclaim);
            let mut taken = Taken { lease, changed: false, now, items: Vec::new() };
            if !lease.is_ours() {
                return taken;
            }
            if let Some(Delivered { count, last }) = delivered.filter(|delivered| delivered.count > 0) {
                let newest = list.messages.get(count - 1);
                if newest.is_some_and(|raw| last.matches(raw)) {
                    for _ in 0..*count {
                        list.remove_oldest();
                    }
                } else {
                    taken.changed = true;
                }
            }
            let mut bytes = 0;
            for raw in list.messages.iter().take(self.config.batch_messages()) {
                bytes += raw.len();
                if bytes > self.config.batch_bytes() && !taken.items.is_empty() {
                    break;
                }
                let item = Item::decode(&self.queue, raw.clone(), self.config.time_to_live());
                taken.items.push(item);
            }
            taken
        })
    }

    async fn until_pushed(&self, block: Duration) {
        let pushed = self.pushed.notified();
        tokio::pin!(pushed);
        // Registered before the look, so that a push between the two is not missed.
        pushed.as_mut().enable();
        if self.with(|list, _| list.messages.is_empty()) {
            let _ = tokio::time::timeout(block, pushed).await;
        }
    }
}

impl Consumer for MemoryConsumer {
    fn claim(&mut self) -> BoxFuture<'_, Result<(), QueueError>> {
        self.with(|list, now| {
            if list.state_for(self.owner) == LeaseState::Lost {
                list.end_lease();
            }
            self.set_lease(list, now);
        });
        Box::pin(std::future::ready(Ok(())))
    }

    fn renew(&mut self) -> BoxFuture<'_, Result<LeaseState, QueueError>> {
        let state = self.with(|list, now| {
            let state = self.settle_lease(list, now, true);
            if state.is_ours() {
                self.set_lease(list, now);
            }
            state
        });
        Box::pin(std::future::ready(Ok(state)))
    }

    fn take<'a>(&'a mut self, delivered: Option<&'a Delivered>) -> BoxFuture<'a, Result<Taken, QueueError>> {
        Box::pin(std::future::ready(Ok(self.look(delivered, true))))
    }

    fn wait(&mut self, block: Duration) -> BoxFuture<'_, Result<Taken, QueueError>> {
        Box::pin(async move {
            self.until_pushed(block).await;
            Ok(self.look(None, false))
        })
    }

    fn replace_oldest<'a>(
        &'a mut self,
        oldest: &'a Mark,
        replacement: Vec<u8>,
    ) -> BoxFuture<'a, Result<Replaced, QueueError>> {
        let replaced = self.with(|list, _| {
            if list.state_for(self.owner) != LeaseState::Held {
                return Replaced::NotOurs;
            }
            match list.messages.front_mut() {
                Some(front) if oldest.matches(front) => {
                    list.bytes = list.bytes - front.len() + replacement.len();
                    *front = replacement;
                    Replaced::Done
                }
                _ => Replaced::Changed,
            }
        });
        Box::pin(std::future::ready(Ok(replaced)))
    }

    fn pop(&mut self, block: Duration) -> BoxFuture<'_, Result<Option<(Item, Timestamp)>, QueueError>> {
        Box::pin(async move {
            self.until_pushed(block).await;
            Ok(self.with(|list, now| {
                let raw = list.remove_oldest()?;
                Some((Item::decode(&self.queue, raw, self.config.time_to_live()), now))
            }))
        })
    }
}
