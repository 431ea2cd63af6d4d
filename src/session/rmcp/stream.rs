//! [`Standalone`]: standalone stream of a client, which merges rmcp's own events and the courier's.
//!
//! The HTTP layer writes the stream, past rmcp. Without the layer rmcp writes it, and [`CourierStream`] converts
//! everything to events of rmcp's type.
//!
//! *Why two sources*. rmcp sends by itself: progress, log messages and requests of handlers. A client has one
//! standalone stream for those and for notifications. Polling alternates between the sources, so that neither starves
//! the other (`neither_side_of_a_stream_starves_the_other_and_ids_follow_the_order_of_the_parts`).
//!
//! *An event of rmcp* goes out behind all text that the courier has written before, flushed or not, because its id
//! names that text too.
//!
//! *The end*. Dropping the stream closes it for its session: the next older stream receives, or the subscriber parks.
//! rmcp's end, a cut and the end of the session end it cleanly.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use rmcp::model::{
    CustomNotification, CustomRequest, RequestId, ServerJsonRpcMessage, ServerNotification, ServerRequest,
};
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use serde_json::Value;

use super::client::ClientSession;
use super::detachable_stream::DetachableStream;
use super::event_id::EventId;
use super::frames::Frames;
use super::sse;

/// Next part of a stream.
#[derive(Debug)]
pub(crate) enum Part {
    /// Whole events of the courier, in the bytes that go out.
    Frames(String),
    /// Event of rmcp, or the first event of the stream, which has no data.
    Event(ServerSseMessage),
}

/// Standalone stream. Dropping it closes the stream for its session.
pub(crate) struct Standalone {
    session: Arc<ClientSession>,
    number: u64,
    frames: Arc<Frames>,
    /// Stream of rmcp, which may be filled in later.
    rmcp: DetachableStream,
    /// Event that goes out before any other event of either source.
    next: Option<ServerSseMessage>,
    /// Source that is polled first next time. Alternates, so that neither source starves the other.
    ours_first: bool,
    /// Set where rmcp has ended the response, which it does when the server shuts down.
    is_shut_down: bool,
}

impl Standalone {
    /// Opens a stream of a session behind the event that its client names: see [`ClientSession::open`]. The client must
    /// wait for `retry` before it opens its next stream.
    pub(super) fn open(
        session: &Arc<ClientSession>,
        rmcp: DetachableStream,
        resumed: Option<EventId<'_>>,
        is_layered: bool,
        retry: Duration,
    ) -> Self {
        let (number, frames) = session.open(rmcp.clone(), resumed, is_layered);
        let next = Some(frames.first(|id| session.priming(id, retry)));
        Self { session: Arc::clone(session), number, frames, rmcp, next, ours_first: true, is_shut_down: false }
    }

    /// Notes that rmcp has ended the response, because the server shuts down.
    pub(crate) fn note_shutdown(&mut self) {
        self.is_shut_down = true;
    }

    /// Polls for the next part; `None` where the stream must end, because it is cut or its session is over.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Part>> {
        if let Some(next) = self.next.take() {
            return Poll::Ready(Some(Part::Event(next)));
        }
        self.ours_first = !self.ours_first;
        let first = if self.ours_first { self.poll_ours(context) } else { self.poll_rmcp(context) };
        if first.is_ready() {
            return first;
        }
        if self.ours_first { self.poll_rmcp(context) } else { self.poll_ours(context) }
    }

    fn poll_ours(&mut self, context: &mut Context<'_>) -> Poll<Option<Part>> {
        self.frames.poll_take(context).map(|frames| frames.map(Part::Frames))
    }

    fn poll_rmcp(&mut self, context: &mut Context<'_>) -> Poll<Option<Part>> {
        let Some(mut event) = ready!(self.rmcp.poll_next(context)) else {
            self.note_shutdown();
            return Poll::Ready(None);
        };
        let before = self.frames.insert(&mut event);
        Poll::Ready(Some(if before.is_empty() {
            Part::Event(event)
        } else {
            self.next = Some(event);
            Part::Frames(before)
        }))
    }
}

impl std::fmt::Debug for Standalone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Standalone").field("session", self.session.session_id()).field("number", &self.number).finish()
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        self.session.close(self.number, self.is_shut_down);
    }
}

/// Standalone stream in the form that rmcp gets.
pub(super) enum CourierStream {
    /// The HTTP layer has the stream. rmcp's part of the response is comments and the end.
    Layered,
    /// rmcp writes the whole stream.
    Whole(WholeStream),
}

/// Standalone stream as events of rmcp's type.
pub(super) struct WholeStream {
    stream: Standalone,
    /// Events that were taken together.
    taken: VecDeque<ServerSseMessage>,
}

impl WholeStream {
    pub(super) fn new(stream: Standalone) -> Self {
        Self { stream, taken: VecDeque::new() }
    }
}

impl Stream for WholeStream {
    type Item = ServerSseMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.taken.pop_front() {
                return Poll::Ready(Some(event));
            }
            match ready!(self.stream.poll_next(context)) {
                None => return Poll::Ready(None),
                Some(Part::Event(event)) => return Poll::Ready(Some(event)),
                Some(Part::Frames(frames)) => self.taken.extend(sse::read(&frames).filter_map(event)),
            }
        }
    }
}

impl Stream for CourierStream {
    type Item = ServerSseMessage;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.get_mut() {
            Self::Layered => Poll::Pending,
            Self::Whole(stream) => Pin::new(stream).poll_next(context),
        }
    }
}

/// Makes an event for rmcp, which holds numbers of 64 bits. Any other number becomes the nearest `f64`.
fn event((id, data): (Option<&str>, &str)) -> Option<ServerSseMessage> {
    let message: Value = serde_json::from_str(data).ok()?;
    let (method, params) = (message["method"].as_str()?.to_owned(), message.get("params").cloned());
    // Made as custom messages, whatever their method: rmcp's typed messages would lose the fields that rmcp does not
    // know.
    let message = match message["id"].as_str() {
        Some(id) => {
            let request = ServerRequest::CustomRequest(CustomRequest::new(method, params));
            ServerJsonRpcMessage::request(request, RequestId::String(id.into()))
        }
        None => {
            let notification = CustomNotification::new(method, params);
            ServerJsonRpcMessage::notification(ServerNotification::CustomNotification(notification))
        }
    };
    let mut event = ServerSseMessage::from_message(message);
    event.event_id = id.map(str::to_owned);
    Some(event)
}

/// Stream that answers a request. While it is open the session is not idle.
pub(super) struct RequestStream {
    rmcp: DetachableStream,
    session: Arc<ClientSession>,
}

impl RequestStream {
    pub(super) fn new(rmcp: DetachableStream, session: Arc<ClientSession>) -> Self {
        session.request_began();
        Self { rmcp, session }
    }
}

impl Stream for RequestStream {
    type Item = ServerSseMessage;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.rmcp.poll_next(context)
    }
}

impl Drop for RequestStream {
    fn drop(&mut self) {
        self.session.request_ended();
    }
}
