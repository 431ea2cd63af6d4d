//! One session's queue in memory, in the hands of one who owns it or would.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{Lease, List, Store};
use crate::backend::{Consumer, Delivered, Item, LeaseState, Mark, OwnerToken, Permit, Replaced, Taken};
use crate::config::Config;
use crate::envelope::Timestamp;
use crate::failure::QueueError;

pub(super) struct MemoryConsumer {
    pub(super) store: Arc<Store>,
    pub(super) config: Arc<Config>,
    pub(super) queue: String,
    pub(super) owner: OwnerToken,
    pub(super) permit: Arc<Permit>,
    pub(super) pushed: Arc<Notify>,
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
            let mut removed = VecDeque::new();
            if let Some(Delivered { count, last, .. }) = delivered.filter(|delivered| delivered.count > 0)
                && lease.is_ours()
            {
                let newest = list.messages.get(count - 1);
                if newest.is_some_and(|raw| last.matches(raw)) {
                    removed.extend((0..*count).map_while(|_| list.remove_oldest()));
                } else {
                    taken.changed = true;
                }
            }
            for fate in delivered.iter().flat_map(|delivered| &delivered.fates) {
                // What was delivered is told of in any case: it was. A discarded message is only settled where it is removed.
                if fate.discarded.is_none() || !removed.is_empty() {
                    let raw = removed.get_mut(fate.position).map(std::mem::take).unwrap_or_default();
                    self.store.settle(list, &self.queue, &self.config, fate, raw, now);
                }
            }
            if !lease.is_ours() {
                return taken;
            }
            for question in delivered.iter().flat_map(|delivered| &delivered.questions) {
                if !list.questions.iter().any(|open| open.request_id == question.request_id) {
                    list.questions.push(question.clone());
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

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn claim(&mut self) -> Result<(), QueueError> {
        self.with(|list, now| {
            if list.state_for(self.owner) == LeaseState::Lost {
                list.end_lease();
            }
            self.set_lease(list, now);
        });
        Ok(())
    }

    async fn renew(&mut self) -> Result<LeaseState, QueueError> {
        let state = self.with(|list, now| {
            let state = self.settle_lease(list, now, true);
            if state.is_ours() {
                self.set_lease(list, now);
            }
            state
        });
        Ok(state)
    }

    async fn take(&mut self, delivered: Option<&Delivered>) -> Result<Taken, QueueError> {
        Ok(self.look(delivered, true))
    }

    async fn wait(&mut self, block: Duration) -> Result<Taken, QueueError> {
        self.until_pushed(block).await;
        Ok(self.look(None, false))
    }

    async fn replace_oldest(&mut self, oldest: &Mark, replacement: Vec<u8>) -> Result<Replaced, QueueError> {
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
        Ok(replaced)
    }

    async fn pop(&mut self, block: Duration) -> Result<Option<(Item, Timestamp)>, QueueError> {
        self.until_pushed(block).await;
        Ok(self.with(|list, now| {
            let raw = list.remove_oldest()?;
            Some((Item::decode(&self.queue, raw, self.config.time_to_live()), now))
        }))
    }
}
