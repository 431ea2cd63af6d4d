//! [`Slot`]: a stream of rmcp that can be dropped from outside.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use rmcp::transport::streamable_http_server::session::ServerSseMessage;

use super::event_id::Epoch;
use crate::lock::lock;

type BoxStream = Pin<Box<dyn Stream<Item = ServerSseMessage> + Send + Sync>>;

/// Stream of rmcp that others can drop while its reader keeps this.
#[derive(Clone)]
pub(super) struct Slot {
    open: Arc<Mutex<Option<Open>>>,
    epoch: Epoch,
}

struct Open {
    stream: BoxStream,
    /// Id of the event that the client named. rmcp begins a resumed stream by that event again, which the client has.
    named: Option<String>,
}

impl Slot {
    pub(super) fn new(stream: impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, epoch: &Epoch) -> Self {
        Self::behind(None, stream, epoch)
    }

    /// Makes a slot of a stream that is resumed behind an event, by rmcp's own id of that event.
    pub(super) fn behind(
        named: Option<&str>,
        stream: impl Stream<Item = ServerSseMessage> + Send + Sync + 'static,
        epoch: &Epoch,
    ) -> Self {
        let open = Open { stream: Box::pin(stream), named: named.map(str::to_owned) };
        Self { open: Arc::new(Mutex::new(Some(open))), epoch: epoch.clone() }
    }

    /// Drops the stream.
    pub(super) fn clear(&self) {
        let open = lock(&self.open).take();
        // Outside the lock: rmcp decides what the drop of its stream does.
        drop(open);
    }

    /// Polls for the next event, and marks its id with the epoch of this process.
    pub(super) fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<ServerSseMessage>> {
        let mut slot = lock(&self.open);
        let Some(open) = slot.as_mut() else { return Poll::Ready(None) };
        loop {
            let Some(mut event) = ready!(open.stream.as_mut().poll_next(context)) else { return Poll::Ready(None) };
            // Only the first event can be that one.
            if open.named.take().is_some_and(|named| event.event_id == Some(named)) {
                continue;
            }
            event.event_id = event.event_id.map(|id| self.epoch.mark(&id));
            return Poll::Ready(Some(event));
        }
    }
}
