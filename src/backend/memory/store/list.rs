//! Keys of one session's queue: the list, its lease, its open questions, its dead letters, its deduplication keys.

use std::collections::VecDeque;
use std::time::Duration;

use super::collapse::Collapsible;
use super::deduplication::RememberedKeys;
use crate::backend::{LeaseState, OwnerToken, StoredLetter};
use crate::config::Config;
use crate::envelope::Timestamp;
use crate::question::Question;

#[derive(Debug, Clone, Default)]
pub(super) struct List {
    /// Messages, the oldest first.
    pub(super) messages: VecDeque<Vec<u8>>,
    /// Size of all messages, in bytes.
    pub(super) bytes: usize,
    /// End of the whole list, like the expiry of a key in Redis. `None` where the list has no expiry.
    pub(super) expires: Option<Timestamp>,
    pub(super) lease: Option<Lease>,
    pub(super) questions: OpenQuestions,
    pub(super) letters: Letters,
    pub(super) keys: RememberedKeys,
    pub(super) collapsible: Collapsible,
}

/// Lease of a queue.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub(super) owner: OwnerToken,
    /// End of the lease by the store's clock.
    pub(super) until: Timestamp,
    /// Life that the owner gave the lease, by which [`List::bound_lease`] judges its end.
    pub(super) given: Duration,
}

/// Questions that were delivered and not answered. All of them expire together, as one key in Redis does.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenQuestions {
    pub(super) all: Vec<Question>,
    /// End of all open questions. The latest deadline counts, as all of them share one key in Redis.
    pub(super) until: Option<Timestamp>,
}

impl List {
    /// Removes everything that has expired, except the lease: its owner must be notified.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        if self.questions.until.is_some_and(|until| until <= now) {
            self.questions = OpenQuestions::default();
        }
        self.letters.tidy(now);
        self.keys.tidy(now);
        self.collapsible.tidy(now);
        if self.expires.is_some_and(|at| at <= now) {
            self.messages.clear();
            self.bytes = 0;
        }
        self.end_if_empty();
    }

    /// Removes the expiries of empty parts: Redis has no empty keys.
    pub(super) fn end_if_empty(&mut self) {
        if self.messages.is_empty() {
            self.expires = None;
        }
        if self.questions.all.is_empty() {
            self.questions.until = None;
        }
    }

    pub(super) fn is_unused(&self) -> bool {
        self.messages.is_empty()
            && self.lease.is_none()
            && self.questions.all.is_empty()
            && self.letters.all.is_empty()
            && self.keys.is_empty()
            && self.collapsible.is_empty()
    }

    pub(super) fn state_for(&self, owner: OwnerToken) -> LeaseState {
        match &self.lease {
            Some(lease) if lease.owner == owner => LeaseState::Held,
            Some(_) => LeaseState::Lost,
            None => LeaseState::Absent,
        }
    }

    /// Cuts the remaining life of a lease to the life that its owner gave it. The remaining life is longer where the
    /// clock was set back.
    pub(super) fn bound_lease(&mut self, now: Timestamp) {
        if let Some(lease) = &mut self.lease {
            lease.until = lease.until.min(now.plus(lease.given));
        }
    }

    /// Extends the life of a list that has an expiry. Never shortens that life.
    pub(super) fn extend_to(&mut self, at: Timestamp) {
        self.expires = self.expires.map(|expires| expires.max(at));
    }

    pub(super) fn push(&mut self, message: Vec<u8>) {
        self.bytes += message.len();
        self.messages.push_back(message);
    }

    /// Removes the newest message that has this content. Returns whether there was one.
    pub(super) fn remove_newest_equal(&mut self, raw: &[u8]) -> bool {
        let found = self.messages.iter().rposition(|message| message == raw);
        if let Some(removed) = found.and_then(|at| self.messages.remove(at)) {
            self.bytes -= removed.len();
        }
        found.is_some()
    }

    pub(super) fn remove_oldest(&mut self) -> Option<Vec<u8>> {
        let oldest = self.messages.pop_front()?;
        self.bytes -= oldest.len();
        Some(oldest)
    }
}

/// Dead letters of one session, the oldest first, each with the end of its time.
#[derive(Debug, Clone, Default)]
pub(super) struct Letters {
    pub(super) all: VecDeque<(StoredLetter, Timestamp)>,
    bytes: usize,
}

impl Letters {
    pub(super) fn tidy(&mut self, now: Timestamp) {
        while self.all.front().is_some_and(|(_, until)| *until <= now) {
            self.remove(0);
        }
    }

    /// Adds a letter, and removes the oldest ones beyond the bounds. A letter above the bound in bytes is not kept.
    pub(super) fn keep(&mut self, config: &Config, letter: StoredLetter) {
        let bytes = letter.raw.len();
        if bytes > config.queue_max_bytes() {
            tracing::error!(
                bytes,
                "keeping a dead letter failed, as it is larger than all may be together; it is lost"
            );
            return;
        }
        let until = letter.at.plus(config.dead_letter_life());
        self.bytes += bytes;
        self.all.push_back((letter, until));
        while self.all.len() > config.dead_letters() || self.bytes > config.queue_max_bytes() {
            self.remove(0);
        }
    }

    pub(super) fn remove(&mut self, index: usize) {
        if let Some((letter, _)) = self.all.remove(index) {
            self.bytes -= letter.raw.len();
        }
    }
}
