//! What became of a notification, for its producer.

use std::time::Duration;

use super::Publisher;
use crate::failure::QueueError;
use crate::fate::Receipt;
use crate::notification::NotificationId;
use crate::session_id::SessionId;

impl Publisher {
    /// What has become of a notification that was pushed [`with_receipt`](crate::Notification::with_receipt).
    ///
    /// It can be asked by any process, for [`Config::receipt_life`](crate::Config::receipt_life) after it was settled; then
    /// it is [`Receipt::Unknown`]. An [`Expired`](Receipt::Expired) one that a server had in hand can still become
    /// [`Delivered`](Receipt::Delivered).
    ///
    /// # Errors
    /// [`QueueError`] where the receipt cannot be read.
    ///
    /// # Cancellation
    /// Nothing remains.
    pub async fn receipt(&self, session: &SessionId, id: NotificationId) -> Result<Receipt, QueueError> {
        self.queue.receipt(session, id).await.map(|(receipt, _)| receipt)
    }

    /// Waits until nothing more is to be expected of a notification, at most for `timeout`, and says what has become of it
    /// by then. A queue that fails meanwhile is waited for; one that is silent at the end can take 10 s more. Any number of
    /// these wait on one connection.
    ///
    /// # Errors
    /// [`QueueError`] where the receipt cannot be read at the end of the time.
    ///
    /// # Cancellation
    /// Nothing remains.
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
