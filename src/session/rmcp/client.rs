//! [`ClientSession`]: one client as the decorated manager knows it, its open streams and what it has confirmed.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rmcp::model::{
    CustomNotification, PingRequest, RequestId, ServerJsonRpcMessage, ServerNotification, ServerRequest,
};
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

use super::stream::{CourierStream, Slot};
use crate::config::{Config, DeliveryLevel};
use crate::error::{AskError, HandOverError};
use crate::question::{Answer, Question};
use crate::queue::BoxFuture;
use crate::session::{McpSession, Outbound, Presence, PresenceSender};

mod questions;

pub(super) use self::questions::Answered;
use self::questions::Modes;

/// What the JSON-RPC ids of our own requests begin with.
const OURS: &str = "mcp-courier:";

pub(super) struct ClientSession {
    limit: Duration,
    level: DeliveryLevel,
    presence: PresenceSender,
    state: Mutex<State>,
}

struct State {
    /// How many streams were opened: the number of the newest.
    opened: u64,
    /// Open ones, the newest last.
    streams: Vec<OpenStream>,
    /// The stream that gets what is handed over between two confirmations. Only on that can it be confirmed.
    batch: Option<Batch>,
    /// A part of the batch was sent down a stream on which the rest cannot follow: it cannot be confirmed any more.
    broken: bool,
    /// The question whose answer confirms.
    ping: Option<(String, oneshot::Sender<()>)>,
    /// What the user is asked, by the ids of the questions.
    asked: HashMap<String, oneshot::Sender<Answer>>,
    /// Which modes of elicitation the client has declared.
    modes: Modes,
    /// Requests under way, and when the last one came or went.
    requests: usize,
    active: Instant,
}

struct OpenStream {
    number: u64,
    sender: mpsc::Sender<ServerSseMessage>,
    /// rmcp's own stream, to be let go when ours is cut, even while nobody polls it.
    slot: Slot,
    /// Goes away with this, and tells whoever waits for the client.
    open: watch::Sender<()>,
}

#[derive(Clone)]
struct Batch {
    number: u64,
    sender: mpsc::Sender<ServerSseMessage>,
    /// How many were sent.
    sent: u64,
    open: watch::Receiver<()>,
}

impl Batch {
    /// Does something with the stream, within a time, and while it is open.
    async fn within<T>(&self, limit: Duration, what: impl Future<Output = T>) -> Waited<T> {
        let mut open = self.open.clone();
        tokio::select! {
            biased;
            done = tokio::time::timeout(limit, what) => done.map_or(Waited::TooLong, Waited::Done),
            // Nothing is ever sent: it ends when the stream does.
            _ = open.changed() => Waited::Closed,
        }
    }
}

enum Waited<T> {
    Done(T),
    TooLong,
    Closed,
}

impl ClientSession {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            limit: config.hand_over_timeout(),
            level: config.delivery_level(),
            presence: PresenceSender::new(),
            state: Mutex::new(State {
                opened: 0,
                streams: Vec::new(),
                batch: None,
                broken: false,
                ping: None,
                asked: HashMap::new(),
                modes: Modes::default(),
                requests: 0,
                active: Instant::now(),
            }),
        }
    }

    /// A new stream, the newest now: it receives.
    pub(super) fn open(self: &Arc<Self>, slot: Slot) -> CourierStream {
        // Capacity 1: what is in here may still be lost with the stream, and comes again; more would come again too.
        let (sender, receiver) = mpsc::channel(1);
        let mut state = self.state();
        state.opened += 1;
        let number = state.opened;
        let open = watch::Sender::new(());
        state.streams.push(OpenStream { number, sender, slot: slot.clone(), open });
        self.presence.ready(number);
        CourierStream::new(slot, receiver, Arc::clone(self), number)
    }

    /// A stream has ended, or must. The newest of the others goes on.
    pub(super) fn close(&self, number: u64) {
        let mut state = self.state();
        state.active = Instant::now();
        let Some(at) = state.streams.iter().position(|s| s.number == number) else { return };
        let closed = state.streams.remove(at);
        match state.streams.last() {
            Some(newest) => self.presence.ready(newest.number),
            None => self.presence.away(),
        }
        drop(state);
        // rmcp's worker waits for a reader of its own stream: without one it goes on.
        closed.slot.clear();
    }

    /// The session is over.
    pub(super) fn end(&self) {
        self.presence.ended();
        let streams = std::mem::take(&mut self.state().streams);
        for stream in streams {
            stream.slot.clear();
        }
    }

    pub(super) fn request_began(&self) {
        let mut state = self.state();
        state.requests += 1;
        state.active = Instant::now();
    }

    pub(super) fn request_ended(&self) {
        let mut state = self.state();
        state.requests = state.requests.saturating_sub(1);
        state.active = Instant::now();
    }

    /// Something came from the client.
    pub(super) fn touch(&self) {
        self.state().active = Instant::now();
    }

    /// Since when nothing goes on, if nothing does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.streams.is_empty() && state.requests == 0).then_some(state.active)
    }

    /// Where the next message goes: the stream of the batch, or the newest if this is its first.
    fn batch(&self) -> Result<Batch, HandOverError> {
        let mut state = self.state();
        let Some(newest) = state.streams.last() else {
            return Err(HandOverError::NotReady("no stream is open".to_owned()));
        };
        match &state.batch {
            _ if state.broken => Err(self.gone()),
            Some(batch) if batch.number != newest.number => {
                Err(HandOverError::NotReady("the client goes on with another stream".to_owned()))
            }
            Some(batch) => Ok(batch.clone()),
            None => {
                let batch = Batch {
                    number: newest.number,
                    sender: newest.sender.clone(),
                    sent: 0,
                    open: newest.open.subscribe(),
                };
                state.batch = Some(batch.clone());
                Ok(batch)
            }
        }
    }

    async fn send(&self, message: ServerJsonRpcMessage) -> Result<Batch, HandOverError> {
        let batch = self.batch()?;
        let message = ServerSseMessage::from_message(message);
        match batch.within(self.limit, batch.sender.send(message)).await {
            Waited::Done(Ok(())) => {
                if let Some(batch) = &mut self.state().batch {
                    batch.sent += 1;
                }
                Ok(batch)
            }
            Waited::Done(Err(_)) | Waited::Closed => Err(self.gone()),
            Waited::TooLong => Err(self.cut(batch.number, "does not read its stream")),
        }
    }

    async fn ping(&self) -> Result<(), HandOverError> {
        let id = format!("{OURS}{}", Uuid::now_v7());
        let (confirmed, confirmation) = oneshot::channel();
        let begun = Instant::now();
        self.state().ping = Some((id.clone(), confirmed));
        let request = ServerRequest::PingRequest(PingRequest::default());
        let batch = self.send(ServerJsonRpcMessage::request(request, RequestId::String(id.into()))).await?;
        // Together they have the time of one call, behind which the caller would drop this half-way.
        match batch.within(self.limit.saturating_sub(begun.elapsed()), confirmation).await {
            Waited::Done(Ok(())) => Ok(()),
            Waited::Done(Err(_)) | Waited::Closed => Err(self.gone()),
            Waited::TooLong => Err(self.cut(batch.number, "does not answer a ping")),
        }
    }

    async fn pulled(&self) -> Result<(), HandOverError> {
        let Some(batch) = self.state().batch.clone() else {
            return Err(self.gone());
        };
        // Room in a channel of capacity 1 says that the last one is out.
        match batch.within(self.limit, batch.sender.reserve()).await {
            Waited::Done(Ok(_)) => Ok(()),
            Waited::Done(Err(_)) | Waited::Closed => Err(self.gone()),
            Waited::TooLong => Err(self.cut(batch.number, "does not read its stream")),
        }
    }

    fn gone(&self) -> HandOverError {
        HandOverError::NotReady("the stream has ended".to_owned())
    }

    /// Ends a stream whose reader is stalled: the session's other calls must not wait for it.
    fn cut(&self, number: u64, why: &str) -> HandOverError {
        self.close(number);
        HandOverError::NotReady(format!("the client {why} within {:?}; its stream is cut", self.limit))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way, so what a poisoned lock holds is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl McpSession for ClientSession {
    fn elicit<'a>(&'a self, question: &'a Question) -> BoxFuture<'a, Result<Answer, AskError>> {
        Box::pin(self.ask(question))
    }

    fn hand_over<'a>(&'a self, notification: &'a Outbound) -> BoxFuture<'a, Result<(), HandOverError>> {
        Box::pin(async move {
            let Outbound { method, params, .. } = notification;
            // As a custom notification, whatever its method: typed, rmcp would drop the fields that it does not know.
            let custom = CustomNotification::new(method.clone(), Some(Value::Object(params.clone())));
            let message = ServerJsonRpcMessage::notification(ServerNotification::CustomNotification(custom));
            let sent = self.send(message).await;
            if sent.is_err() {
                let mut state = self.state();
                // Without this a confirmation would be asked of, and given by, the client's next stream.
                state.broken = state.batch.take().is_some_and(|batch| batch.sent > 0);
            }
            sent.map(drop)
        })
    }

    fn confirm(&self) -> BoxFuture<'_, Result<(), HandOverError>> {
        Box::pin(async move {
            let confirmed = match self.level {
                DeliveryLevel::Confirmed => self.ping().await,
                DeliveryLevel::Pulled => self.pulled().await,
            };
            let mut state = self.state();
            (state.batch, state.broken, state.ping) = (None, false, None);
            confirmed
        })
    }

    fn presence(&self) -> Presence {
        self.presence.presence()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};
    use serde_json::Map;

    use super::*;
    use crate::notification::NotificationId;
    use crate::session::rmcp::event_id::Epoch;

    fn open(session: &Arc<ClientSession>) -> CourierStream {
        session.open(Slot::new(stream::pending(), &Epoch::new()))
    }

    async fn hand_over(session: &ClientSession) -> Result<(), HandOverError> {
        let id = NotificationId(Uuid::now_v7());
        let outbound = Outbound { id, method: "notifications/x".to_owned(), params: Map::new(), attempt: 0 };
        session.hand_over(&outbound).await
    }

    #[tokio::test]
    async fn what_an_older_batch_left_in_a_stream_does_not_count_as_pulled_for_the_next() {
        let config = Config::builder().delivery_level(DeliveryLevel::Pulled).build().unwrap();
        let session = Arc::new(ClientSession::new(&config));
        let mut older = open(&session);
        hand_over(&session).await.unwrap();
        // The next cannot follow on the newer stream, so the first is given up where it is.
        let newer = open(&session);
        hand_over(&session).await.unwrap_err();
        session.confirm().await.unwrap_err();
        drop(newer);
        // The older one goes on, with that first one still in it.
        {
            let next = hand_over(&session);
            tokio::pin!(next);
            assert!((&mut next).now_or_never().is_none(), "the channel is full");
            older.next().await.unwrap();
            next.await.unwrap();
        }
        let confirmed = session.confirm();
        tokio::pin!(confirmed);
        assert!((&mut confirmed).now_or_never().is_none(), "nobody has pulled the second");
        older.next().await.unwrap();
        confirmed.await.unwrap();
    }

    fn may_be_asked(session: &ClientSession) {
        let initialize = serde_json::json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {"elicitation": {}},
            "clientInfo": {"name": "c", "version": "1"}}});
        session.initialized(&serde_json::from_value(initialize).unwrap());
    }

    fn question() -> Question {
        let schema = serde_json::json!({"type": "object", "properties": {}});
        Question {
            request_id: "r".to_owned(),
            task: crate::TaskKey::anonymous("t").unwrap(),
            elicitation: crate::Elicitation::form("?", schema).unwrap(),
            deadline: crate::envelope::Timestamp(0),
        }
    }

    #[tokio::test]
    async fn a_question_follows_the_client_to_its_newest_stream() {
        let session = Arc::new(ClientSession::new(&Config::default()));
        may_be_asked(&session);
        // Its connection is broken, and nothing says so yet.
        let mut dead = open(&session);
        let question = question();
        let asked = session.ask(&question);
        tokio::pin!(asked);
        assert!((&mut asked).now_or_never().is_none());
        dead.next().await.unwrap();
        let mut newer = open(&session);
        assert!(matches!((&mut asked).now_or_never(), Some(Err(AskError::NotReady(_)))), "to be asked again");
        let again = session.ask(&question);
        tokio::pin!(again);
        assert!((&mut again).now_or_never().is_none());
        newer.next().await.unwrap();
        assert!(session.hand_in("r", Answer::Decline));
        assert_eq!(again.await.unwrap(), Answer::Decline);
    }

    #[tokio::test]
    async fn who_asks_a_second_time_keeps_its_place_when_the_first_leaves() {
        let session = Arc::new(ClientSession::new(&Config::default()));
        may_be_asked(&session);
        let mut stream = open(&session);
        let question = question();
        let first = session.ask(&question);
        tokio::pin!(first);
        assert!((&mut first).now_or_never().is_none());
        stream.next().await.unwrap();
        let second = session.ask(&question);
        tokio::pin!(second);
        assert!((&mut second).now_or_never().is_none());
        first.await.unwrap_err();
        assert!(session.hand_in("r", Answer::Decline));
        assert_eq!(second.await.unwrap(), Answer::Decline);
    }
}
