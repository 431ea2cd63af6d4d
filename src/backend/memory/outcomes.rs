//! Outcomes of notifications, in the memory of one process.

use std::time::Duration;

use async_trait::async_trait;

use super::{Change, MemoryBackend};
use crate::backend::{Mark, Outcomes, Redrove, StoredLetter};
use crate::envelope::{Draft, Timestamp};
use crate::failure::QueueError;
use crate::notification::NotificationId;
use crate::outcome::Receipt;
use crate::session_id::SessionId;

/// Shortest pause between two reads of a receipt that does not change.
const LOOK: Duration = Duration::from_secs(1);

#[async_trait]
impl Outcomes for MemoryBackend {
    async fn receipt(&self, session: &SessionId, id: NotificationId) -> Result<(Receipt, Timestamp), QueueError> {
        Ok(self.step(|moment| (moment.receipt(session, id), moment.now())))
    }

    async fn until_settled(&self, session: &SessionId, id: NotificationId) -> Receipt {
        let watch = self.shared.watch(Change::Receipt(session.clone(), id));
        loop {
            let changed = watch.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.step(|moment| (moment.receipt(session, id), moment.now())) {
                (Receipt::Queued { expires_at }, now) => {
                    let left = expires_at.duration_since(now.to_system()).unwrap_or_default();
                    let _ = tokio::time::timeout(left.max(LOOK), changed).await;
                }
                (settled, _) => return settled,
            }
        }
    }

    async fn dead_letters(
        &self,
        session: &SessionId,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<StoredLetter>, Timestamp), QueueError> {
        Ok(self.step(|moment| (moment.dead_letters(session, skip, limit), moment.now())))
    }

    async fn redrive(
        &self,
        session: &SessionId,
        skip: usize,
        letter: &Mark,
        draft: &Draft,
    ) -> Result<Redrove, QueueError> {
        Ok(self.step(|moment| moment.redrive(session, skip, letter, draft)))
    }

    async fn purge(&self, session: &SessionId) -> Result<usize, QueueError> {
        Ok(self.step(|moment| moment.purge(session)))
    }

    async fn sessions_with_dead_letters(&self) -> Result<Vec<SessionId>, QueueError> {
        Ok(self.step(|moment| moment.sessions_with_dead_letters()))
    }
}
