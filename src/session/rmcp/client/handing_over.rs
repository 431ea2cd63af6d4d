//! Handing over to a client: messages down one stream, and their confirmation on that same one.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::delivery::Break;
use super::streams::OpenStream;
use super::{ClientSession, PING};
use crate::config::DeliveryLevel;
use crate::question::{Answer, Question};
use crate::session::{AskError, HandOverError, McpSession, Outbound, Presence, SessionState};

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

/// Stream that gets a message.
struct Line {
    number: u64,
    sender: mpsc::Sender<String>,
    is_layered: bool,
    open: watch::Receiver<()>,
}

impl Line {
    fn to(stream: &OpenStream) -> Self {
        let OpenStream { number, sender, is_layered, open, .. } = stream;
        Self { number: *number, sender: sender.clone(), is_layered: *is_layered, open: open.subscribe() }
    }
}

impl ClientSession {
    /// Returns the stream for the next message: the newest.
    fn line(&self) -> Result<Line, HandOverError> {
        let mut lines = self.lines();
        lines.delivery.admit().map_err(|why| self.not_ready(why))?;
        let newest = lines.streams.newest();
        newest.map(Line::to).ok_or_else(|| HandOverError::NotReady("no stream is open".to_owned()))
    }

    /// Waits for room in a stream, within a time, while the stream is open and no newer one is. The client may have opened a
    /// newer stream because this one is dead, so what was sent comes again down that one.
    async fn room<'a>(&self, line: &'a Line, limit: Duration) -> Result<mpsc::Permit<'a, String>, HandOverError> {
        let mut open = line.open.clone();
        tokio::select! {
            biased;
            room = tokio::time::timeout(limit, line.sender.reserve()) => match room {
                Ok(Ok(room)) => Ok(room),
                Ok(Err(_)) => Err(self.not_ready(Break::Ended)),
                Err(_) => Err(self.cut(line.number, Break::Unread)),
            },
            // Nothing is ever sent: the wait ends when the stream does.
            _ = open.changed() => Err(self.not_ready(Break::Ended)),
            () = self.newer_than(line.number) => Err(self.not_ready(Break::Superseded)),
        }
    }

    async fn send_next(&self, notification: &Outbound) -> Result<(), HandOverError> {
        let line = self.line()?;
        // Without the layer the message goes through rmcp, which cannot hold every number.
        if !line.is_layered {
            let _: Value = notification
                .parse_params()
                .map_err(|error| HandOverError::Rejected(format!("the params cannot be read: {error}")))?;
        }
        let room = self.room(&line, self.limit).await?;
        let mut lines = self.lines();
        lines.delivery.admit().map_err(|why| self.not_ready(why))?;
        if lines.streams.newest().is_none_or(|newest| newest.number != line.number) {
            return Err(self.not_ready(Break::Superseded));
        }
        lines.delivery.handed_over(line.number);
        room.send(notification.to_json());
        Ok(())
    }

    /// Has a ping, and what was sent before it, confirmed.
    async fn ping(&self) -> Result<(), HandOverError> {
        // All of it has the time of one call, behind which the caller would drop this half-way.
        let begun = Instant::now();
        let left = || self.limit.saturating_sub(begun.elapsed());
        let (mut confirming, mut line) = self.begin_to_confirm()?;
        let mut nonce = confirming.first;
        for pause in ping_pauses(self.limit) {
            let id = format!("{PING}{}:{nonce}", self.process);
            let ping = json!({"jsonrpc": "2.0", "id": id, "method": "ping"}).to_string();
            self.room(&line, left()).await?.send(ping);
            let is_last = pause >= left();
            match tokio::time::timeout(pause.min(left()), &mut confirming.waiting).await {
                Ok(Ok(confirmed)) => return confirmed.map_err(|why| self.not_ready(why)),
                Err(_) if is_last => return Err(self.cut(line.number, Break::Unanswered)),
                Err(_) => {}
                // The same as where it is answered by none.
                Ok(Err(_)) => break,
            }
            nonce = self::nonce();
            let mut lines = self.lines();
            let stream = lines.delivery.ping_again(confirming.first, nonce);
            match lines.streams.newest().filter(|newest| Some(newest.number) == stream) {
                Some(stream) => line = Line::to(stream),
                None => continue,
            }
        }
        Err(self.not_ready(Break::Ended))
    }

    fn begin_to_confirm(&self) -> Result<(Confirming<'_>, Line), HandOverError> {
        let (first, (waiter, waiting)) = (nonce(), oneshot::channel());
        let mut lines = self.lines();
        let stream = lines.delivery.confirm(first, waiter).map_err(|why| self.not_ready(why))?;
        let newest = lines.streams.newest().filter(|newest| newest.number == stream);
        let line = newest.map(Line::to).ok_or_else(|| self.not_ready(Break::Ended))?;
        drop(lines);
        Ok((Confirming { session: self, first, waiting }, line))
    }

    /// Confirms what was handed over before a ping that the client has answered.
    pub(in crate::session::rmcp) fn confirmed(&self, ping: u128) {
        let confirmed = self.lines().delivery.answered(ping);
        for waiter in confirmed {
            // Whoever asked may have given up just now.
            let _ = waiter.send(Ok(()));
        }
    }

    async fn pulled(&self) -> Result<(), HandOverError> {
        let (confirming, line) = self.begin_to_confirm()?;
        // Room in a channel of capacity 1 says that the last one is out.
        let room = self.room(&line, self.limit).await?;
        drop(room);
        self.confirmed(confirming.first);
        Ok(())
    }

    /// Ends when the client has a stream that is newer than this.
    async fn newer_than(&self, number: u64) {
        let mut presence = self.presence.presence();
        loop {
            let seen = presence.now();
            if matches!(seen, SessionState::Ready { opened, .. } if opened > number) {
                return;
            }
            presence.changed_from(seen).await;
        }
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

/// Call that awaits a confirmation.
struct Confirming<'a> {
    session: &'a ClientSession,
    /// Nonce of its first ping.
    first: u128,
    waiting: oneshot::Receiver<Result<(), Break>>,
}

impl Drop for Confirming<'_> {
    fn drop(&mut self) {
        self.session.lines().delivery.forget(self.first);
    }
}

#[async_trait]
impl McpSession for ClientSession {
    async fn elicit(&self, question: &Question) -> Result<Answer, AskError> {
        self.ask(question).await
    }

    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        self.send_next(notification).await
    }

    async fn confirm(&self) -> Result<(), HandOverError> {
        match self.level {
            DeliveryLevel::Confirmed => self.ping().await,
            DeliveryLevel::Pulled => self.pulled().await,
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
