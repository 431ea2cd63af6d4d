//! Messages of one session that a push may replace, as `lua/include/collapse.lua` keeps them.

use std::collections::HashMap;
use std::time::Duration;

use crate::backend::{COLLAPSE_BYTES, COLLAPSE_KEYS};
use crate::envelope::Timestamp;
use crate::notification::{KeyHash, NotificationId};

/// Messages that were pushed since the session had an owner last, the newest of each collapse key.
#[derive(Debug, Clone, Default)]
pub(super) struct Collapsible {
    messages: HashMap<KeyHash, Replaceable>,
    /// End of all these messages, as the expiry of their key in Redis.
    until: Option<Timestamp>,
}

/// Message that a push may replace.
#[derive(Debug, Clone)]
pub(super) struct Replaceable {
    pub(super) raw: Vec<u8>,
    pub(super) id: NotificationId,
    pub(super) time_to_live: Duration,
    pub(super) has_receipt: bool,
}

impl Collapsible {
    pub(super) fn tidy(&mut self, now: Timestamp) {
        if self.until.is_some_and(|until| until <= now) {
            *self = Self::default();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns the message that may be replaced under a key.
    pub(super) fn get(&self, key: KeyHash) -> Option<Replaceable> {
        self.messages.get(&key).cloned()
    }

    /// Notes that a queued message may be replaced, within the bounds. `until` is the end of the queue.
    pub(super) fn note(&mut self, key: KeyHash, message: Replaceable, until: Option<Timestamp>) {
        if message.raw.len() > COLLAPSE_BYTES {
            self.messages.remove(&key);
        } else if self.messages.contains_key(&key) || self.messages.len() < COLLAPSE_KEYS {
            self.messages.insert(key, message);
            self.until = until;
        }
    }
}
