//! Messages at the tail of a queue, as one read of the queue returned them.

use std::time::Duration;

use crate::envelope::{Envelope, Timestamp, Undecodable};

/// Enough of a message to recognise it at the tail of its queue: its length and its last bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its length in bytes.
    pub length: usize,
    /// Its last bytes, at most [`Mark::BYTES`].
    pub last: Vec<u8>,
}

impl Mark {
    /// How many of a message's last bytes are compared. They hold its id, or the time that FastMCP gave it.
    pub const BYTES: usize = 256;

    /// The mark of a message.
    pub fn of(raw: &[u8]) -> Self {
        Self { length: raw.len(), last: raw[raw.len().saturating_sub(Self::BYTES)..].to_vec() }
    }

    /// Whether `raw` is the message that was marked.
    pub fn matches(&self, raw: &[u8]) -> bool {
        raw.len() == self.length && raw.ends_with(&self.last)
    }
}

/// Whose a queue is, as its lease says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Ours.
    Held,
    /// It had gone (flushed, evicted, failed over, run out), and is ours again.
    Reclaimed,
    /// It is gone, and this operation does not take it.
    Absent,
    /// Another's.
    Lost,
}

impl LeaseState {
    /// Whether the queue is ours.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Held | Self::Reclaimed)
    }
}

/// What an owner saw at the tail of its queue.
#[derive(Debug)]
pub struct Taken {
    /// Whose the queue is. Where it is not ours, `items` is empty and nothing was removed.
    pub lease: LeaseState,
    /// The tail was not what had been delivered, so nothing was removed.
    pub changed: bool,
    /// The queue's clock when it was looked at.
    pub now: Timestamp,
    /// The oldest, oldest first.
    pub items: Vec<Item>,
}

/// One message at the tail of a queue.
#[derive(Debug)]
pub struct Item {
    /// What recognises it.
    pub mark: Mark,
    /// What it says, if it says anything.
    pub envelope: Result<Envelope, Undecodable>,
    /// The message itself, where it says nothing.
    pub unreadable: Vec<u8>,
}

impl Item {
    pub(crate) fn decode(queue: &str, raw: Vec<u8>, time_to_live: Duration) -> Self {
        let mark = Mark::of(&raw);
        match Envelope::decode_or_give_back(queue, raw, time_to_live) {
            Ok(envelope) => Self { mark, envelope: Ok(envelope), unreadable: Vec::new() },
            Err((why, unreadable)) => Self { mark, envelope: Err(why), unreadable },
        }
    }
}

/// Whether the oldest message was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It was.
    Done,
    /// Something else stands there: nothing was written.
    Changed,
    /// The lease is not ours: nothing was written.
    NotOurs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_matches_messages_of_its_length_and_its_last_bytes_only() {
        let long = "x".repeat(Mark::BYTES) + "end";
        let mark = Mark::of(long.as_bytes());
        assert_eq!((mark.length, mark.last.len()), (long.len(), Mark::BYTES));
        assert!(mark.matches(long.as_bytes()));
        assert!(!mark.matches(format!("x{long}").as_bytes()), "a longer one that ends alike");
        assert!(!mark.matches(long.replace("end", "and").as_bytes()), "one of the same length");
        assert!(Mark::of(b"").matches(b"") && !Mark::of(b"").matches(b"x"));
    }
}
