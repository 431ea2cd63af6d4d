//! Queue of one session in memory, opened for one owner.
//!
//! An operation and the news of it to the permit are one step under the lock of the store. No claim can come between an
//! answer and its permit. So the doubts about a lease that Redis needs, and their marks, have no counterpart here: each
//! answer settles all doubts so far.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Change, Moment, Shared};
use crate::backend::{Behind, Consumer, Delivered, LeaseState, Mark, OwnerToken, Permit, Replaced, Taken};
use crate::config::Config;
use crate::failure::QueueError;
use crate::session_id::SessionId;

/// Consumer of one session's queue in a shared store.
pub(super) struct MemoryConsumer {
    pub(super) shared: Arc<Shared>,
    pub(super) config: Arc<Config>,
    pub(super) session: SessionId,
    pub(super) owner: OwnerToken,
    pub(super) permit: Arc<Permit>,
}

impl MemoryConsumer {
    fn step<T>(&self, operation: impl FnOnce(&mut Moment<'_>, &SessionId) -> T, then: impl FnOnce(&T)) -> T {
        self.shared.step_then(&self.config, |moment| operation(moment, &self.session), then)
    }

    /// Informs the permit that the lease was written just now. All suspensions so far are older than that write.
    fn renewed(&self) {
        self.permit.renewed(Instant::now().into_std(), self.config.lease(), self.permit.mark());
    }

    fn look(&self, delivered: Option<&Delivered>, behind: Option<&Behind>, reclaim: bool) -> Taken {
        self.step(
            |moment, session| moment.take_behind(session, self.owner, delivered, behind, reclaim),
            |taken| match taken.lease {
                LeaseState::Reclaimed => self.renewed(),
                LeaseState::Held => self.permit.confirmed(self.permit.mark()),
                LeaseState::Absent | LeaseState::Lost => self.permit.revoke(),
            },
        )
    }

    async fn until_pushed(&self, block: Duration) {
        let watch = self.shared.watch(Change::Pushed(self.session.clone()));
        let pushed = watch.changed.notified();
        tokio::pin!(pushed);
        pushed.as_mut().enable();
        if self.step(|moment, session| moment.is_empty(session), |_| {}) {
            let _ = tokio::time::timeout(block, pushed).await;
        }
    }
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn claim(&mut self) -> Result<bool, QueueError> {
        Ok(self.step(|moment, session| moment.claim(session, self.owner), |_| self.renewed()))
    }

    async fn renew(&mut self) -> Result<LeaseState, QueueError> {
        let renewed = |state: &LeaseState| if state.is_held() { self.renewed() } else { self.permit.revoke() };
        let state = self.step(|moment, session| moment.renew(session, self.owner), renewed);
        Ok(state)
    }

    async fn take_behind(
        &mut self,
        delivered: Option<&Delivered>,
        behind: Option<&Behind>,
    ) -> Result<Taken, QueueError> {
        Ok(self.look(delivered, behind, true))
    }

    async fn wait(&mut self, block: Duration) -> Result<Taken, QueueError> {
        self.until_pushed(block).await;
        Ok(self.look(None, None, false))
    }

    async fn replace_oldest(&mut self, oldest: &Mark, replacement: Vec<u8>) -> Result<Replaced, QueueError> {
        let replace =
            |moment: &mut Moment<'_>, session: &_| moment.replace_oldest(session, self.owner, oldest, replacement);
        Ok(self.step(replace, |_| {}))
    }
}
