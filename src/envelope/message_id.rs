//! [`MessageId`]: the name of one message of a queue.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::Timestamp;
use crate::hex;
use crate::notification::NotificationId;

/// Name of one message of a queue: the id of its notification, and the moment of its push.
///
/// A notification that is queued again is another message, as after a repeated push or a redrive. A failed attempt that
/// is written in place of its message is the same message.
///
/// The text is `<id of the notification>.<time>`, both in hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// Id of the notification.
    pub notification: NotificationId,
    /// Moment of the push by the queue's clock, in microseconds since the Unix epoch.
    pub at: u64,
}

impl MessageId {
    pub(super) fn of(notification: NotificationId, at: Timestamp) -> Option<Self> {
        Some(Self { notification, at: u64::try_from(at.0).ok()? })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:x}", self.notification.0.as_simple(), self.at)
    }
}

/// Rejection of a text that is no [`MessageId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no message id: it must be 32 hexadecimal digits, a dot, and 1 to 16 hexadecimal digits, in lower case")]
pub struct InvalidMessageId;

impl FromStr for MessageId {
    type Err = InvalidMessageId;

    fn from_str(text: &str) -> Result<Self, InvalidMessageId> {
        let (id, at) = text.split_once('.').ok_or(InvalidMessageId)?;
        // Only the exact form that `Display` writes is accepted.
        if id.len() != 32 || !hex::are_digits(id) {
            return Err(InvalidMessageId);
        }
        let id = Uuid::try_parse(id).map_err(|_| InvalidMessageId)?;
        let at = hex::read_shortest(at).ok_or(InvalidMessageId)?;
        Ok(Self { notification: NotificationId(id), at })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn each_is_read_as_it_was_written(id: u128, at: u64) {
            let message = MessageId { notification: NotificationId(Uuid::from_u128(id)), at };
            prop_assert_eq!(message.to_string().parse(), Ok(message));
        }

        #[test]
        fn what_is_read_is_written_in_the_same_way(text in "[0-9a-fA-F]{31,33}[.-][0-9a-f+ ]{0,18}|.{0,60}") {
            if let Ok(message) = text.parse::<MessageId>() {
                prop_assert_eq!(message.to_string(), text);
            }
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let id = "0191d4c0a1b27c3d8e4f5061728394a5";
        for text in ["", ".", id, &format!("{id}."), &format!("{id}.0f"), &format!("{id}.g"), &format!("{id}.+1")] {
            assert_eq!(text.parse::<MessageId>(), Err(InvalidMessageId), "{text:?}");
        }
        assert!(format!("{id}.65a1b2c3d4e5f").parse::<MessageId>().is_ok());
    }
}
