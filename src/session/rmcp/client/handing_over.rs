//! Handing over to a client: messages down one stream, and their confirmation on that same one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::delivery::Break;
use super::{ClientSession, PING};
use crate::config::DeliveryLevel;
use crate::question::{Answer, Question};
use crate::session::rmcp::frames::{Frames, Full};
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

/// Call that awaits a confirmation.
struct Confirming<'a> {
    session: &'a ClientSession,
    /// Nonce of its first ping.
    first: u128,
    waiting: oneshot::Receiver<Result<(), Break>>,
    /// Stream that got the messages, and the place behind them.
    stream: u64,
    frames: Arc<Frames>,
    place: u64,
}

impl Drop for Confirming<'_> {
    fn drop(&mut self) {
        self.session.lines().delivery.forget(self.first);
    }
}

impl ClientSession {
    async fn send(&self, notification: &Outbound) -> Result<(), HandOverError> {
        let mut begun = None;
        loop {
            let (stream, frames) = {
                let lines = &mut *self.lines();
                lines.delivery.admit().map_err(|why| self.not_ready(why))?;
                let no_stream = || HandOverError::NotReady("no stream is open".to_owned());
                let newest = lines.streams.newest().ok_or_else(no_stream)?;
                // Without the layer the message goes through rmcp, which cannot hold every number.
                if !newest.is_layered {
                    let _: Value = notification
                        .parse_params()
                        .map_err(|error| HandOverError::Rejected(format!("the params cannot be read: {error}")))?;
                }
                match newest.frames.hand_over(notification) {
                    Ok(()) => {
                        lines.delivery.handed_over(newest.number);
                        return Ok(());
                    }
                    Err(Full) => (newest.number, Arc::clone(&newest.frames)),
                }
            };
            let left = self.limit.saturating_sub(begun.get_or_insert_with(Instant::now).elapsed());
            if tokio::time::timeout(left, frames.room()).await.is_err() {
                return Err(self.cut(stream, Break::Unread));
            }
        }
    }

    /// Has a ping, and so what was sent before it, confirmed.
    async fn await_answer(&self, confirming: &mut Confirming<'_>) -> Result<(), HandOverError> {
        // All of it has the time of one call, behind which the caller would drop this half-way.
        let begun = Instant::now();
        for pause in ping_pauses(self.limit) {
            let left = self.limit.saturating_sub(begun.elapsed());
            match tokio::time::timeout(pause.min(left), &mut confirming.waiting).await {
                Ok(answered) => return self.outcome(answered),
                Err(_) if pause >= left => break,
                Err(_) => self.ping_again(confirming.first),
            }
        }
        Err(self.cut(confirming.stream, Break::Unanswered))
    }

    /// Waits until the reader of the stream has taken all that was sent.
    async fn await_reader(&self, confirming: &mut Confirming<'_>) -> Result<(), HandOverError> {
        let Confirming { first, waiting, stream, frames, place, .. } = confirming;
        let taken = async {
            tokio::select! {
                // Biased: what is dropped is not taken.
                biased;
                broken = waiting => self.outcome(broken),
                () = frames.taken(*place) => {
                    self.confirmed(*first);
                    Ok(())
                }
            }
        };
        match tokio::time::timeout(self.limit, taken).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.cut(*stream, Break::Unread)),
        }
    }

    /// Begins to await a confirmation of all that was handed over before, and has the reader of the stream take it.
    fn begin_to_confirm(&self) -> Result<Confirming<'_>, HandOverError> {
        let (first, (waiter, waiting)) = (nonce(), oneshot::channel());
        let lines = &mut *self.lines();
        let confirmed = lines.delivery.confirm(first, waiter);
        let stream = confirmed.map_err(|why| self.not_ready(why))?;
        let newest = lines.streams.newest().filter(|newest| newest.number == stream);
        let frames = Arc::clone(&newest.ok_or_else(|| self.not_ready(Break::Ended))?.frames);
        let place = match self.level {
            DeliveryLevel::Confirmed => frames.ping(&self.ping(first)),
            DeliveryLevel::Pulled => frames.flush(),
        };
        Ok(Confirming { session: self, first, waiting, stream, frames, place })
    }

    fn ping_again(&self, first: u128) {
        let nonce = nonce();
        let lines = &mut *self.lines();
        let stream = lines.delivery.ping_again(first, nonce);
        if let Some(newest) = lines.streams.newest().filter(|newest| Some(newest.number) == stream) {
            newest.frames.ping(&self.ping(nonce));
        }
    }

    fn ping(&self, nonce: u128) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":"{PING}{}:{nonce}","method":"ping"}}"#, self.process)
    }

    /// Confirms what was handed over before a ping that the client has answered.
    pub(in crate::session::rmcp) fn confirmed(&self, ping: u128) {
        let confirmed = self.lines().delivery.answered(ping);
        for waiter in confirmed {
            // Whoever asked may have given up just now.
            let _ = waiter.send(Ok(()));
        }
    }

    fn outcome(&self, answered: Result<Result<(), Break>, oneshot::error::RecvError>) -> Result<(), HandOverError> {
        answered.unwrap_or(Err(Break::Ended)).map_err(|why| self.not_ready(why))
    }

    fn not_ready(&self, why: Break) -> HandOverError {
        HandOverError::NotReady(match why {
            Break::Superseded => "the client has a newer stream".to_owned(),
            Break::Ended => "the stream has ended".to_owned(),
            Break::Unread => format!("the client does not read its stream within {:?}; the stream is cut", self.limit),
            Break::Unanswered => format!("the client answers no ping within {:?}; its stream is cut", self.limit),
        })
    }

    /// Ends a stream whose reader is stalled: the session's other calls must not wait for it.
    fn cut(&self, number: u64, why: Break) -> HandOverError {
        self.close_for(number, why);
        self.not_ready(why)
    }
}

#[async_trait]
impl McpSession for ClientSession {
    async fn elicit(&self, question: &Question) -> Result<Answer, AskError> {
        self.ask(question).await
    }

    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        self.send(notification).await
    }

    async fn confirm(&self) -> Result<(), HandOverError> {
        let mut confirming = self.begin_to_confirm()?;
        match self.level {
            DeliveryLevel::Confirmed => self.await_answer(&mut confirming).await,
            DeliveryLevel::Pulled => self.await_reader(&mut confirming).await,
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
