//! [`ClientSession`]: one client as the decorated manager knows it, its open streams and what it has confirmed.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use self::batch::Batch;
use self::questions::Modes;
use super::early_close::EarlyCloses;
use super::slot::Slot;
use crate::backend::ProcessId;
use crate::config::{Config, DeliveryLevel};
use crate::lock::lock;
use crate::question::Answer;
use crate::session::PresenceSender;
use crate::session_id::SessionId;

mod batch;
mod introduction;
mod questions;

pub(super) use self::questions::Answered;

/// Prefix of the JSON-RPC ids of our pings. The process id follows, and the nonce of the ping as a decimal number. Earlier
/// versions counted their pings: such a number is forwarded to its process, and is never a nonce of this one.
const PING: &str = "mcp-courier:ping:";

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
    /// The stream that has got what was handed over since the last confirmation; `None` where nothing was, or where a part
    /// of it can no longer be confirmed.
    batch: Option<Batch>,
    /// The confirmation under way: the nonces of the pings that were sent behind the batch, and who waits for an answer
    /// to any of them.
    confirming: Option<(Vec<u128>, oneshot::Sender<()>)>,
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

    /// Opens a stream, which is the newest then and receives. Returns its messages and its number, by which to
    /// [close](Self::close) it. `is_layered` says that the HTTP layer writes its messages.
    pub(super) fn open(&self, slot: Slot, is_layered: bool) -> (mpsc::Receiver<String>, u64) {
        // Capacity 1: what is in here may still be lost with the stream, and comes again; more would come again too.
        let (sender, receiver) = mpsc::channel(1);
        let mut state = self.state();
        state.opened += 1;
        let number = state.opened;
        let open = watch::Sender::new(());
        state.streams.push(OpenStream { number, sender, is_layered, slot, open });
        self.presence.ready(number);
        (receiver, number)
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
mod tests;
