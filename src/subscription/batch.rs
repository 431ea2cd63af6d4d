//! Messages at the tail of a queue, as one read returned them.

use std::time::Duration;

use crate::envelope::{Envelope, Mark, MessageId, Timestamp, Undecodable};
use crate::seal::SealingKeys;

/// Result of checking a session's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// The caller holds the lease.
    Held,
    /// The lease had gone (flushed, evicted, failed over or run out), and the caller has claimed it again.
    Reclaimed,
    /// The lease is absent, and this operation does not claim an absent lease.
    Absent,
    /// Another owner holds the lease.
    Lost,
}

impl LeaseState {
    /// Returns whether the caller holds the lease.
    pub fn is_held(self) -> bool {
        matches!(self, Self::Held | Self::Reclaimed)
    }
}

/// Answer to a take: the state of the lease and the oldest messages.
#[derive(Debug)]
pub struct Taken {
    /// State of the lease. Where the caller does not hold the lease, `items` is empty and nothing was removed.
    pub lease: LeaseState,
    /// Set where the queue changed under its owner. Either the tail was not the delivered message, and nothing was
    /// removed. Or the messages to pass over were not there, and nothing was read.
    pub changed: bool,
    /// Set where the read stopped at a bound. Further messages may be queued behind `items`.
    pub has_more: bool,
    /// Time of the read by the queue's clock.
    pub now: Timestamp,
    /// Oldest messages, in the order of their pushes.
    pub items: Vec<Item>,
}

/// Message at the tail of a queue.
#[derive(Debug)]
pub struct Item {
    /// Mark by which the message is recognised.
    pub mark: Mark,
    /// Decoded message, or the reason why the message cannot be read.
    pub envelope: Result<Envelope, Undecodable>,
    /// Bytes of a message that cannot be read; empty where the message can be read. They go into the dead letter.
    pub unreadable: Vec<u8>,
}

impl Item {
    /// Returns the message id, if the message can be read and has one.
    pub(super) fn message_id(&self) -> Option<MessageId> {
        self.envelope.as_ref().ok()?.message_id
    }

    /// Decodes one plain message of a queue. `time_to_live` is for messages that carry none.
    #[cfg(test)]
    pub(crate) fn decode(queue: &str, raw: Vec<u8>, time_to_live: Duration) -> Self {
        Self::decode_each(queue, vec![raw], time_to_live, None).remove(0)
    }

    /// Decodes messages that were read from a queue together, and opens sealed ones. They share the memory of their
    /// marks.
    pub(crate) fn decode_each(
        queue: &str,
        messages: Vec<Vec<u8>>,
        time_to_live: Duration,
        keys: Option<&SealingKeys>,
    ) -> Vec<Self> {
        let marks = Mark::of_each(&messages).into_iter();
        marks.zip(messages).map(|(mark, raw)| Self::decode_marked(mark, queue, raw, time_to_live, keys)).collect()
    }

    fn decode_marked(
        mark: Mark,
        queue: &str,
        raw: Vec<u8>,
        time_to_live: Duration,
        keys: Option<&SealingKeys>,
    ) -> Self {
        match Envelope::decode_or_give_back(queue, raw, time_to_live, keys) {
            Ok(envelope) => Self { mark, envelope: Ok(envelope), unreadable: Vec::new() },
            Err((why, unreadable)) => Self { mark, envelope: Err(why), unreadable },
        }
    }
}

/// Result of a rewrite of the oldest message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// The message was replaced.
    Done,
    /// Another message is the oldest. Nothing was written.
    Changed,
    /// The caller does not hold the lease. Nothing was written.
    NotOwner,
}
