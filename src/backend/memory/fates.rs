//! What became of notifications, in the memory of one process.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::{List, MemoryBackend, Store};
use crate::backend::{Fate, Fates, Letter, Mark, Redrove, Refusal};
use crate::config::Config;
use crate::envelope::{Draft, Timestamp};
use crate::failure::QueueError;
use crate::fate::Receipt;
use crate::lock::lock;
use crate::notification::NotificationId;
use crate::session_id::SessionId;

/// The least pause between two looks at a receipt that nobody says anything of.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// The receipts of all queues.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    told: HashMap<(String, NotificationId), Told>,
    /// How many there were when those whose time is over were last removed.
    tidied: usize,
}

#[derive(Debug)]
struct Told {
    receipt: Receipt,
    until: Timestamp,
    changed: Arc<Notify>,
}

impl Receipts {
    /// Settles a receipt, or has it say that its notification is queued. That it was delivered stands for good.
    pub(super) fn tell(&mut self, queue: &str, id: NotificationId, receipt: Receipt, until: Timestamp, now: Timestamp) {
        // Each is looked at a bounded number of times, however many there are.
        if self.told.len() > 2 * self.tidied + 64 {
            self.told.retain(|_, told| told.until > now);
            self.tidied = self.told.len();
        }
        let fresh = || Told { receipt: Receipt::Unknown, until, changed: Arc::default() };
        let told = self.told.entry((queue.to_owned(), id)).or_insert_with(fresh);
        if told.until <= now || !matches!(told.receipt, Receipt::Delivered { .. }) {
            (told.receipt, told.until) = (receipt, until);
            told.changed.notify_waiters();
        }
    }

    fn of(&self, queue: &str, id: NotificationId, now: Timestamp) -> Option<&Told> {
        self.told.get(&(queue.to_owned(), id)).filter(|told| told.until > now)
    }
}

/// The dead letters of one session, the oldest first, each with the end of its time.
#[derive(Debug, Default)]
pub(super) struct Dead {
    letters: VecDeque<(Letter, Timestamp)>,
    bytes: usize,
}

impl Dead {
    pub(super) fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    pub(super) fn tidy(&mut self, now: Timestamp) {
        while self.letters.front().is_some_and(|(_, until)| *until <= now) {
            self.remove(0);
        }
    }

    fn keep(&mut self, config: &Config, letter: Letter) {
        let bytes = letter.raw.len();
        if bytes > config.queue_max_bytes() {
            tracing::error!(bytes, "a discarded notification is larger than all dead letters may be: it is gone");
            return;
        }
        let until = letter.at.plus(config.dead_letter_life());
        self.bytes += bytes;
        self.letters.push_back((letter, until));
        while self.letters.len() > config.dead_letters() || self.bytes > config.queue_max_bytes() {
            self.remove(0);
        }
    }

    fn remove(&mut self, index: usize) {
        if let Some((letter, _)) = self.letters.remove(index) {
            self.bytes -= letter.raw.len();
        }
    }
}

impl Store {
    /// Writes down the fate of a message that has been removed, or that was delivered all the same.
    pub(super) fn settle(
        &self,
        list: &mut List,
        queue: &str,
        config: &Config,
        fate: &Fate,
        raw: Vec<u8>,
        at: Timestamp,
    ) {
        let receipt = match &fate.discarded {
            None => Receipt::Delivered { at },
            Some(reason) => Receipt::Discarded { reason: reason.clone(), at },
        };
        if let Some(id) = fate.receipt {
            lock(&self.receipts).tell(queue, id, receipt, at.plus(config.receipt_life()), at);
        }
        if let (Some(reason), true) = (&fate.discarded, config.dead_letters() > 0) {
            let mark = Mark::of(&raw);
            list.dead.keep(config, Letter { at, reason: reason.clone(), raw, mark });
        }
    }
}

impl MemoryBackend {
    /// A receipt, when it was read, and what tells of its next change.
    fn told(&self, session: &SessionId, id: NotificationId) -> (Receipt, Timestamp, Arc<Notify>) {
        let queue = self.keys.of(session).queue;
        self.store.with(&queue, |list, now| {
            let is_owned = list.lease.is_some() && !list.messages.is_empty();
            match lock(&self.store.receipts).of(&queue, id, now) {
                Some(told) => (told.receipt.clone().at(now, is_owned), now, Arc::clone(&told.changed)),
                None => (Receipt::Unknown, now, Arc::default()),
            }
        })
    }
}

#[async_trait]
impl Fates for MemoryBackend {
    async fn record(&self, session: &SessionId, fate: &Fate, raw: &[u8]) -> Result<(), QueueError> {
        let queue = self.keys.of(session).queue;
        self.store.with(&queue, |list, now| {
            self.store.settle(list, &queue, &self.config, fate, raw.to_vec(), now);
        });
        Ok(())
    }

    async fn receipt(&self, session: &SessionId, id: NotificationId) -> Result<(Receipt, Timestamp), QueueError> {
        let (receipt, now, _) = self.told(session, id);
        Ok((receipt, now))
    }

    async fn until_settled(&self, session: &SessionId, id: NotificationId) -> Receipt {
        loop {
            let changed = self.told(session, id).2;
            let changed = changed.notified();
            tokio::pin!(changed);
            // Registered before the look, so that a change between the two is not missed.
            changed.as_mut().enable();
            match self.told(session, id) {
                (Receipt::Queued { expires_at }, now, _) => {
                    let _ = tokio::time::timeout(expires_at.since(now).max(LOOK), changed).await;
                }
                (settled, ..) => return settled,
            }
        }
    }

    async fn dead_letters(
        &self,
        session: &SessionId,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<Letter>, Timestamp), QueueError> {
        let read = self.store.with(&self.keys.of(session).queue, |list, now| {
            let letters = list.dead.letters.iter().skip(skip).take(limit);
            (letters.map(|(letter, _)| letter.clone()).collect(), now)
        });
        Ok(read)
    }

    async fn redrive(
        &self,
        session: &SessionId,
        skip: usize,
        letter: &Mark,
        draft: &Draft,
    ) -> Result<Redrove, QueueError> {
        let queue = self.keys.of(session).queue;
        let redrove = self.store.with(&queue, |list, now| {
            if list.dead.letters.get(skip).is_none_or(|(there, _)| there.mark != *letter) {
                return Redrove::Changed;
            }
            match self.push_into(list, &queue, draft, now) {
                Err(Refusal::Full(limit)) => Redrove::Full(limit),
                // Nothing else is refused there.
                _ => {
                    list.dead.remove(skip);
                    Redrove::Done
                }
            }
        });
        Ok(redrove)
    }

    async fn purge(&self, session: &SessionId) -> Result<usize, QueueError> {
        let purged =
            self.store.with(&self.keys.of(session).queue, |list, _| std::mem::take(&mut list.dead).letters.len());
        Ok(purged)
    }

    async fn sessions_with_dead_letters(&self) -> Result<Vec<SessionId>, QueueError> {
        let (all, now) = (self.keys.of_all(), self.store.now());
        let mut sessions: Vec<SessionId> = lock(&self.store.lists)
            .iter_mut()
            .filter_map(|(queue, list)| {
                list.tidy(now);
                (!list.dead.is_empty()).then(|| queue.strip_prefix(&all)?.parse().ok()).flatten()
            })
            .collect();
        sessions.sort_unstable();
        Ok(sessions)
    }
}
