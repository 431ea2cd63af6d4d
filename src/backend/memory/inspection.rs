//! Inspection of the queue in memory.

use async_trait::async_trait;

use super::{MemoryBackend, SHARED};
use crate::backend::{Inspection, Mark, Peeked, SameId, ServerRecord, SessionDetails, SessionFacts};
use crate::failure::{QueueError, QueueErrorKind};
use crate::lock::lock;
use crate::notification::NotificationId;
use crate::session_id::SessionId;

#[async_trait]
impl Inspection for MemoryBackend {
    async fn list_sessions(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<SessionFacts>, Option<String>), QueueError> {
        let after: Option<SessionId> = cursor.map(str::parse).transpose().map_err(|_| {
            let why = "a cursor of this queue is a session id; take the one that the page before returned";
            QueueError::new("listing sessions", QueueErrorKind::Refused(why.to_owned()))
        })?;
        let mut listed = self.step(|moment| moment.list_sessions(after.as_ref(), limit.max(1) + 1));
        let has_more = listed.len() > limit.max(1);
        listed.truncate(limit.max(1));
        let next = listed.last().filter(|_| has_more).map(|last| last.session.to_string());
        Ok((listed, next))
    }

    async fn facts(&self, sessions: &[SessionId]) -> Result<Vec<SessionFacts>, QueueError> {
        Ok(self.step(|moment| sessions.iter().map(|session| moment.facts(session)).collect()))
    }

    async fn details(&self, session: &SessionId) -> Result<SessionDetails, QueueError> {
        Ok(self.step(|moment| moment.details(session)))
    }

    async fn peek(&self, session: &SessionId, limit: usize, bytes: usize) -> Result<Peeked, QueueError> {
        Ok(self.step(|moment| moment.peek(session, limit, bytes)))
    }

    async fn purge_queue(
        &self,
        session: &SessionId,
        count: usize,
        newest: &Mark,
        receipts: &[NotificationId],
    ) -> Result<bool, QueueError> {
        Ok(self.step(|moment| moment.purge_queue(session, count, newest, receipts)))
    }

    async fn servers(&self) -> Result<Vec<ServerRecord>, QueueError> {
        Ok(self.step(|moment| moment.servers()))
    }

    async fn find_id(&self, session: &SessionId) -> Result<SameId, QueueError> {
        let (mut same, own) = (SameId::default(), self.config.prefix());
        // The stores of this name under other prefixes are other parts of the same queue.
        let stores: Vec<_> = {
            let all = lock(&SHARED);
            all.iter().filter(|((name, _), _)| *name == self.name).filter_map(|(_, store)| store.upgrade()).collect()
        };
        for store in stores {
            store.step(&self.config, |moment| moment.find_id(session, own, &mut same));
        }
        Ok(same)
    }
}
