//! [`InvalidNotification`]: reason why a notification cannot be made.

use std::time::Duration;

/// Reason why a notification was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNotification {
    /// The method is not that of a notification.
    #[error(
        "the method of a notification must begin with \"notifications/\" and name one, and this one is {}",
        shown(method)
    )]
    Method {
        /// Method that was given.
        method: String,
    },
    /// `params` is neither an object nor absent.
    #[error("the params of a notification must be a JSON object, and these are {found}")]
    Params {
        /// Kind of JSON that was given.
        found: &'static str,
    },
    /// `_meta` is neither an object nor absent.
    #[error("the _meta of a notification must be a JSON object, and this one is {found}")]
    Meta {
        /// Kind of JSON that was given.
        found: &'static str,
    },
    /// The text for `params` or `_meta` is no JSON.
    #[error("the {field} of a notification must be a JSON object, and the text given is none: {why}")]
    Json {
        /// Name of the field, `params` or `_meta`.
        field: &'static str,
        /// Reason, with its position in the text.
        why: String,
    },
    /// JSON cannot hold the number, which is infinite or not a number.
    #[error("{field} must be a finite number")]
    NotFinite {
        /// Name of the field.
        field: &'static str,
    },
    /// The time to live is out of range.
    #[error("the time to live of a notification must be 1 ms to 365 days, and this one is {given:?}")]
    TimeToLive {
        /// Time to live that was given.
        given: Duration,
    },
    /// A key is empty or too long.
    #[error("the {name} must have 1 to {limit} bytes, and this one has {bytes}")]
    KeyLength {
        /// Kind of the key.
        name: &'static str,
        /// Length that was given, in bytes.
        bytes: usize,
        /// Largest length allowed, in bytes.
        limit: usize,
    },
}

/// Returns a method as an error shows it: the beginning of what looks like one, and else its length. A URL with a password
/// or the id of a session may stand in its place.
fn shown(method: &str) -> String {
    let looks_like_one = method.bytes().all(|b| b.is_ascii_alphabetic() || b"/_.-".contains(&b));
    let beginning = method.chars().take(64).collect::<String>();
    if looks_like_one { format!("{beginning:?}") } else { format!("a text of {} bytes", method.len()) }
}
