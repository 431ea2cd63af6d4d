//! [`ClientSession`]: one client as the decorated manager knows it, its open streams and what it has confirmed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use self::batch::Batch;
use self::questions::Modes;
use super::early_close::EarlyCloses;
use super::stream::{Messages, Slot};
use crate::config::{Config, DeliveryLevel};
use crate::lock::lock;
use crate::question::Answer;
use crate::queue::ProcessId;
use crate::session::PresenceSender;
use crate::session_id::SessionId;

mod batch;
mod introduction;
mod questions;

pub(super) use self::questions::Answered;

pub(super) struct ClientSession {
    session_id: SessionId,
    process: ProcessId,
    /// Number of bytes that are kept at most of what the client said of itself.
    state_max_bytes: usize,
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
    /// The confirmation under way: the numbers of the pings that were sent behind the batch, and who waits for an answer
    /// to any of them.
    confirming: Option<(Vec<u64>, oneshot::Sender<()>)>,
    /// What the fleet is to remember of the session, and whether it does.
    remembered: (Option<String>, bool),
    is_initialized: bool,
    /// Protocol version that was negotiated.
    version: Option<String>,
    /// What the user is asked, by the ids of the questions.
    asked: HashMap<String, oneshot::Sender<Answer>>,
    /// Which modes of elicitation the client has declared.
    modes: Modes,
    early_closes: EarlyCloses,
    /// Requests under way, and when the last one came or went.
    requests: usize,
    active: Instant,
}

struct OpenStream {
    number: u64,
    sender: mpsc::Sender<String>,
    /// The HTTP layer writes the messages, as the text that they are.
    is_layered: bool,
    /// rmcp's own stream, to be let go when ours is cut, even while nobody polls it.
    slot: Slot,
    /// Goes away with this, and tells whoever waits for the client.
    open: watch::Sender<()>,
}

impl ClientSession {
    pub(super) fn new(config: &Config, session_id: SessionId, process: ProcessId) -> Self {
        Self {
            session_id,
            process,
            state_max_bytes: config.session_state_max_bytes(),
            limit: config.hand_over_timeout(),
            level: config.delivery_level(),
            presence: PresenceSender::new(),
            state: Mutex::new(State {
                opened: 0,
                streams: Vec::new(),
                batch: None,
                broken: false,
                confirming: None,
                remembered: (None, false),
                is_initialized: false,
                version: None,
                asked: HashMap::new(),
                modes: Modes::default(),
                early_closes: EarlyCloses::default(),
                requests: 0,
                active: Instant::now(),
            }),
        }
    }

    pub(super) fn session_id(&self) -> &SessionId {
        &self.session_id
    }

    /// What the fleet does not remember yet.
    pub(super) fn state_to_remember(&self) -> Option<String> {
        match &self.state().remembered {
            (state, false) => state.clone(),
            _ => None,
        }
    }

    /// Whether the client has said who it is.
    pub(super) fn is_initialized(&self) -> bool {
        self.state().is_initialized
    }

    /// Returns the protocol version that was negotiated.
    pub(super) fn version(&self) -> Option<String> {
        self.state().version.clone()
    }

    pub(super) fn set_version(&self, version: String) {
        self.state().version = Some(version);
    }

    /// Whether the fleet remembers the session, as far as this process knows.
    pub(super) fn is_remembered(&self) -> bool {
        self.state().remembered.1
    }

    pub(super) fn set_remembered(&self, is_remembered: bool) {
        self.state().remembered.1 = is_remembered;
    }

    /// Decides whether the stream of a client that comes back with this id is closed early: see
    /// [`early_close`](super::early_close).
    pub(super) fn decide_early_close(&self, last_event_id: &str) -> bool {
        let (mut state, now) = (self.state(), Instant::now());
        state.active = now;
        state.early_closes.decide(last_event_id, now)
    }

    /// Opens a stream, which is the newest then and receives. `is_layered` says that the HTTP layer writes its messages.
    pub(super) fn open(self: &Arc<Self>, slot: Slot, is_layered: bool) -> Messages {
        // Capacity 1: what is in here may still be lost with the stream, and comes again; more would come again too.
        let (sender, receiver) = mpsc::channel(1);
        let mut state = self.state();
        state.opened += 1;
        let number = state.opened;
        let open = watch::Sender::new(());
        state.streams.push(OpenStream { number, sender, is_layered, slot, open });
        self.presence.ready(number);
        Messages::new(receiver, Arc::clone(self), number)
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

    /// The session is over, or over here.
    pub(super) fn end(&self, only_here: bool) {
        if only_here {
            self.presence.left();
        } else {
            self.presence.ended();
        }
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

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt, stream};
    use serde_json::value::RawValue;
    use uuid::Uuid;

    use super::*;
    use crate::error::{AskError, HandOverError};
    use crate::notification::NotificationId;
    use crate::question::Question;
    use crate::session::rmcp::event_id::Epoch;
    use crate::session::rmcp::stream::CourierStream;
    use crate::session::{McpSession, Outbound};

    fn client(config: &Config) -> Arc<ClientSession> {
        Arc::new(ClientSession::new(config, SessionId::new("s").unwrap(), ProcessId::new()))
    }

    fn open(session: &Arc<ClientSession>) -> CourierStream {
        let slot = Slot::new(stream::pending(), &Epoch::new());
        let messages = session.open(slot.clone(), false);
        CourierStream::new(None, slot, Some(messages))
    }

    async fn hand_over(session: &ClientSession) -> Result<(), HandOverError> {
        let id = NotificationId(Uuid::now_v7());
        let params = RawValue::from_string("{}".to_owned()).unwrap();
        let outbound = Outbound { id, method: "notifications/x".to_owned(), params, attempt: 0 };
        session.hand_over(&outbound).await
    }

    #[tokio::test]
    async fn what_an_older_batch_left_in_a_stream_does_not_count_as_pulled_for_the_next() {
        let config = Config::builder().delivery_level(DeliveryLevel::Pulled).build().unwrap();
        let session = client(&config);
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
        session.initialized(&mut serde_json::from_value(initialize).unwrap(), false).unwrap();
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
        let session = client(&Config::default());
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
        let session = client(&Config::default());
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
