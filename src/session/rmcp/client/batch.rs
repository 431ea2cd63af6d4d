//! Handing over to a client: a batch down one stream, and its confirmation on that same one.

use std::future::Future;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::{ClientSession, PING};
use crate::config::DeliveryLevel;
use crate::question::{Answer, Question};
use crate::session::{AskError, HandOverError, McpSession, Outbound, Presence};

/// Returns the nonce of a ping, with 122 random bits. No other ping ever has it: a session may end and be restored in the same
/// process, and a late answer to a ping of the ended one must confirm nothing. Nobody can guess it: news are easily forged.
fn nonce() -> u128 {
    Uuid::new_v4().as_u128()
}

/// Longest time until the first ping of a confirmation is repeated: its answer may get lost on the way here.
const PING_AGAIN: Duration = Duration::from_secs(1);

/// Factor from the pause behind one ping to the pause behind the next.
const PING_BACKOFF: u32 = 3;

/// Returns how long an answer is awaited behind each ping of a confirmation that may take `limit`: 1 s, 3 s, 9 s and so on,
/// and the rest of the time behind the last. Where the limit is short the pauses are a tenth of it and more.
fn ping_pauses(limit: Duration) -> impl Iterator<Item = Duration> {
    let first = PING_AGAIN.min(limit / 10).max(Duration::from_millis(1));
    std::iter::successors(Some(first), |pause| Some(*pause * PING_BACKOFF))
}

/// Stream that gets what is handed over between two confirmations.
#[derive(Clone)]
pub(super) struct Batch {
    number: u64,
    sender: mpsc::Sender<String>,
    is_layered: bool,
    open: watch::Receiver<()>,
}

enum Waited<T> {
    Done(T),
    TooLong,
    Closed,
    /// The client has a newer stream.
    Superseded,
}

impl ClientSession {
    /// Returns the stream for the next message: that of the batch, or the newest if this is its first.
    fn batch(&self) -> Result<Batch, HandOverError> {
        let state = self.state();
        let Some(newest) = state.streams.last() else {
            return Err(HandOverError::NotReady("no stream is open".to_owned()));
        };
        match &state.batch {
            Some(batch) if batch.number != newest.number => Err(self.superseded()),
            Some(batch) => Ok(batch.clone()),
            None => Ok(Batch {
                number: newest.number,
                sender: newest.sender.clone(),
                is_layered: newest.is_layered,
                open: newest.open.subscribe(),
            }),
        }
    }

    /// Does something with the stream of a batch, within a time, while it is open and no newer one is. The client may have
    /// opened a newer stream because this one is dead, so what was sent comes again down that one.
    async fn within<T>(&self, batch: &Batch, limit: Duration, what: impl Future<Output = T>) -> Waited<T> {
        let mut open = batch.open.clone();
        tokio::select! {
            biased;
            done = tokio::time::timeout(limit, what) => done.map_or(Waited::TooLong, Waited::Done),
            // Nothing is ever sent: the wait ends when the stream does.
            _ = open.changed() => Waited::Closed,
            () = self.newer_than(batch.number) => Waited::Superseded,
        }
    }

    async fn send(&self, batch: &Batch, message: String, limit: Duration) -> Result<(), HandOverError> {
        match self.within(batch, limit, batch.sender.send(message)).await {
            Waited::Done(Ok(())) => Ok(()),
            Waited::Done(Err(_)) | Waited::Closed => Err(self.gone()),
            Waited::Superseded => Err(self.superseded()),
            Waited::TooLong => Err(self.cut(batch.number, "does not read its stream")),
        }
    }

    async fn send_next(&self, notification: &Outbound) -> Result<(), HandOverError> {
        let batch = self.batch()?;
        // Without the layer the message goes through rmcp, which cannot hold every number.
        if !batch.is_layered {
            let _: Value = notification
                .parse_params()
                .map_err(|error| HandOverError::Rejected(format!("the params cannot be read: {error}")))?;
        }
        self.send(&batch, notification.to_json(), self.limit).await?;
        self.state().batch = Some(batch);
        Ok(())
    }

    async fn ping(&self, batch: &Batch) -> Result<(), HandOverError> {
        let (confirmed, mut confirmation) = oneshot::channel();
        // All of it has the time of one call, behind which the caller would drop this half-way.
        let begun = Instant::now();
        let left = || self.limit.saturating_sub(begun.elapsed());
        self.state().confirming = Some((Vec::new(), confirmed));
        for pause in ping_pauses(self.limit) {
            let nonce = nonce();
            if let Some((nonces, _)) = &mut self.state().confirming {
                nonces.push(nonce);
            }
            let id = format!("{PING}{}:{nonce}", self.process);
            let ping = json!({"jsonrpc": "2.0", "id": id, "method": "ping"}).to_string();
            self.send(batch, ping, left()).await?;
            let is_last = pause >= left();
            match self.within(batch, pause.min(left()), &mut confirmation).await {
                Waited::Done(Ok(())) => return Ok(()),
                Waited::Done(Err(_)) | Waited::Closed => return Err(self.gone()),
                Waited::Superseded => return Err(self.superseded()),
                Waited::TooLong if is_last => return Err(self.cut(batch.number, "does not answer a ping")),
                Waited::TooLong => {}
            }
        }
        Err(self.gone())
    }

    /// Confirms the batch under way, if the client has answered a ping that was sent behind it. The answer to any other
    /// ping, late, repeated or invented, confirms nothing.
    pub(in crate::session::rmcp) fn confirmed(&self, ping: u128) {
        let mut state = self.state();
        match state.confirming.take() {
            Some((nonces, confirmed)) if nonces.contains(&ping) => {
                // Whoever asked may have given up just now.
                let _ = confirmed.send(());
            }
            other => state.confirming = other,
        }
    }

    async fn pulled(&self, batch: &Batch) -> Result<(), HandOverError> {
        // Room in a channel of capacity 1 says that the last one is out.
        match self.within(batch, self.limit, batch.sender.reserve()).await {
            Waited::Done(Ok(_)) => Ok(()),
            Waited::Done(Err(_)) | Waited::Closed => Err(self.gone()),
            Waited::Superseded => Err(self.superseded()),
            Waited::TooLong => Err(self.cut(batch.number, "does not read its stream")),
        }
    }

    fn superseded(&self) -> HandOverError {
        HandOverError::NotReady("the client has a newer stream".to_owned())
    }

    fn gone(&self) -> HandOverError {
        HandOverError::NotReady("the stream has ended".to_owned())
    }

    /// Ends a stream whose reader is stalled: the session's other calls must not wait for it.
    fn cut(&self, number: u64, why: &str) -> HandOverError {
        self.close(number);
        HandOverError::NotReady(format!("the client {why} within {:?}; its stream is cut", self.limit))
    }
}

#[async_trait]
impl McpSession for ClientSession {
    async fn elicit(&self, question: &Question) -> Result<Answer, AskError> {
        self.ask(question).await
    }

    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        let sent = self.send_next(notification).await;
        // What was sent before a rejected message can still be confirmed. Behind any other failure a confirmation would be
        // asked of, and given by, the client's next stream.
        if !matches!(sent, Ok(()) | Err(HandOverError::Rejected(_))) {
            self.state().batch = None;
        }
        sent
    }

    async fn confirm(&self) -> Result<(), HandOverError> {
        // Taken first: should this future be dropped, nothing of the batch is left for the next one.
        let batch = self.state().batch.take().ok_or_else(|| self.gone())?;
        match self.level {
            DeliveryLevel::Confirmed => self.ping(&batch).await,
            DeliveryLevel::Pulled => self.pulled(&batch).await,
        }
    }

    fn presence(&self) -> Presence {
        self.presence.presence()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_repeated_after_1_3_and_9_seconds_and_sooner_where_the_time_is_short() {
        let pauses = |limit: u64| ping_pauses(Duration::from_millis(limit)).take(3).map(|p| p.as_millis());
        assert!(pauses(30_000).eq([1000, 3000, 9000]));
        assert!(pauses(3_600_000).eq([1000, 3000, 9000]));
        assert!(pauses(300).eq([30, 90, 270]));
        assert!(pauses(10).eq([1, 3, 9]));
    }
}
