//! [`Streams`]: the open streams of one client.

use tokio::sync::{mpsc, watch};

use crate::session::rmcp::slot::Slot;

/// Open streams of a client.
#[derive(Default)]
pub(super) struct Streams {
    /// Number of streams that were opened: the number of the newest.
    opened: u64,
    /// Open ones, the newest last.
    open: Vec<OpenStream>,
}

/// One open stream.
pub(super) struct OpenStream {
    pub(super) number: u64,
    pub(super) sender: mpsc::Sender<String>,
    /// The HTTP layer writes the messages, as the text that they are.
    pub(super) is_layered: bool,
    /// rmcp's own stream, to be dropped when ours is cut, even while nobody polls it.
    pub(super) slot: Slot,
    /// Dropped with this, which tells whoever waits for the client.
    pub(super) open: watch::Sender<()>,
}

impl Streams {
    /// Opens a stream, which is the newest then. Returns its messages and its number.
    pub(super) fn open(&mut self, slot: Slot, is_layered: bool) -> (mpsc::Receiver<String>, u64) {
        // Capacity 1: what is in here may still be lost with the stream, and comes again; more would come again too.
        let (sender, receiver) = mpsc::channel(1);
        self.opened += 1;
        let (number, open) = (self.opened, watch::Sender::new(()));
        self.open.push(OpenStream { number, sender, is_layered, slot, open });
        (receiver, number)
    }

    /// Removes a stream, if it is open.
    pub(super) fn remove(&mut self, number: u64) -> Option<OpenStream> {
        let at = self.open.iter().position(|stream| stream.number == number)?;
        Some(self.open.remove(at))
    }

    /// Removes all of them.
    pub(super) fn take(&mut self) -> Vec<OpenStream> {
        std::mem::take(&mut self.open)
    }

    /// Returns the stream that receives.
    pub(super) fn newest(&self) -> Option<&OpenStream> {
        self.open.last()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}
