//! Operations of operators, and the records of server processes.

use std::collections::HashMap;

use super::{Change, Moment};
use crate::backend::inspection::{FOUND_MAX, SERVERS_MAX};
use crate::backend::{
    LeaseFacts, Mark, Peeked, SameId, ServerId, ServerRecord, SessionDetails, SessionFacts, SessionRecord,
};
use crate::envelope::Timestamp;
use crate::keys::{SessionKey, SessionKeyKind};
use crate::notification::NotificationId;
use crate::outcome::{DiscardReason, Receipt};
use crate::session_id::SessionId;

/// Records of server processes, and the end of each record's time.
pub(super) type Servers = HashMap<ServerId, (ServerRecord, Timestamp)>;

impl Moment<'_> {
    /// Returns the facts about sessions in their order, behind the session `after`: at most `limit`.
    pub fn list_sessions(&mut self, after: Option<&SessionId>, limit: usize) -> Vec<SessionFacts> {
        let mut sessions: Vec<SessionId> = self.store.lists.keys().chain(self.store.sessions.keys()).cloned().collect();
        sessions.sort_unstable();
        sessions.dedup();
        let facts = sessions.iter().filter(|session| after.is_none_or(|after| *session > after)).map(|session| {
            let facts = self.facts(session);
            let is_there = facts.record != SessionRecord::Unknown || facts.lease.is_some();
            (is_there || facts.depth > 0 || facts.dead_letters > 0).then_some(facts)
        });
        facts.flatten().take(limit).collect()
    }

    /// Returns the facts about one session.
    pub fn facts(&mut self, session: &SessionId) -> SessionFacts {
        let record = match self.store.sessions.get(session) {
            Some((state, until)) if *until > self.now => {
                if state.is_some() {
                    SessionRecord::Known
                } else {
                    SessionRecord::Ended
                }
            }
            _ => SessionRecord::Unknown,
        };
        self.with_list(session, |moment, list| SessionFacts {
            session: session.clone(),
            record,
            depth: list.messages.len(),
            lease: list.lease.as_ref().map(|lease| LeaseFacts {
                server: lease.owner.server(),
                rest: lease.until.since(moment.now).min(lease.given),
                life: lease.given,
            }),
            dead_letters: list.letters.all.len(),
            wrong_types: Vec::new(),
        })
    }

    /// Returns everything that the store knows about one session.
    pub fn details(&mut self, session: &SessionId) -> SessionDetails {
        let (now, facts) = (self.now, self.facts(session));
        let until = self.store.sessions.get(session).map(|(_, until)| *until).filter(|until| *until > now);
        self.with_list(session, |_, list| SessionDetails {
            facts,
            now,
            bytes: list.bytes,
            oldest: list.messages.front().cloned(),
            newest: list.messages.back().cloned(),
            queue_rest: list.expires.map(|at| at.since(now)),
            record_rest: until.map(|until| until.since(now)),
            open_questions: list.questions.all.len(),
            newest_letter: list.letters.all.back().map(|(letter, _)| letter.clone()),
        })
    }

    /// Returns the oldest messages of a queue: at most `limit`, and about `bytes`.
    pub fn peek(&mut self, session: &SessionId, limit: usize, bytes: usize) -> Peeked {
        let now = self.now;
        self.with_list(session, |_, list| {
            let (mut messages, mut size) = (Vec::new(), 0);
            for message in list.messages.iter().take(limit) {
                if size + message.len() > bytes && size > 0 {
                    break;
                }
                size += message.len();
                messages.push(message.clone());
            }
            Peeked { has_more: messages.len() < list.messages.len(), messages, now }
        })
    }

    /// Removes the oldest messages, where the newest of them still stands at its place. Returns whether they were
    /// removed.
    pub fn purge_queue(
        &mut self,
        session: &SessionId,
        count: usize,
        newest: &Mark,
        receipts: &[NotificationId],
    ) -> bool {
        let is_done = self.with_list(session, |_, list| {
            let last = count.checked_sub(1).and_then(|last| list.messages.get(last));
            let is_there = last.is_some_and(|message| newest.matches(message));
            if is_there {
                (0..count).for_each(|_| drop(list.remove_oldest()));
            }
            is_there
        });
        if is_done {
            let (at, until) = (self.now.to_system(), self.now.plus(self.config.receipt_life()));
            for id in receipts {
                self.set_receipt(session, *id, Receipt::Discarded { reason: DiscardReason::Purged, at }, until);
            }
            // A change of the queue, as Redis announces it.
            self.store.changes.push(Change::Pushed(session.clone()));
        }
        is_done
    }

    /// Writes the record of a server process.
    pub fn announce_server(&mut self, record: &ServerRecord) {
        let until = self.now.plus(record.life());
        self.store.servers.retain(|_, (_, until)| *until > self.now);
        self.store.servers.insert(record.id, (record.clone(), until));
    }

    /// Removes the record of a server process.
    pub fn withdraw_server(&mut self, server: ServerId) {
        self.store.servers.remove(&server);
    }

    /// Returns the records of the server processes, in the order of their numbers.
    pub fn servers(&mut self) -> Vec<ServerRecord> {
        let live = self.store.servers.values().filter(|(_, until)| *until > self.now);
        let aged = live.map(|(record, until)| {
            let age = record.life().saturating_sub(until.since(self.now));
            ServerRecord { age, ..record.clone() }
        });
        let mut records: Vec<ServerRecord> = aged.collect();
        records.sort_by_key(|record| record.id);
        records.truncate(SERVERS_MAX);
        records
    }

    /// Adds the traces of a session's id in this store, whose caller has the prefix `own`.
    pub(in crate::backend::memory) fn find_id(&mut self, session: &SessionId, own: &str, same: &mut SameId) {
        let prefix = self.store.keys.prefix().to_owned();
        let there = self.list_sessions(None, usize::MAX);
        for facts in there.into_iter().filter(|facts| facts.session.as_str() == session.as_str()) {
            let found = SessionKey { prefix: prefix.clone(), session: facts.session, kind: SessionKeyKind::Queue };
            same.add(found, own, session);
        }
        if prefix == own {
            same.receipts = self.receipts_of(session);
            same.receipts.truncate(FOUND_MAX);
        }
    }
}
