//! Deduplication keys of one session, as `lua/include/deduplication.lua` keeps them.

use std::collections::HashMap;

use crate::config::Config;
use crate::envelope::Timestamp;
use crate::notification::{KeyHash, NotificationId};

/// Remembered keys, in two key sets. A new key set takes the place of the older one.
#[derive(Debug, Clone, Default)]
pub(super) struct RememberedKeys {
    newer: KeySet,
    older: KeySet,
}

/// Keys that were remembered after one another.
#[derive(Debug, Clone, Default)]
struct KeySet {
    /// Time at which the key set began; `None` before its first key.
    begun: Option<Timestamp>,
    keys: HashMap<KeyHash, (NotificationId, Timestamp)>,
    /// End of the key set, as the expiry of a key in Redis.
    until: Option<Timestamp>,
}

impl RememberedKeys {
    /// Forgets the key sets that have expired.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        for key_set in [&mut self.newer, &mut self.older] {
            if key_set.until.is_some_and(|until| until <= now) {
                *key_set = KeySet::default();
            }
        }
        if self.newer.begun.is_none() {
            std::mem::swap(&mut self.newer, &mut self.older);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.newer.begun.is_none()
    }

    /// Returns the notification that was queued under a key within the window.
    pub(super) fn first_of(&self, config: &Config, key: KeyHash, now: Timestamp) -> Option<NotificationId> {
        // The time may lie ahead where the clock was set back.
        let is_recent = |at: Timestamp| now.since(at).max(at.since(now)) < config.deduplication_window();
        let found = [&self.newer, &self.older].into_iter().filter_map(|key_set| key_set.keys.get(&key));
        found.filter(|(_, at)| is_recent(*at)).map(|(id, _)| *id).next()
    }

    /// Notes that a notification was queued under a key.
    pub(super) fn remember(&mut self, config: &Config, key: KeyHash, id: NotificationId, now: Timestamp) {
        let window = config.deduplication_window();
        if self.newer.begun.is_some_and(|begun| begun.since(now) >= window) {
            // The clock was set back by more than the window: nothing that is kept counts any more.
            *self = Self::default();
        }
        let is_over =
            |begun: Timestamp| now.since(begun) >= window || self.newer.keys.len() >= config.deduplication_keys();
        if self.newer.begun.is_none_or(is_over) {
            let begins = self.newer.begun.map_or(now, |begun| now.max(Timestamp(begun.0 + 1)));
            self.older = std::mem::replace(&mut self.newer, KeySet { begun: Some(begins), ..KeySet::default() });
        }
        self.newer.keys.insert(key, (id, now));
        self.newer.until = Some(now.plus(window));
    }
}
