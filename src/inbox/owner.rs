//! [`Owner`]: takes the notifications of an inbox's session, and keeps those that the test has not read yet.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::{InboxError, SHOWN};
use crate::backend::memory::MemoryBackend;
use crate::backend::{Consumer, Delivered, OwnerToken, Permit, Queues, Taken};
use crate::config::Config;
use crate::envelope::{Outbound, shortened};
use crate::failure::QueueError;
use crate::lock::lock;
use crate::outcome::DiscardReason;
use crate::question::Question;
use crate::session_id::SessionId;
use crate::subscription::{Ack, EndedTasks};

/// Owner of a session's queue. The inbox and its task share the owner.
pub(super) struct Owner {
    pub(super) backend: Arc<MemoryBackend>,
    pub(super) config: Arc<Config>,
    pub(super) session: SessionId,
    token: OwnerToken,
    pub(super) contents: Mutex<Contents>,
    /// Wakes those who wait for a notification or a question.
    arrived: Notify,
    /// Wakes the task of a full inbox.
    pub(super) has_room: Notify,
}

/// Notifications and questions that the test has not read yet.
#[derive(Default)]
pub(super) struct Contents {
    pub(super) notifications: VecDeque<Outbound>,
    /// Number of bytes of `notifications`, as they go to a client.
    bytes: usize,
    pub(super) questions: VecDeque<Question>,
    ended: EndedTasks,
    /// Number of notifications that were received since the inbox was opened.
    pub(super) received: usize,
    /// Newest received notifications as text, for errors.
    pub(super) newest: VecDeque<String>,
    /// Set where another owner has claimed the queue.
    is_taken_over: bool,
}

/// Outcome of a collection.
#[derive(PartialEq)]
pub(super) enum Collected {
    /// The queue is empty.
    All,
    /// The inbox is full. Further notifications stay queued.
    Full,
    TakenOver,
}

impl Owner {
    /// Claims the queue of a session in the store of this name. Returns the owner and the queue to
    /// [follow](Self::follow).
    pub(super) async fn open(
        name: &str,
        config: Config,
        session: &SessionId,
    ) -> Result<(Arc<Self>, Box<dyn Consumer>), QueueError> {
        let config = Arc::new(config);
        let owner = Self {
            backend: Arc::new(MemoryBackend::new(name, Arc::clone(&config))),
            config,
            session: session.clone(),
            token: OwnerToken::new(),
            contents: Mutex::default(),
            arrived: Notify::new(),
            has_room: Notify::new(),
        };
        let mut consumer = owner.backend.open(session, owner.token, Arc::new(Permit::new())).await?;
        consumer.claim().await?;
        Ok((Arc::new(owner), consumer))
    }

    /// Gives up the queue.
    pub(super) fn release(&self) {
        self.backend.step(|moment| moment.release(&self.session, self.token));
    }

    /// Takes notifications as they come, renews the lease, and ends where another owner has claimed the queue.
    pub(super) async fn follow(self: Arc<Self>, mut consumer: Box<dyn Consumer>) {
        loop {
            match self.collect() {
                Collected::All => match consumer.wait(self.config.heartbeat()).await {
                    Ok(_) => {}
                    Err(_) => return,
                },
                Collected::Full => {
                    let _ = tokio::time::timeout(self.config.heartbeat(), self.has_room.notified()).await;
                }
                Collected::TakenOver => return,
            }
        }
    }

    /// Takes what is queued, and acknowledges it.
    pub(super) fn collect(&self) -> Collected {
        let mut contents = lock(&self.contents);
        if contents.is_taken_over {
            return Collected::TakenOver;
        }
        let (before, mut delivered) = (contents.received, None::<Delivered>);
        let collected = loop {
            let taken = self.backend.step(|moment| {
                // The renewal keeps the lease for two more heartbeats. The take then finds who holds the lease.
                moment.renew(&self.session, self.token);
                moment.take_behind(&self.session, self.token, delivered.as_ref(), None, true)
            });
            if !taken.lease.is_held() {
                contents.is_taken_over = true;
                break Collected::TakenOver;
            }
            if taken.items.is_empty() {
                break Collected::All;
            }
            if !contents.has_room(&self.config) {
                break Collected::Full;
            }
            delivered = contents.receive(taken);
        };
        // A waiter collects too, so it would wake itself without end if nothing had to be new.
        if contents.received > before || collected == Collected::TakenOver {
            self.arrived.notify_waiters();
        }
        collected
    }

    /// Waits until `pop` finds something in the contents.
    pub(super) async fn first<T>(&self, pop: impl Fn(&mut Contents) -> Option<T>) -> Result<T, InboxError> {
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if let Some(found) = self.collect_then(&pop)? {
                return Ok(found);
            }
            arrived.await;
        }
    }

    /// Takes what is queued, and returns what `pop` finds in the contents.
    pub(super) fn collect_then<T>(&self, pop: impl Fn(&mut Contents) -> Option<T>) -> Result<Option<T>, InboxError> {
        let collected = self.collect();
        let found = pop(&mut lock(&self.contents));
        match collected {
            Collected::TakenOver if found.is_none() => return Err(InboxError::TakenOver),
            Collected::Full => self.has_room.notify_one(),
            Collected::All | Collected::TakenOver => {}
        }
        Ok(found)
    }
}

impl Contents {
    /// Returns whether a further batch may be received. The bounds are those of a queue.
    fn has_room(&self, config: &Config) -> bool {
        let most = self.notifications.len().max(self.questions.len());
        most < config.queue_max_messages() && self.bytes < config.queue_max_bytes()
    }

    /// Receives a batch, and returns its acknowledgement.
    fn receive(&mut self, taken: Taken) -> Option<Delivered> {
        let mut ack = Ack::default();
        for item in taken.items {
            let envelope = match item.envelope {
                Ok(envelope) => envelope,
                Err(why) => {
                    ack.discard(item.mark, DiscardReason::Undecodable(why.to_string()), None);
                    continue;
                }
            };
            let receipt = envelope.receipt.then_some(envelope.id);
            if let Some(reason) = self.ended.reason_to_discard(&envelope, taken.now) {
                ack.discard(item.mark, reason, receipt);
                continue;
            }
            self.ended.note_delivered(&envelope);
            let question = envelope.question.as_deref().cloned();
            self.questions.extend(question.clone());
            ack.deliver(item.mark, question, receipt);
            self.push(envelope.outbound().clone());
        }
        ack.take()
    }

    fn push(&mut self, notification: Outbound) {
        self.received += 1;
        if self.newest.len() == SHOWN {
            self.newest.pop_front();
        }
        self.newest.push_back(summary(&notification));
        self.bytes += notification.size_hint();
        self.notifications.push_back(notification);
    }

    pub(super) fn pop(&mut self) -> Option<Outbound> {
        let notification = self.notifications.pop_front()?;
        self.bytes -= notification.size_hint();
        Some(notification)
    }
}

/// Returns the method and the params of a notification. Long params are cut.
pub(super) fn summary(notification: &Outbound) -> String {
    format!("{} {}", notification.method(), shortened(&notification.params()))
}
