//! Sessions in the memory of one process, and the news of their ends.

use async_trait::async_trait;

use super::{MemoryBackend, State};
use crate::backend::SessionRecord;
use crate::backend::fleet::{Fleet, News, NewsReceiver, ProcessId, news_channel};
use crate::failure::QueueError;
use crate::lock::lock;
use crate::session_id::SessionId;

impl State {
    /// Sends news to all listeners, or to those of one process. Removes listeners that are gone.
    fn publish(&mut self, to: Option<ProcessId>, news: &News) {
        self.listeners.retain(|(process, sender)| {
            if to.is_none_or(|to| to == *process) {
                sender.send(news.clone());
            }
            !sender.is_closed()
        });
    }
}

#[async_trait]
impl Fleet for MemoryBackend {
    async fn store_session(&self, session: &SessionId, state: &str) -> Result<bool, QueueError> {
        Ok(self.step(|moment| moment.store_session(session, state)))
    }

    async fn load_session(&self, session: &SessionId) -> Result<Option<String>, QueueError> {
        Ok(self.step(|moment| moment.load_session(session)))
    }

    async fn refresh_sessions(&self, all: &[SessionId]) -> Result<Vec<SessionRecord>, QueueError> {
        Ok(self.step(|moment| moment.refresh_sessions(all)))
    }

    async fn look_up_sessions(&self, all: &[SessionId]) -> Result<Vec<SessionRecord>, QueueError> {
        Ok(self.step(|moment| moment.look_up_sessions(all)))
    }

    async fn knows_all(&self, all: &[SessionId]) -> Result<bool, QueueError> {
        Ok(self.step(|moment| !moment.look_up_sessions(all).contains(&SessionRecord::Unknown)))
    }

    async fn end_session(&self, session: &SessionId, by: ProcessId, is_known: bool) -> Result<bool, QueueError> {
        let has_ended = self.step(|moment| moment.end_session(session, is_known));
        if has_ended {
            lock(&self.shared.state).publish(None, &News::Ended(session.clone(), by));
        }
        Ok(has_ended)
    }

    async fn has_others(&self) -> Result<bool, QueueError> {
        // All processes that share this backend are one process.
        Ok(false)
    }

    async fn announce_confirmation(
        &self,
        process: ProcessId,
        session: &SessionId,
        ping: u128,
    ) -> Result<(), QueueError> {
        lock(&self.shared.state).publish(Some(process), &News::Confirmed(session.clone(), ping));
        Ok(())
    }

    fn listen(&self, process: ProcessId) -> NewsReceiver {
        let (sender, receiver) = news_channel();
        lock(&self.shared.state).listeners.push((process, sender));
        receiver
    }
}
