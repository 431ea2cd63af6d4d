//! [`Mark`]: the end of a message, by which the message is recognised at its place.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Length and last bytes of a message. The owner recognises the message by this mark at the tail of its queue.
#[derive(Clone)]
pub struct Mark {
    /// Length of the message in bytes.
    pub length: usize,
    /// Last bytes of this message and of all messages of the same read. One allocation for all costs less than one for
    /// each.
    shared: Arc<Vec<u8>>,
    /// Position of this message's bytes in `shared`.
    place: Range<usize>,
}

impl Mark {
    /// Number of a message's last bytes that are compared. They include the message's id, and the queue's time or the
    /// time that FastMCP gave. Without the queue's time the two copies that a repeated push can queue would be equal.
    pub const BYTES: usize = 256;

    /// Returns the mark of a message.
    pub fn of(raw: &[u8]) -> Self {
        let shared = last(raw).to_vec();
        Self { length: raw.len(), place: 0..shared.len(), shared: Arc::new(shared) }
    }

    /// Returns the marks of messages that were read together.
    #[cfg(any(test, feature = "server"))]
    pub(crate) fn of_each(messages: &[Vec<u8>]) -> Vec<Self> {
        let mut shared = Vec::with_capacity(messages.iter().map(|raw| last(raw).len()).sum());
        messages.iter().for_each(|raw| shared.extend_from_slice(last(raw)));
        let (shared, mut end) = (Arc::new(shared), 0);
        let mark = |raw: &Vec<u8>| {
            let begin = end;
            end += last(raw).len();
            Self { length: raw.len(), shared: Arc::clone(&shared), place: begin..end }
        };
        messages.iter().map(mark).collect()
    }

    /// Returns the last bytes of the message, at most [`Mark::BYTES`].
    pub fn last(&self) -> &[u8] {
        &self.shared[self.place.clone()]
    }

    /// Returns whether `raw` is the marked message.
    #[cfg(any(test, feature = "server"))]
    pub fn matches(&self, raw: &[u8]) -> bool {
        raw.len() == self.length && raw.ends_with(self.last())
    }
}

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        (self.length, self.last()) == (other.length, other.last())
    }
}

impl Eq for Mark {}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mark").field("length", &self.length).field("last", &self.last()).finish()
    }
}

/// Returns the last bytes of a message, as far as a mark compares them.
fn last(raw: &[u8]) -> &[u8] {
    &raw[raw.len().saturating_sub(Mark::BYTES)..]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::envelope::{Draft, Timestamp};
    use crate::notification::{Notification, NotificationId};

    #[test]
    fn a_mark_matches_messages_of_its_length_and_its_last_bytes_only() {
        let long = "x".repeat(Mark::BYTES) + "end";
        let mark = Mark::of(long.as_bytes());
        assert_eq!((mark.length, mark.last().len()), (long.len(), Mark::BYTES));
        assert!(mark.matches(long.as_bytes()));
        assert!(!mark.matches(format!("x{long}").as_bytes()), "a longer one that ends alike");
        assert!(!mark.matches(long.replace("end", "and").as_bytes()), "one of the same length");
        assert!(Mark::of(b"").matches(b"") && !Mark::of(b"").matches(b"x"));
    }

    #[test]
    fn marks_of_messages_that_were_read_together_are_those_of_each_alone() {
        let messages = ["", "a", &"x".repeat(Mark::BYTES), &("y".repeat(Mark::BYTES) + "end"), "b"]
            .map(|text| text.as_bytes().to_vec());
        assert_eq!(Mark::of_each(&messages), messages.each_ref().map(|raw| Mark::of(raw)));
    }

    #[test]
    fn copies_of_a_notification_that_a_repeated_push_queues_have_marks_of_their_own() {
        let notification = Notification::new("notifications/x").unwrap();
        let draft = Draft::new(&notification, NotificationId(uuid::Uuid::from_u128(1)), Duration::from_secs(300));
        let [first, second] = [1_795_428_000_000_000, 1_795_428_000_000_001].map(|at| draft.stamp(Timestamp(at)));
        assert!(!Mark::of(&first).matches(&second));
    }
}
