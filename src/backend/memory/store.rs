//! [`Store`]: everything that a fleet keeps in Redis, as one value. The operations answer as Redis answers.
//!
//! The store is pure: no I/O, no clock, no locks, no tasks. The caller passes the time in, by [`Store::at`]. It learns
//! by [`Store::changes`] the changes that Redis announces by client tracking. A simulator can therefore apply each
//! operation later than its owner sent it, or twice, or never:
//!
//! ```ignore
//! let mut store = Store::new(config.prefix());
//! store.at(&config, now).claim(&session, owner);
//! let taken = store.at(&config, later).take(&session, owner, None, true);
//! for change in store.changes() { /* `LeaseEnded` suspends the permit of that owner, when its tracking says so */ }
//! ```

use std::collections::HashMap;

use self::list::List;
use self::receipts::Receipts;
use self::sessions::Sessions;
use crate::backend::OwnerToken;
use crate::config::Config;
use crate::envelope::Timestamp;
use crate::keys::Keys;
use crate::notification::NotificationId;
use crate::session_id::SessionId;

mod collapse;
mod dead_letters;
mod deduplication;
#[cfg(feature = "testing")]
mod foreign;
mod inspection;
mod list;
mod questions;
mod queues;
mod receipts;
mod sessions;
#[cfg_attr(not(feature = "elicitation"), path = "store/no_tasks.rs")]
mod tasks;

/// Queues, leases, receipts, dead letters, questions and sessions of a fleet: everything under one prefix.
#[derive(Debug, Clone)]
pub struct Store {
    /// Names of the queues in Redis. The ids of messages that came without an id are derived from them.
    keys: Keys,
    lists: HashMap<SessionId, List>,
    receipts: Receipts,
    #[cfg(feature = "elicitation")]
    tasks: tasks::Tasks,
    sessions: Sessions,
    servers: inspection::Servers,
    /// Changes since the last call of [`Store::changes`].
    changes: Vec<Change>,
}

/// Change in a [`Store`], for those who wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// The lease of this owner ended: by a newer claim, by a release, by its time, or because the key was deleted.
    LeaseEnded(SessionId, OwnerToken),
    /// A message was pushed to the queue of this session.
    Pushed(SessionId),
    /// This receipt was written.
    Receipt(SessionId, NotificationId),
    /// The question of this task was posed, answered or withdrawn.
    #[cfg(feature = "elicitation")]
    Question(crate::question::TaskKey),
}

impl Store {
    /// Makes an empty store for the keys under `prefix`.
    pub fn new(prefix: &str) -> Self {
        Self {
            keys: Keys::new(prefix),
            lists: HashMap::new(),
            receipts: Receipts::default(),
            #[cfg(feature = "elicitation")]
            tasks: tasks::Tasks::default(),
            sessions: Sessions::default(),
            servers: HashMap::new(),
            changes: Vec::new(),
        }
    }

    /// Begins one operation, at the time `now` of the store's clock, by the settings of its caller.
    pub fn at<'a>(&'a mut self, config: &'a Config, now: Timestamp) -> Moment<'a> {
        Moment { store: self, config, now }
    }

    /// Returns what has changed since the last call, in order.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }
}

/// A [`Store`] at one moment: each method is one atomic operation, as one command or script is in Redis.
#[derive(Debug)]
pub struct Moment<'a> {
    store: &'a mut Store,
    config: &'a Config,
    now: Timestamp,
}

impl Moment<'_> {
    /// Returns the time of this moment.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Applies `act` to a list after everything expired was removed. A list that is empty afterwards is dropped.
    fn with_list<T>(&mut self, session: &SessionId, act: impl FnOnce(&mut Self, &mut List) -> T) -> T {
        let mut list = self.store.lists.remove(session).unwrap_or_default();
        self.tidy(session, &mut list);
        let done = act(self, &mut list);
        list.end_if_empty();
        if !list.is_unused() {
            self.store.lists.insert(session.clone(), list);
        }
        done
    }

    /// Removes everything that has expired.
    fn tidy(&mut self, session: &SessionId, list: &mut List) {
        if list.lease.as_ref().is_some_and(|lease| lease.until <= self.now) {
            self.end_lease(session, list);
        }
        list.tidy(self.now);
    }

    /// Removes a lease, and notes the change for its owner.
    fn end_lease(&mut self, session: &SessionId, list: &mut List) {
        if let Some(lease) = list.lease.take() {
            self.store.changes.push(Change::LeaseEnded(session.clone(), lease.owner));
        }
    }
}
