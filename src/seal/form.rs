//! Form of a sealed text, its binding to its place, and the reasons for which one stays closed.

use std::fmt;

use crate::json::{self, Fields};

/// Name of the field that holds a sealed text.
pub(crate) const FIELD: &str = "sealed";

/// Version of the form. The version stands in each sealed text, so that another form can follow.
pub(crate) const VERSION: u64 = 1;

/// Length of the longest id of a key, in bytes.
pub(crate) const KEY_ID_MAX: usize = 64;

/// Kind of a text that is sealed. A text of one kind does not open as another kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Notification in a queue: its method, params and `_meta`.
    Notification,
    /// Question as its worker poses it.
    #[cfg(feature = "elicitation")]
    Request,
    /// Answer on its way to the worker.
    #[cfg(any(feature = "elicitation", feature = "server"))]
    Answer,
    /// Question among the open questions of a queue.
    #[cfg(any(feature = "elicitation", feature = "server"))]
    OpenQuestion,
    /// State with which a session began.
    #[cfg(feature = "rmcp")]
    Session,
}

impl Purpose {
    /// Returns the name that enters the associated data.
    #[cfg_attr(not(feature = "seal"), expect(dead_code, reason = "nothing is sealed without the feature"))]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Notification => "notification",
            #[cfg(feature = "elicitation")]
            Self::Request => "request",
            #[cfg(any(feature = "elicitation", feature = "server"))]
            Self::Answer => "answer",
            #[cfg(any(feature = "elicitation", feature = "server"))]
            Self::OpenQuestion => "open question",
            #[cfg(feature = "rmcp")]
            Self::Session => "session",
        }
    }
}

/// Place of a sealed text. All parts enter the associated data of the cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Binding<'a> {
    /// Kind of the text.
    pub(crate) purpose: Purpose,
    /// Name of the session's queue, or the key of the task's question. Both begin with the prefix of the fleet.
    pub(crate) owner: &'a str,
    /// Id of the notification or of the question; empty for a session.
    pub(crate) id: &'a str,
}

/// Sealed text as it lies in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sealed<'a> {
    /// Id of the key.
    pub(crate) key: &'a str,
    /// Nonce, ciphertext and tag in base64.
    pub(crate) data: &'a str,
}

impl<'a> Sealed<'a> {
    /// Reads the value of the field `sealed`. Returns `None` where the value is no object: another program may use the
    /// name for another field.
    pub(crate) fn of(value: &'a str) -> Option<Result<Self, Unopened>> {
        let fields = Fields::of(value).ok()?;
        let key = fields.get("k").and_then(plain).filter(|key| id_is_possible(key));
        let refused = |why| Some(Err(Unopened { key: key.unwrap_or_default().to_owned(), why }));
        match fields.get("v").and_then(|version| version.parse().ok()) {
            Some(VERSION) => {}
            Some(other) => return refused(Why::Version(other)),
            None => return refused(Why::Form("v is no whole number")),
        }
        let Some(id) = key else { return refused(Why::Form("k is no id of a key")) };
        let Some(data) = fields.get("n").and_then(plain) else { return refused(Why::Form("n is no base64")) };
        Some(Ok(Self { key: id, data }))
    }
}

/// Returns the text of a JSON string without escapes.
fn plain(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"').filter(|text| json::are_plain(text.as_bytes()))
}

/// Returns whether a key can have this id: 1 to 64 letters, digits, dots, hyphens and underscores.
pub(crate) fn id_is_possible(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=KEY_ID_MAX).contains(&id.len()) && id.bytes().all(is_allowed)
}

/// Reason for which a stored text is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The text is sealed and cannot be opened.
    #[error(transparent)]
    Unopened(#[from] Unopened),
    /// The text is plain, and only sealed ones are accepted.
    #[error("it is not sealed, and only what is sealed is accepted here")]
    Plain,
}

/// Sealed text that cannot be opened here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unopened {
    /// Id of the key; empty where the text names none.
    pub(crate) key: String,
    pub(crate) why: Why,
}

impl fmt::Display for Unopened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is sealed with key {:?} and cannot be opened: {}", self.key, self.why)
    }
}

impl std::error::Error for Unopened {}

/// Reason for which a sealed text cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Why {
    /// The crate was built without the feature.
    #[error("this process is built without the feature `seal`")]
    NoFeature,
    /// The process has no keys at all.
    #[error("this process has no sealing keys")]
    NoKeys,
    /// The process has other keys.
    #[cfg(feature = "seal")]
    #[error("this process has no key of this id")]
    UnknownKey,
    /// The check of the tag failed.
    #[cfg(feature = "seal")]
    #[error("it was changed, or sealed for another place, or with another key of the same id")]
    Changed,
    /// The text has a version of the form that this crate does not know.
    #[error("its form has version {0}, and this process knows version 1 only")]
    Version(u64),
    /// The text has not the form of a sealed text.
    #[error("it has not the form of a sealed text: {0}")]
    Form(&'static str),
}

/// Reason for which a text could not be sealed. Nothing was written then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    /// The operating system gave no random numbers for the nonce.
    #[cfg(feature = "seal")]
    #[error("the system has no random numbers: {0}")]
    NoRandomness(String),
    /// The cipher refused, as for a text of more than 256 GiB.
    #[cfg(feature = "seal")]
    #[error("the cipher refused a text of {0} bytes")]
    Cipher(usize),
    /// The process lacks the key under which the text must be sealed.
    #[cfg(any(feature = "seal", feature = "elicitation", feature = "server"))]
    #[error("this process has no key {0:?}")]
    UnknownKey(String),
}
