//! [`DetachableStream`]: stream of rmcp that can be dropped from outside.
//!
//! *Why detachable*. rmcp's worker waits for the reader of its stream within its only loop. A reader that stalls
//! therefore blocks the whole session: its calls, its DELETE and its idle timeout (rmcp 3.11.0, `local.rs:322`).
//! Dropping the stream frees the worker. The HTTP body owns the reader's side, so the session needs a way to drop the
//! stream: `clear` (`a_stalled_session_can_still_be_deleted`).
//!
//! *An empty one* lets the client's stream open before rmcp serves its session. Whoever claims it brings rmcp's stream
//! later. The claim prevents a second stream, which rmcp would make a silent shadow of the first (`local.rs:708-751`).

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use futures_util::Stream;
use rmcp::transport::streamable_http_server::session::ServerSseMessage;

use super::event_id::Epoch;
use crate::lock::lock;

type BoxStream = Pin<Box<dyn Stream<Item = ServerSseMessage> + Send + Sync>>;

/// Stream of rmcp that others can drop, or fill in later, while its reader keeps this value.
#[derive(Clone)]
pub(super) struct DetachableStream {
    state: Arc<Mutex<State>>,
    /// Mark for the ids of the stream's events.
    epoch: Epoch,
}

/// State of the stream. A cleared stream stays cleared.
enum State {
    /// The stream comes later. Contains the waker of the reader, and whether somebody has undertaken to bring the
    /// stream.
    Empty {
        reader: Option<Waker>,
        is_claimed: bool,
    },
    Open(Open),
    Cleared,
}

struct Open {
    stream: BoxStream,
    /// Id of the event that the client named. rmcp begins a resumed stream with that same event, which the client
    /// already has.
    named: Option<String>,
}

impl DetachableStream {
    pub(super) fn new(stream: impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, epoch: &Epoch) -> Self {
        Self::behind(None, stream, epoch)
    }

    /// Makes a stream that is resumed behind an event. `named` is rmcp's own id of that event.
    pub(super) fn behind(
        named: Option<&str>,
        stream: impl Stream<Item = ServerSseMessage> + Send + Sync + 'static,
        epoch: &Epoch,
    ) -> Self {
        let open = Open { stream: Box::pin(stream), named: named.map(str::to_owned) };
        Self::of(State::Open(open), epoch)
    }

    /// Makes an empty stream, whose reader waits until it is filled.
    pub(super) fn empty(epoch: &Epoch) -> Self {
        Self::of(State::Empty { reader: None, is_claimed: false }, epoch)
    }

    fn of(state: State, epoch: &Epoch) -> Self {
        Self { state: Arc::new(Mutex::new(state)), epoch: epoch.clone() }
    }

    /// Returns whether the caller must [fill](Self::fill) the stream. True once, for the first call on an empty stream.
    pub(super) fn claim(&self) -> bool {
        match &mut *lock(&self.state) {
            State::Empty { is_claimed, .. } => !std::mem::replace(is_claimed, true),
            State::Open(_) | State::Cleared => false,
        }
    }

    /// Fills in the stream, unless it was cleared meanwhile.
    pub(super) fn fill(&self, stream: impl Stream<Item = ServerSseMessage> + Send + Sync + 'static) {
        let mut state = lock(&self.state);
        if let State::Empty { reader, .. } = &mut *state {
            let reader = reader.take();
            *state = State::Open(Open { stream: Box::pin(stream), named: None });
            drop(state);
            reader.into_iter().for_each(Waker::wake);
        }
    }

    /// Drops the stream.
    pub(super) fn clear(&self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Cleared);
        // Dropped outside the lock, as rmcp decides what the drop of its stream does.
        drop(state);
    }

    /// Polls for the next event, and marks its id with the epoch of this process.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<ServerSseMessage>> {
        let mut state = lock(&self.state);
        let open = match &mut *state {
            State::Open(open) => open,
            State::Empty { reader, .. } => {
                reader.get_or_insert_with(|| context.waker().clone()).clone_from(context.waker());
                return Poll::Pending;
            }
            State::Cleared => return Poll::Ready(None),
        };
        loop {
            let Some(mut event) = ready!(open.stream.as_mut().poll_next(context)) else { return Poll::Ready(None) };
            // Only the first event can be the one that the client named.
            if open.named.take().is_some_and(|named| event.event_id == Some(named)) {
                continue;
            }
            event.event_id = event.event_id.map(|id| self.epoch.mark(&id));
            return Poll::Ready(Some(event));
        }
    }
}
