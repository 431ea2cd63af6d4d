//! Interventions from outside this crate, for tests: a foreign producer, an operator, a Redis that lost its data. And
//! reads of the stored state.

use super::{Change, Moment, Store};
use crate::backend::{Item, OwnerToken};
use crate::envelope::Timestamp;
use crate::session_id::SessionId;

impl Store {
    /// Returns the messages of a queue, the oldest first. Messages that expired since the last operation are among
    /// them.
    pub fn messages(&self, session: &SessionId) -> impl Iterator<Item = &[u8]> {
        self.lists.get(session).into_iter().flat_map(|list| list.messages.iter().map(Vec::as_slice))
    }

    /// Returns the holder of a lease and the end of the lease, as they were after the last operation.
    pub fn lease(&self, session: &SessionId) -> Option<(OwnerToken, Timestamp)> {
        self.lists.get(session)?.lease.as_ref().map(|lease| (lease.owner, lease.until))
    }

    /// Forgets everything, as `FLUSHALL` does.
    pub fn flush(&mut self) {
        let leases = self.lists.drain().filter_map(|(session, list)| Some((session, list.lease?.owner)));
        self.changes.extend(leases.map(|(session, owner)| Change::LeaseEnded(session, owner)));
        self.receipts = Default::default();
        #[cfg(feature = "elicitation")]
        self.tasks.clear();
        self.sessions.clear();
        self.servers.clear();
    }
}

impl Moment<'_> {
    /// Forgets everything, as `FLUSHALL` does.
    pub fn flush(&mut self) {
        self.store.flush();
    }

    /// Pushes bytes of any kind, as a foreign producer's `LPUSH` does. A new list gets no expiry.
    pub fn push_raw(&mut self, session: &SessionId, message: &[u8]) {
        self.with_list(session, |_, list| list.push(message.to_vec()));
        self.store.changes.push(Change::Pushed(session.clone()));
    }

    /// Reads the oldest messages, whoever holds the lease, as a plain `LRANGE` does.
    pub fn read(&mut self, session: &SessionId) -> Vec<Item> {
        let queue = self.store.keys.of(session).queue;
        self.with_list(session, |moment, list| moment.batch(&queue, list, 0))
    }

    /// Sets the expiry of a queue that is not empty, as a foreign producer's `EXPIRE` does.
    pub fn expire_queue(&mut self, session: &SessionId, after: std::time::Duration) {
        let at = self.now.plus(after);
        self.with_list(session, |_, list| list.expires = Some(at));
    }

    /// Deletes a queue, as `DEL` does.
    pub fn delete_queue(&mut self, session: &SessionId) {
        self.with_list(session, |_, list| {
            list.messages.clear();
            list.bytes = 0;
        });
    }

    /// Deletes a lease, as `DEL` or an eviction does.
    pub fn delete_lease(&mut self, session: &SessionId) {
        self.with_list(session, |moment, list| moment.end_lease(session, list));
    }
}
