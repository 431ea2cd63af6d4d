//! Channel for news within a process: bounded, and never blocking for the sender.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::News;

/// Largest number of news that wait for their receiver.
const CAPACITY: usize = 1024;

/// Makes a channel for news.
pub(crate) fn news_channel() -> (NewsSender, NewsReceiver) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let overflown = Arc::new(Notify::new());
    (NewsSender { sender, overflown: Arc::clone(&overflown) }, NewsReceiver { receiver, overflown })
}

/// Sending half of a channel for news.
#[derive(Debug, Clone)]
pub(crate) struct NewsSender {
    sender: mpsc::Sender<News>,
    /// Notified where news were dropped, because the channel was full.
    overflown: Arc<Notify>,
}

impl NewsSender {
    /// Sends news. Where too many news wait, the news is dropped and the receiver gets [`News::Missed`].
    pub(crate) fn send(&self, news: News) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(news) {
            self.overflow();
        }
    }

    /// Notes that news were dropped, and wakes the receiver: it may have read all the others meanwhile, and wait.
    fn overflow(&self) {
        self.overflown.notify_one();
    }

    /// Returns whether the receiver is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Waits until the receiver is gone.
    pub(crate) async fn closed(&self) {
        self.sender.closed().await;
    }
}

/// Receiver of the news from other processes: see [`Fleet::listen`](super::Fleet::listen).
#[derive(Debug)]
pub struct NewsReceiver {
    receiver: mpsc::Receiver<News>,
    /// Notified where news were dropped. The notification is stored until the receiver returns [`News::Missed`].
    overflown: Arc<Notify>,
}

impl NewsReceiver {
    /// Returns the next news; `None` when nobody can send any more.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn recv(&mut self) -> Option<News> {
        tokio::select! {
            biased;
            () = self.overflown.notified() => Some(News::Missed),
            news = self.receiver.recv() => news,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::session_id::SessionId;

    #[tokio::test]
    async fn what_overflows_asks_for_a_new_look_once() {
        let (sender, mut receiver) = news_channel();
        let session = SessionId::new("s").unwrap();
        for ping in 0..10 * CAPACITY as u128 {
            sender.send(News::Confirmed(session.clone(), ping));
        }
        assert_eq!(receiver.recv().await, Some(News::Missed));
        for ping in 0..CAPACITY as u128 {
            assert_eq!(receiver.recv().await, Some(News::Confirmed(session.clone(), ping)));
        }
        drop(sender);
        assert_eq!(receiver.recv().await, None);
    }

    #[tokio::test]
    async fn what_overflows_wakes_a_receiver_that_waits_already() {
        let (sender, mut receiver) = news_channel();
        {
            let next = receiver.recv();
            tokio::pin!(next);
            assert!((&mut next).now_or_never().is_none());
            // The sender found the channel full, and then the receiver read all that was in it.
            sender.overflow();
            let woken = tokio::time::timeout(std::time::Duration::from_secs(5), next).await;
            assert_eq!(woken.expect("it is woken"), Some(News::Missed));
        }
        assert!(receiver.recv().now_or_never().is_none(), "and once only");
    }
}
