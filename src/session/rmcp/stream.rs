//! The decorated streams: rmcp's own, merged with what we hand over; and that of a request, counted.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::Stream;
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use tokio::sync::mpsc;

use super::client::ClientSession;
use super::event_id::Epoch;
use crate::lock::lock;

type BoxStream = Pin<Box<dyn Stream<Item = ServerSseMessage> + Send + Sync>>;

/// rmcp's own stream, where others can let it go.
#[derive(Clone)]
pub(super) struct Slot {
    stream: Arc<Mutex<Option<BoxStream>>>,
    epoch: Epoch,
}

impl Slot {
    pub(super) fn new(stream: impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, epoch: &Epoch) -> Self {
        Self { stream: Arc::new(Mutex::new(Some(Box::pin(stream)))), epoch: epoch.clone() }
    }

    /// Drops it.
    pub(super) fn clear(&self) {
        let stream = lock(&self.stream).take();
        // Outside the lock: it is not known what its drop does.
        drop(stream);
    }

    /// Its next message, under an id that says who issued it.
    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<ServerSseMessage>> {
        let mut slot = lock(&self.stream);
        let Some(stream) = slot.as_mut() else { return Poll::Ready(None) };
        stream.as_mut().poll_next(context).map(|message| {
            message.map(|mut message| {
                message.event_id = message.event_id.map(|id| self.epoch.mark(&id));
                message
            })
        })
    }
}

/// A client's standalone stream.
pub(super) struct CourierStream {
    first: Option<ServerSseMessage>,
    rmcp: Slot,
    ours: mpsc::Receiver<ServerSseMessage>,
    session: Arc<ClientSession>,
    number: u64,
    /// Whose turn it is, so that neither starves the other.
    ours_first: bool,
}

impl CourierStream {
    pub(super) fn new(
        first: Option<ServerSseMessage>,
        rmcp: Slot,
        ours: mpsc::Receiver<ServerSseMessage>,
        session: Arc<ClientSession>,
        number: u64,
    ) -> Self {
        Self { first, rmcp, ours, session, number, ours_first: true }
    }
}

impl Stream for CourierStream {
    type Item = ServerSseMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        self.ours_first = !self.ours_first;
        let first = if self.ours_first { self.ours.poll_recv(context) } else { self.rmcp.poll_next(context) };
        // Either's end ends it: ours is cut, or rmcp's session is over.
        if first.is_ready() {
            return first;
        }
        if self.ours_first { self.rmcp.poll_next(context) } else { self.ours.poll_recv(context) }
    }
}

impl Drop for CourierStream {
    fn drop(&mut self) {
        self.session.close(self.number);
    }
}

/// The stream that answers a request. While it is open the session is not idle.
pub(super) struct RequestStream {
    rmcp: Slot,
    session: Arc<ClientSession>,
}

impl RequestStream {
    pub(super) fn new(rmcp: Slot, session: Arc<ClientSession>) -> Self {
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
