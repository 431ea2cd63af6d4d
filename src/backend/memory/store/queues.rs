//! Operations on queues and leases.
//!
//! Each public method answers as one script does: `push`, `claim`, `renew`, `acknowledge` with the read behind it,
//! `replace`, `release`. `tests/protocol/agreement.rs` plays random calls against both and compares every answer, so
//! the simulation, which runs on this store, proves what the scripts do.

use std::collections::{HashSet, VecDeque};

use super::collapse::{Collapsible, Replaceable};
use super::list::{Lease, List};
use super::{Change, Moment};
use crate::backend::{
    Behind, Delivered, Item, LeaseState, Mark, Outgoing, OwnerToken, PushRefusal, QueueLimit, Queued, Replaced, Taken,
};
use crate::envelope::{Draft, Timestamp};
use crate::notification::{KeyHash, TIME_TO_LIVE_MAX};
use crate::outcome::{DiscardReason, Receipt};
use crate::session_id::{SessionId, SessionStatus};

impl Moment<'_> {
    /// Queues notifications, and returns one answer for each, in the order given.
    pub fn push(&mut self, batch: &[Outgoing]) -> Vec<Result<Queued, PushRefusal>> {
        let mut refused = HashSet::new();
        let mut answers = Vec::with_capacity(batch.len());
        for Outgoing { session, draft } in batch {
            let answer =
                if refused.contains(session) { Err(PushRefusal::AfterRefused) } else { self.push_one(session, draft) };
            if answer.is_err() {
                refused.insert(session);
            }
            answers.push(answer);
        }
        answers
    }

    fn push_one(&mut self, session: &SessionId, draft: &Draft) -> Result<Queued, PushRefusal> {
        let (bytes, limit) = (draft.size(), self.config.message_max_bytes());
        if bytes > limit {
            return Err(PushRefusal::TooLarge { bytes, limit });
        }
        let (is_owned, queued) = self.with_list(session, |moment, list| {
            let (config, now, key) = (moment.config, moment.now, draft.deduplication_key);
            list.bound_lease(now);
            let duplicate_of = key.and_then(|key| list.keys.first_of(config, key, now));
            if duplicate_of.is_none() {
                moment.push_into(session, list, draft).map_err(PushRefusal::QueueFull)?;
                if let Some(key) = key {
                    list.keys.remember(config, key, draft.id, now);
                }
            }
            let is_owned = list.lease.is_some();
            let collapse_key = draft.collapse_key.filter(|_| !is_owned && duplicate_of.is_none());
            let collapsed = collapse_key.is_some_and(|key| moment.collapse(session, list, key, draft));
            Ok((is_owned, (list.messages.len(), duplicate_of, collapsed)))
        })?;
        let session = if is_owned { SessionStatus::Owned } else { self.status_of_unowned(session) };
        let (waiting, duplicate_of, collapsed) = queued;
        Ok(Queued { waiting, session, duplicate_of, collapsed })
    }

    /// Queues one notification in a list, within the bounds. Extends the life of the list beyond the notification and
    /// the lease.
    pub(super) fn push_into(&mut self, session: &SessionId, list: &mut List, draft: &Draft) -> Result<(), QueueLimit> {
        list.bound_lease(self.now);
        if list.messages.len() >= self.config.queue_max_messages() {
            return Err(QueueLimit::Messages(self.config.queue_max_messages()));
        }
        let message = draft.stamp(self.now);
        if list.bytes + message.len() > self.config.queue_max_bytes() {
            return Err(QueueLimit::Bytes(self.config.queue_max_bytes()));
        }
        list.push(message);
        self.store.changes.push(Change::Pushed(session.clone()));
        let expires_at = self.now.plus(draft.time_to_live);
        let from = list.lease.as_ref().map_or(expires_at, |lease| lease.until.max(expires_at));
        list.expires = list.expires.max(Some(from.plus(self.config.expiry_grace())));
        if let Some(id) = draft.receipt {
            let until = expires_at.plus(self.config.expiry_grace()).plus(self.config.receipt_life());
            self.set_receipt(session, id, Receipt::Queued { expires_at: expires_at.to_system() }, until);
        }
        Ok(())
    }

    /// Removes the message that the newest message of the list replaces, and notes that the newest may be replaced.
    /// Called only where no lease exists. Returns whether a message was removed.
    fn collapse(&mut self, session: &SessionId, list: &mut List, key: KeyHash, draft: &Draft) -> bool {
        let (Some(raw), older) = (list.messages.back().cloned(), list.collapsible.get(key)) else { return false };
        if older.as_ref().is_some_and(|older| older.id >= draft.id) {
            return false;
        }
        let replaced = older.filter(|older| draft.time_to_live >= older.time_to_live);
        let removed = replaced.filter(|older| list.remove_newest_equal(&older.raw));
        if let Some(older) = removed.as_ref().filter(|older| older.has_receipt) {
            let receipt = Receipt::Discarded { reason: DiscardReason::Collapsed, at: self.now.to_system() };
            self.set_receipt(session, older.id, receipt, self.now.plus(self.config.receipt_life()));
        }
        let (id, time_to_live, has_receipt) = (draft.id, draft.time_to_live, draft.receipt.is_some());
        list.collapsible.note(key, Replaceable { raw, id, time_to_live, has_receipt }, list.expires);
        removed.is_some()
    }

    /// Returns the sessions that have an owner, in order.
    pub fn live_sessions(&self) -> Vec<SessionId> {
        let is_live = |list: &List| list.lease.as_ref().is_some_and(|lease| lease.until > self.now);
        let live = self.store.lists.iter().filter(|(_, list)| is_live(list));
        let mut sessions: Vec<_> = live.map(|(session, _)| session.clone()).collect();
        sessions.sort_unstable();
        sessions
    }

    /// Returns the number of messages of a queue.
    #[cfg(feature = "metrics")]
    pub fn length(&mut self, session: &SessionId) -> usize {
        self.with_list(session, |_, list| list.messages.len())
    }

    /// Takes the lease, also from another owner. Returns whether another owner held it.
    pub fn claim(&mut self, session: &SessionId, owner: OwnerToken) -> bool {
        self.with_list(session, |moment, list| {
            let displaces = list.state_for(owner) == LeaseState::Lost;
            if displaces {
                moment.end_lease(session, list);
            }
            moment.lease_to(owner, list);
            displaces
        })
    }

    /// Keeps the lease for another two heartbeats. Takes the lease where nobody has it.
    pub fn renew(&mut self, session: &SessionId, owner: OwnerToken) -> LeaseState {
        self.with_list(session, |moment, list| {
            list.bound_lease(moment.now);
            let state = list.state_for(owner);
            if state == LeaseState::Lost {
                return state;
            }
            moment.lease_to(owner, list);
            if state == LeaseState::Absent { LeaseState::Reclaimed } else { state }
        })
    }

    /// Writes the lease. A queue outlives the lease of its owner, who discards and counts what expires.
    fn lease_to(&self, owner: OwnerToken, list: &mut List) {
        let given = self.config.lease();
        let until = self.now.plus(given);
        list.lease = Some(Lease { owner, until, given });
        // The owner may read every message from here on: no push may replace any of them.
        list.collapsible = Collapsible::default();
        list.extend_to(until.plus(self.config.expiry_grace()));
    }

    /// Gives up a lease if that owner still holds it. Returns whether that owner held it.
    pub fn release(&mut self, session: &SessionId, owner: OwnerToken) -> bool {
        self.with_list(session, |moment, list| {
            let is_owner = list.state_for(owner) == LeaseState::Held;
            if is_owner {
                moment.end_lease(session, list);
            }
            is_owner
        })
    }

    /// Removes the delivered messages and reads the next batch. `reclaim` is false for the take behind a wait.
    #[cfg(feature = "testing")]
    pub fn take(
        &mut self,
        session: &SessionId,
        owner: OwnerToken,
        delivered: Option<&Delivered>,
        reclaim: bool,
    ) -> Taken {
        self.take_behind(session, owner, delivered, None, reclaim)
    }

    /// Removes the delivered messages, and reads the next batch behind messages that stay.
    pub fn take_behind(
        &mut self,
        session: &SessionId,
        owner: OwnerToken,
        delivered: Option<&Delivered>,
        behind: Option<&Behind>,
        reclaim: bool,
    ) -> Taken {
        let queue = self.store.keys.queue(session);
        self.with_list(session, |moment, list| {
            let (lease, now) = (list.state_for(owner), moment.now);
            let mut taken = Taken { lease, changed: false, has_more: false, now, items: Vec::new() };
            if taken.lease == LeaseState::Absent && reclaim {
                moment.lease_to(owner, list);
                taken.lease = LeaseState::Reclaimed;
            }
            if let Some(delivered) = delivered {
                taken.changed = moment.acknowledge(session, list, delivered, taken.lease.is_held());
            }
            let is_there = |behind: &Behind| {
                let last = behind.count.checked_sub(1).and_then(|last| list.messages.get(last));
                last.is_some_and(|raw| behind.last.matches(raw))
            };
            if taken.lease.is_held() {
                let passed_over = behind.map_or(0, |behind| behind.count);
                if behind.is_none_or(is_there) {
                    taken.items = moment.batch(&queue, list, passed_over);
                    taken.has_more = list.messages.len() > passed_over + taken.items.len();
                } else {
                    taken.changed = true;
                }
                moment.keep_until_expired(list, &taken.items);
            }
            taken
        })
    }

    /// Removes the delivered messages, unless another message stands at their place. Returns whether one does.
    fn acknowledge(
        &mut self,
        session: &SessionId,
        list: &mut List,
        Delivered { count, last, questions, outcomes }: &Delivered,
        is_owner: bool,
    ) -> bool {
        let is_there = |index| list.messages.get(index).is_some_and(|raw| last.matches(raw));
        let matches = count.checked_sub(1).is_some_and(is_there);
        let mut removed = VecDeque::new();
        if is_owner && matches {
            removed.extend((0..*count).map_while(|_| list.remove_oldest()));
        }
        for outcome in outcomes {
            // A delivery happened in any case. The receipt of a discarded message is settled only where the message is
            // removed.
            if outcome.discarded.is_none() || !removed.is_empty() {
                let raw = removed.get_mut(outcome.position).map(std::mem::take).unwrap_or_default();
                self.settle(session, list, outcome, raw);
            }
        }
        if is_owner {
            for question in questions {
                let last = Timestamp::from_system(question.deadline).min(self.now.plus(TIME_TO_LIVE_MAX));
                list.questions.open(question, last.plus(self.config.expiry_grace()));
            }
        }
        is_owner && *count > 0 && !matches
    }

    /// Reads the oldest messages behind those that are passed over, as many as one batch may have.
    pub(super) fn batch(&self, queue: &str, list: &List, passed_over: usize) -> Vec<Item> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        for raw in list.messages.iter().skip(passed_over).take(self.config.batch_messages()) {
            bytes += raw.len();
            if bytes > self.config.batch_bytes() && !messages.is_empty() {
                break;
            }
            messages.push(raw.clone());
        }
        Item::decode_each(queue, messages, self.config.time_to_live(), self.config.sealing_keys())
    }

    /// Keeps the list beyond its owner's lease, and until every message read from it has expired. The reason: a foreign
    /// producer sets a life of its own, or none.
    fn keep_until_expired(&self, list: &mut List, items: &[Item]) {
        let expires = |item: &Item| {
            let envelope = item.envelope.as_ref().ok()?;
            let longest = if envelope.is_stamped() { TIME_TO_LIVE_MAX } else { self.config.time_to_live() };
            Some(self.now.plus(envelope.expires_at?.since(self.now).min(longest)))
        };
        let grace = self.config.expiry_grace();
        let last = items.iter().filter_map(expires).max().max(Some(self.now.plus(self.config.lease())));
        let default = self.now.plus(self.config.time_to_live() + grace);
        list.expires = Some(list.expires.unwrap_or(default)).max(last.map(|at| at.plus(grace)));
    }

    /// Writes `replacement` in the place of the oldest message, if that message still has this mark.
    pub fn replace_oldest(
        &mut self,
        session: &SessionId,
        owner: OwnerToken,
        oldest: &Mark,
        replacement: Vec<u8>,
    ) -> Replaced {
        self.with_list(session, |moment, list| {
            if list.state_for(owner) != LeaseState::Held {
                return Replaced::NotOwner;
            }
            match list.messages.front_mut() {
                Some(front) if oldest.matches(front) => {
                    list.bytes = list.bytes - front.len() + replacement.len();
                    *front = replacement;
                    let default = moment.now.plus(moment.config.time_to_live() + moment.config.expiry_grace());
                    list.expires = list.expires.or(Some(default));
                    Replaced::Done
                }
                _ => Replaced::Changed,
            }
        })
    }

    /// Returns whether nothing is queued.
    pub fn is_empty(&mut self, session: &SessionId) -> bool {
        self.with_list(session, |_, list| list.messages.is_empty())
    }
}
