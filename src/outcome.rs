//! Outcomes of a notification: the reason for a discard ([`DiscardReason`]), and the producer's [`Receipt`].

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::envelope::{Timestamp, shortened};
#[cfg(feature = "server")]
use crate::seal::{Refused, Unopened};

/// Reason why a notification was discarded. Each discard is counted and logged, and kept where dead letters are on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DiscardReason {
    /// The notification's time to live was over.
    #[error("it expired")]
    Expired,
    /// The session will never accept the notification.
    #[error("the session rejected it: {0}")]
    Rejected(String),
    /// Every attempt failed.
    #[error("all {attempts} attempts failed, the last with: {last_error}")]
    AttemptsExhausted {
        /// Number of attempts.
        attempts: u32,
        /// Text of the last failed attempt.
        last_error: String,
    },
    /// The notification reports a status of a task whose end was delivered before.
    #[error("its task has ended")]
    Superseded,
    /// A newer notification with the same collapse key replaced the notification, while no server owned the session
    /// ([`Notification::with_collapse_key`](crate::Notification::with_collapse_key)). Such a notification is kept as no
    /// dead letter, and in no log.
    #[error("a newer one replaced it")]
    Collapsed,
    /// The message cannot be decoded.
    #[error("it cannot be decoded: {0}")]
    Undecodable(String),
    /// An operator removed the notification from its queue ([`Inspector::purge`](crate::Inspector::purge)).
    #[error("an operator purged its queue")]
    Purged,
    /// The notification is sealed and the server could not open it ([`Config::sealing`](crate::Config)): the server has
    /// no such key, or the text was changed or moved from another session. A dead letter stays sealed, and can be
    /// redriven once the servers have the key.
    #[error("it is sealed with key {key:?} and cannot be opened: {why}")]
    CannotOpen {
        /// Id of the key; empty where the message names none.
        key: String,
        /// Reason for which the notification stays closed.
        why: String,
    },
    /// The notification is not sealed, and the server accepts sealed ones only.
    #[error("it is not sealed, and only what is sealed is accepted here")]
    NotSealed,
}

#[cfg(feature = "server")]
impl From<&Refused> for DiscardReason {
    fn from(refused: &Refused) -> Self {
        match refused {
            Refused::Unopened(Unopened { key, why }) => Self::CannotOpen { key: key.clone(), why: why.to_string() },
            Refused::Plain => Self::NotSealed,
        }
    }
}

impl DiscardReason {
    pub(crate) fn from_wire(wire: &[u8]) -> Option<Self> {
        serde_json::from_slice(wire).ok()
    }
}

/// Reasons as they are kept.
impl DiscardReason {
    /// Returns the value of the label `reason`.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Rejected(_) => "rejected",
            Self::AttemptsExhausted { .. } => "attempts_exhausted",
            Self::Superseded => "superseded",
            Self::Undecodable(_) => "undecodable",
            Self::Purged => "purged",
            Self::Collapsed => "collapsed",
            Self::CannotOpen { .. } => "cannot_open",
            Self::NotSealed => "not_sealed",
        }
    }

    /// Returns the reason with its text cut to a bounded length.
    pub(crate) fn bounded(&self) -> Self {
        let mut short = self.clone();
        match &mut short {
            Self::Rejected(text)
            | Self::AttemptsExhausted { last_error: text, .. }
            | Self::Undecodable(text)
            | Self::CannotOpen { why: text, .. } => *text = shortened(text).to_owned(),
            Self::Expired | Self::Superseded | Self::Collapsed | Self::Purged | Self::NotSealed => {}
        }
        short
    }

    /// Returns the reason as it is kept in Redis: JSON of one line, and of a bounded length.
    pub(crate) fn to_wire(&self) -> String {
        // The reason has nothing in it that JSON cannot hold.
        serde_json::to_string(&self.bounded()).unwrap_or_default()
    }
}

/// Outcome of a notification whose producer asked for a receipt
/// ([`Notification::with_receipt`](crate::Notification::with_receipt)).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Receipt {
    /// The notification waits for its session, or is being delivered.
    Queued {
        /// Time at which the notification expires, by the clock of the queue.
        expires_at: SystemTime,
    },
    /// The session has accepted and confirmed the notification. This outcome is final.
    Delivered {
        /// Time at which the notification was removed from the queue as delivered, by the clock of the queue.
        at: SystemTime,
    },
    /// The notification was discarded. A dead letter that is redriven is [`Queued`](Self::Queued) again.
    Discarded {
        /// Reason for the discard.
        reason: DiscardReason,
        /// Time of the discard, by the clock of the queue.
        at: SystemTime,
    },
    /// The notification's time to live ended while it was queued and no server owned its queue.
    Expired,
    /// No receipt was asked for, or the receipt was deleted after
    /// [`Config::receipt_life`](crate::Config::receipt_life).
    Unknown,
}

impl Receipt {
    /// Returns whether the outcome is known, or no outcome is to be expected any more.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Queued { .. })
    }

    /// Reads a receipt of Redis: `queued`, `delivered` or `discarded`, a time in µs, and a reason.
    pub(crate) fn from_wire(wire: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(wire).ok()?.splitn(3, ' ');
        let (what, at) = (words.next()?, Timestamp(words.next()?.parse().ok()?).to_system());
        Some(match what {
            "queued" => Self::Queued { expires_at: at },
            "delivered" => Self::Delivered { at },
            "discarded" => Self::Discarded { reason: DiscardReason::from_wire(words.next()?.as_bytes())?, at },
            _ => return None,
        })
    }

    /// Returns the receipt as it is at `now`. `is_owned` says that a server owns the queue and the queue is not empty,
    /// so that the owner settles the receipt.
    pub(crate) fn at(self, now: Timestamp, is_owned: bool) -> Self {
        match self {
            Self::Queued { expires_at } if expires_at <= now.to_system() && !is_owned => Self::Expired,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_survives_the_queue_on_one_line_and_bounded() {
        let reasons = [
            DiscardReason::Expired,
            DiscardReason::Rejected("no\n\"way\"".to_owned()),
            DiscardReason::AttemptsExhausted { attempts: 3, last_error: "é".to_owned() },
            DiscardReason::Superseded,
            DiscardReason::Collapsed,
            DiscardReason::Undecodable("\0".to_owned()),
            DiscardReason::Purged,
            DiscardReason::CannotOpen { key: "k".to_owned(), why: "\n".to_owned() },
            DiscardReason::NotSealed,
        ];
        for reason in reasons {
            let wire = reason.to_wire();
            assert!(!wire.contains('\n'), "{wire}");
            assert_eq!(DiscardReason::from_wire(wire.as_bytes()), Some(reason.clone()));
            let receipt = Receipt::from_wire(format!("discarded 7 {wire}").as_bytes());
            assert_eq!(receipt, Some(Receipt::Discarded { reason, at: Timestamp(7).to_system() }));
        }
        assert!(DiscardReason::Rejected("x".repeat(100_000)).to_wire().len() < 1000);
    }

    #[test]
    fn what_is_queued_is_expired_only_when_its_time_has_passed_and_nobody_owns_it() {
        let queued = Receipt::from_wire(b"queued 10").unwrap();
        let at = |now, is_owned| queued.clone().at(Timestamp(now), is_owned);
        assert_eq!((at(9, false), at(10, true)), (queued.clone(), queued.clone()));
        assert_eq!(at(10, false), Receipt::Expired);
        let delivered = Receipt::Delivered { at: Timestamp(1).to_system() };
        assert_eq!(delivered.clone().at(Timestamp(20), false), delivered);
    }

    #[test]
    fn what_is_no_receipt_says_so() {
        for wire in [b"".as_slice(), b"queued", b"queued x", b"lost 7", b"discarded 7", b"discarded 7 x", b"\xff 1"] {
            assert_eq!(Receipt::from_wire(wire), None);
        }
    }
}
