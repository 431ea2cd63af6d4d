//! Sessions in the memory of one process, and the news of their ends.

use async_trait::async_trait;

use super::{MemoryBackend, State};
use crate::backend::fleet::{Fleet, News, NewsReceiver, ProcessId, Remembered, news_channel};
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
    async fn remember(&self, session: &SessionId, state: &str) -> Result<bool, QueueError> {
        Ok(self.step(|moment| moment.remember(session, state)))
    }

    async fn recall(&self, session: &SessionId) -> Result<Option<String>, QueueError> {
        Ok(self.step(|moment| moment.recall(session)))
    }

    async fn keep(&self, all: &[SessionId]) -> Result<Vec<Remembered>, QueueError> {
        Ok(self.step(|moment| moment.keep(all)))
    }

    async fn look_up(&self, all: &[SessionId]) -> Result<Vec<Remembered>, QueueError> {
        Ok(self.step(|moment| moment.look_up(all)))
    }

    async fn knows_all(&self, all: &[SessionId]) -> Result<bool, QueueError> {
        Ok(self.step(|moment| !moment.look_up(all).contains(&Remembered::Unknown)))
    }

    async fn forget(&self, session: &SessionId, by: ProcessId, is_known: bool) -> Result<bool, QueueError> {
        let has_ended = self.step(|moment| moment.forget(session, is_known));
        if has_ended {
            lock(&self.shared.state).publish(None, &News::Ended(session.clone(), by));
        }
        Ok(has_ended)
    }

    async fn has_others(&self) -> Result<bool, QueueError> {
        // All processes that share this backend are one process.
        Ok(false)
    }

    async fn confirmed(&self, process: ProcessId, session: &SessionId, ping: u128) -> Result<(), QueueError> {
        lock(&self.shared.state).publish(Some(process), &News::Confirmed(session.clone(), ping));
        Ok(())
    }

    fn listen(&self, process: ProcessId) -> NewsReceiver {
        let (sender, receiver) = news_channel();
        lock(&self.shared.state).listeners.push((process, sender));
        receiver
    }
}
