//! Hand-over to a client: messages go down one stream, and their confirmation comes by a ping down the same stream.
//!
//! 1. *Hand over*: [`send`](ClientSession::send) writes into the newest stream, if that is the stream for which the
//!    message was read. On a newer stream the client may have named this very message, so it must be read again.
//! 2. *Confirm*: [`begin_to_confirm`](ClientSession::begin_to_confirm) writes the ping behind all messages, and
//!    flushes. The caller begins the confirmation before the next hand-over, so the ping covers exactly what was handed
//!    over before.
//! 3. *Repeat*: an answer may be lost, as it comes by a request of its own. The ping is repeated after growing pauses;
//!    each repetition has a nonce of its own, and any answer counts
//!    (`a_ping_whose_answer_was_lost_on_the_way_is_asked_again`).
//! 4. *Cut*: a client that does not read, or does not answer in time, loses its stream. The queue still has the
//!    messages, and the next stream gets them (`a_client_that_never_answers_a_ping_is_cut_off_and_may_come_back`).
//!
//! With `Pulled` there is no ping: a message counts once the reader of the stream has taken it. Messages that a newer
//! stream drops at the same moment do not count
//! (`what_a_newer_stream_drops_at_the_same_moment_does_not_count_as_pulled`).

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::ClientSession;
use super::delivery::Break;
use super::pings::{self, nonce, ping_pauses};
use crate::config::DeliveryLevel;
use crate::question::{Answer, Question};
use crate::session::rmcp::frames::{Frames, Full};
use crate::session::{AskError, HandOverError, McpSession, Outbound, Presence};

/// Call of `confirm` that awaits its answer.
struct Confirming<'a> {
    session: &'a ClientSession,
    /// Nonce of the first ping.
    first: u128,
    /// Receiver of the outcome.
    waiting: oneshot::Receiver<Result<(), Break>>,
    /// Stream that got the messages, and the place behind them in its buffer.
    stream: u64,
    frames: Arc<Frames>,
    /// Place behind all that was sent. The reader has taken the messages once it has passed this place.
    place: u64,
}

impl Drop for Confirming<'_> {
    fn drop(&mut self) {
        self.session.locked().delivery.forget(self.first);
    }
}

impl ClientSession {
    /// Writes a message into the newest stream. Waits for room, and cuts the stream where its reader makes none in
    /// time.
    async fn send(&self, notification: &Outbound) -> Result<(), HandOverError> {
        let mut begun = None;
        loop {
            let (stream, frames) = {
                let state = &mut *self.locked();
                state.delivery.admit().map_err(|why| self.not_ready(why))?;
                let no_stream = || HandOverError::NotReady("no stream is open".to_owned());
                let newest = state.streams.newest().ok_or_else(no_stream)?;
                // With a newer stream the client may have said that it has this message.
                if newest.number != notification.generation {
                    return Err(self.not_ready(Break::Superseded));
                }
                // Without the layer the message goes through rmcp, which cannot hold every number.
                if !newest.is_layered {
                    let _: Value = notification
                        .parse_params()
                        .map_err(|error| HandOverError::Rejected(format!("the params cannot be read: {error}")))?;
                }
                match newest.frames.hand_over(notification) {
                    Ok(()) => {
                        state.delivery.handed_over(newest.number);
                        return Ok(());
                    }
                    Err(Full) => (newest.number, Arc::clone(&newest.frames)),
                }
            };
            let left = self.limit.saturating_sub(begun.get_or_insert_with(Instant::now).elapsed());
            if tokio::time::timeout(left, frames.until_room()).await.is_err() {
                return Err(self.cut(stream, Break::Unread));
            }
        }
    }

    /// Waits until the client has answered a ping, which confirms everything sent before that ping.
    async fn await_answer(&self, confirming: &mut Confirming<'_>) -> Result<(), HandOverError> {
        // All steps share the time of one call. After that time the caller would drop this future half-way.
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

    /// Waits until the reader of the stream has taken everything that was sent.
    async fn await_reader(&self, confirming: &mut Confirming<'_>) -> Result<(), HandOverError> {
        let Confirming { first, waiting, stream, frames, place, .. } = confirming;
        let pulled = async {
            tokio::select! {
                broken = &mut *waiting => broken,
                () = frames.until_taken(*place) => {
                    self.confirmed(*first);
                    // Not confirmed where the stream broke meanwhile: dropped messages do not count as taken.
                    waiting.await
                }
            }
        };
        match tokio::time::timeout(self.limit, pulled).await {
            Ok(answered) => self.outcome(answered),
            Err(_) => Err(self.cut(*stream, Break::Unread)),
        }
    }

    /// Begins to await a confirmation of everything handed over before, and wakes the reader of the stream.
    fn begin_to_confirm(&self) -> Result<Confirming<'_>, HandOverError> {
        let (first, (waiter, waiting)) = (nonce(), oneshot::channel());
        let state = &mut *self.locked();
        let confirmed = state.delivery.confirm(first, waiter);
        let stream = confirmed.map_err(|why| self.not_ready(why))?;
        let newest = state.streams.newest().filter(|newest| newest.number == stream);
        let frames = Arc::clone(&newest.ok_or_else(|| self.not_ready(Break::Ended))?.frames);
        let place = match self.level {
            DeliveryLevel::Confirmed => frames.ping(&self.ping(first)),
            DeliveryLevel::Pulled => frames.flush(),
        };
        Ok(Confirming { session: self, first, waiting, stream, frames, place })
    }

    fn ping_again(&self, first: u128) {
        let nonce = nonce();
        let state = &mut *self.locked();
        let stream = state.delivery.ping_again(first, nonce);
        if let Some(newest) = state.streams.newest().filter(|newest| Some(newest.number) == stream) {
            newest.frames.ping(&self.ping(nonce));
        }
    }

    fn ping(&self, nonce: u128) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"ping"}}"#, pings::id(self.process, nonce))
    }

    /// Confirms everything that was handed over before a ping that the client has answered.
    pub(in crate::session::rmcp) fn confirmed(&self, ping: u128) {
        let confirmed = self.locked().delivery.answered(ping);
        for waiter in confirmed {
            // The waiter may have given up just now.
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

    /// Ends a stream whose reader is stalled: the session's other calls must not wait for that reader.
    fn cut(&self, number: u64, why: Break) -> HandOverError {
        let cause = if why == Break::Unanswered { "unanswered" } else { "unread" };
        self.close_for(number, why, Some(cause));
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
