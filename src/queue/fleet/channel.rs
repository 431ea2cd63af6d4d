//! The channel that news come through inside a process: bounded, and never blocking for whoever sends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::News;

/// Number of news that wait at most for their receiver.
const CAPACITY: usize = 1024;

/// Makes a channel for news.
pub(crate) fn news_channel() -> (NewsSender, NewsReceiver) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let is_overflown = Arc::new(AtomicBool::new(false));
    let for_sender = Arc::clone(&is_overflown);
    (NewsSender { sender, is_overflown: for_sender }, NewsReceiver { receiver, is_overflown })
}

/// Sending half of a channel for news.
#[derive(Debug, Clone)]
pub(crate) struct NewsSender {
    sender: mpsc::Sender<News>,
    is_overflown: Arc<AtomicBool>,
}

impl NewsSender {
    /// Sends news, or drops them where too many wait: then the receiver gets [`News::Again`].
    pub(crate) fn send(&self, news: News) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(news) {
            self.is_overflown.store(true, Ordering::Release);
        }
    }

    /// Returns whether the receiver is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Ends when the receiver is gone.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }
}

/// What one process hears from the others: see [`Fleet::listen`](super::Fleet::listen).
#[derive(Debug)]
pub struct NewsReceiver {
    receiver: mpsc::Receiver<News>,
    /// Whether news were dropped since the last [`News::Again`]. Set only while the channel is full, so the receiver does not
    /// wait when that happens.
    is_overflown: Arc<AtomicBool>,
}

impl NewsReceiver {
    /// Returns the next news; `None` when nobody can send any more.
    ///
    /// # Cancellation
    /// Safe: nothing is lost.
    pub async fn recv(&mut self) -> Option<News> {
        if self.is_overflown.swap(false, Ordering::Acquire) {
            return Some(News::Again);
        }
        self.receiver.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session_id::SessionId;

    #[tokio::test]
    async fn what_overflows_asks_for_a_new_look_once() {
        let (sender, mut receiver) = news_channel();
        let session = SessionId::new("s").unwrap();
        for ping in 0..10 * CAPACITY as u128 {
            sender.send(News::Confirmed(session.clone(), ping));
        }
        assert_eq!(receiver.recv().await, Some(News::Again));
        for ping in 0..CAPACITY as u128 {
            assert_eq!(receiver.recv().await, Some(News::Confirmed(session.clone(), ping)));
        }
        drop(sender);
        assert_eq!(receiver.recv().await, None);
    }
}
