//! [`Streams`]: the open streams of one client.

use std::sync::Arc;

use crate::metrics::{self, Level};
use crate::session::rmcp::detachable_stream::DetachableStream;
use crate::session::rmcp::event_id::EventIds;
use crate::session::rmcp::frames::Frames;

/// Open streams of a client.
#[derive(Default)]
pub(super) struct Streams {
    /// Number of streams opened so far, which is also the number of the newest.
    opened: u64,
    /// Open streams, the newest last.
    open: Vec<OpenStream>,
}

/// Open stream of a client.
pub(super) struct OpenStream {
    pub(super) number: u64,
    /// Events of the courier that wait for the stream's reader.
    pub(super) frames: Arc<Frames>,
    /// Set where the HTTP layer writes the messages, with their text unchanged.
    pub(super) is_layered: bool,
    /// Share of this stream in the metric of open streams.
    _counted: Level,
    /// rmcp's own stream. Kept here to be dropped when ours is cut, even while nobody polls it.
    pub(super) rmcp: DetachableStream,
}

impl Streams {
    /// Opens a stream, which becomes the newest. Drops the unread messages of the stream before: they are repeated on
    /// this one.
    pub(super) fn open(&mut self, rmcp: DetachableStream, ids: EventIds, is_layered: bool) -> &OpenStream {
        if let Some(superseded) = self.open.last() {
            superseded.frames.discard();
        }
        self.opened += 1;
        let (number, frames) = (self.opened, Arc::new(Frames::new(ids)));
        let counted = Level::of(&metrics::STREAMS_OPEN);
        self.open.push(OpenStream { number, frames, is_layered, rmcp, _counted: counted });
        &self.open[self.open.len() - 1]
    }

    /// Removes a stream, if it is open. The caller [closes](OpenStream::close) it.
    pub(super) fn remove(&mut self, number: u64) -> Option<OpenStream> {
        let at = self.open.iter().position(|stream| stream.number == number)?;
        Some(self.open.remove(at))
    }

    /// Removes all streams.
    pub(super) fn take(&mut self) -> Vec<OpenStream> {
        std::mem::take(&mut self.open)
    }

    /// Returns the newest stream, which receives.
    pub(super) fn newest(&self) -> Option<&OpenStream> {
        self.open.last()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

impl OpenStream {
    /// Ends the stream, for this cause.
    pub(super) fn close(self, cause: &'static str) {
        metrics::STREAMS_CLOSED.add(cause, 1);
        self.frames.close();
        // rmcp's worker waits for the reader of its own stream. Dropping that stream frees the worker.
        self.rmcp.clear();
    }
}
