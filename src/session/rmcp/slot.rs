//! [`Slot`]: a stream of rmcp that can be dropped from outside.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::Stream;
use rmcp::transport::streamable_http_server::session::ServerSseMessage;

use super::event_id::Epoch;
use crate::lock::lock;

type BoxStream = Pin<Box<dyn Stream<Item = ServerSseMessage> + Send + Sync>>;

/// Stream of rmcp that others can drop while its reader keeps this.
#[derive(Clone)]
pub(super) struct Slot {
    stream: Arc<Mutex<Option<BoxStream>>>,
    epoch: Epoch,
}

impl Slot {
    pub(super) fn new(stream: impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, epoch: &Epoch) -> Self {
        Self { stream: Arc::new(Mutex::new(Some(Box::pin(stream)))), epoch: epoch.clone() }
    }

    /// Drops the stream.
    pub(super) fn clear(&self) {
        let stream = lock(&self.stream).take();
        // Outside the lock: rmcp decides what the drop of its stream does.
        drop(stream);
    }

    /// Polls for the next message, and marks its id with the epoch of this process.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<ServerSseMessage>> {
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
