//! Receipts of notifications, for their producers.

use std::time::Duration;

use super::Publisher;
use crate::failure::QueueError;
use crate::notification::NotificationId;
use crate::outcome::Receipt;
use crate::session_id::SessionId;

impl Publisher {
    /// Returns the receipt of a notification that was pushed [`with_receipt`](crate::Notification::with_receipt).
    ///
    /// Any process can ask, for [`Config::receipt_life`](crate::Config::receipt_life) after the notification was
    /// settled. Later the receipt is [`Receipt::Unknown`]. An [`Expired`](Receipt::Expired) notification that a server
    /// was delivering can still become [`Delivered`](Receipt::Delivered).
    ///
    /// # Errors
    /// [`QueueError`] where the receipt cannot be read.
    ///
    /// # Cancellation
    /// Dropping the future has no effect on the receipt.
    pub async fn receipt(&self, session: &SessionId, id: NotificationId) -> Result<Receipt, QueueError> {
        self.queue.receipt(session, id).await.map(|(receipt, _)| receipt)
    }

    /// Waits until the receipt of a notification is settled, for at most `timeout`, and returns the receipt at that
    /// time.
    ///
    /// A queue that fails meanwhile is tried again. A queue that is silent at the end can delay the result by 10 s. Any
    /// number of these calls wait on one connection.
    ///
    /// # Errors
    /// [`QueueError`] where the receipt cannot be read at the end of the time.
    ///
    /// # Cancellation
    /// Dropping the future has no effect on the receipt.
    pub async fn until_settled(
        &self,
        session: &SessionId,
        id: NotificationId,
        timeout: Duration,
    ) -> Result<Receipt, QueueError> {
        match tokio::time::timeout(timeout, self.queue.until_settled(session, id)).await {
            Ok(settled) => Ok(settled),
            Err(_) => self.receipt(session, id).await,
        }
    }
}
