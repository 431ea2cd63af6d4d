//! The decorated streams: rmcp's own, merged with what we hand over; and that of a request, counted.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use rmcp::model::{
    CustomNotification, CustomRequest, RequestId, ServerJsonRpcMessage, ServerNotification, ServerRequest,
};
use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use serde_json::Value;
use tokio::sync::mpsc;

use super::client::ClientSession;
use super::slot::Slot;

/// The messages of one standalone stream that are not rmcp's: whole JSON-RPC messages as text. Dropping them closes the
/// stream for its session.
pub(crate) struct Messages {
    receiver: mpsc::Receiver<String>,
    session: Arc<ClientSession>,
    number: u64,
}

impl Messages {
    /// Opens a stream of a session: see [`ClientSession::open`].
    pub(super) fn open(session: &Arc<ClientSession>, slot: Slot, is_layered: bool) -> Self {
        let (receiver, number) = session.open(slot, is_layered);
        Self { receiver, session: Arc::clone(session), number }
    }

    /// Polls for the next message. After the last one the stream must end: it is cut, or its session has ended.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<String>> {
        self.receiver.poll_recv(context)
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages").field("session", self.session.session_id()).field("number", &self.number).finish()
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.session.close(self.number);
    }
}

/// A client's standalone stream, as rmcp gets it.
pub(super) struct CourierStream {
    first: Option<ServerSseMessage>,
    rmcp: Slot,
    /// `None` where the HTTP layer has them, and merges them itself.
    ours: Option<Messages>,
    /// Whose turn it is, so that neither starves the other.
    ours_first: bool,
}

impl CourierStream {
    pub(super) fn new(first: Option<ServerSseMessage>, rmcp: Slot, ours: Option<Messages>) -> Self {
        Self { first, rmcp, ours, ours_first: true }
    }

    fn poll_ours(&mut self, context: &mut Context<'_>) -> Poll<Option<ServerSseMessage>> {
        let Some(ours) = &mut self.ours else { return Poll::Pending };
        ours.poll_next(context).map(|text| Some(ServerSseMessage::from_message(message(&text?)?)))
    }
}

/// Reads a message for rmcp, which holds numbers of 64 bits, and any other number as the nearest `f64`.
fn message(text: &str) -> Option<ServerJsonRpcMessage> {
    let message: Value = serde_json::from_str(text).ok()?;
    let (method, params) = (message["method"].as_str()?.to_owned(), message.get("params").cloned());
    // As custom messages, whatever their method: typed, rmcp would drop the fields that it does not know.
    Some(match message["id"].as_str() {
        Some(id) => {
            let request = ServerRequest::CustomRequest(CustomRequest::new(method, params));
            ServerJsonRpcMessage::request(request, RequestId::String(id.into()))
        }
        None => {
            let notification = CustomNotification::new(method, params);
            ServerJsonRpcMessage::notification(ServerNotification::CustomNotification(notification))
        }
    })
}

impl Stream for CourierStream {
    type Item = ServerSseMessage;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        self.ours_first = !self.ours_first;
        let first = if self.ours_first { self.poll_ours(context) } else { self.rmcp.poll_next(context) };
        // Either's end ends it: ours is cut, or rmcp's session is over.
        if first.is_ready() {
            return first;
        }
        if self.ours_first { self.rmcp.poll_next(context) } else { self.poll_ours(context) }
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
