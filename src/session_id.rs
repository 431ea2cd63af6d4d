//! [`SessionId`]: the validated id of an MCP session, and the user to whom the session is bound.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::principal::{InvalidPrincipal, Principal};

/// Characters that are percent-encoded in the texts of session ids and tasks: all but `A-Za-z0-9._~-`. A key then has
/// no `:` by which the sessions `a` and `a:lease` could collide, and no brace, which has a meaning in Redis Cluster.
pub(crate) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'~').remove(b'-');

/// Id of an MCP session, and the user to whom the session is bound, if any.
///
/// The id is 1 to [`SessionId::MAX_LEN`] visible ASCII characters (0x21 to 0x7E). MCP defines the characters, and this
/// crate the upper bound. A `SessionId` that exists is valid.
///
/// # Text
/// A session id has two texts. Both contain a secret.
///
/// - The value of the header `Mcp-Session-Id` names no user. [`new`](Self::new) reads this text, and
///   [`as_str`](Self::as_str) returns it.
/// - The whole form is for everything else: `Display`, `FromStr` and serde write and read it. A server's handler passes
///   this form to a worker, which parses it and reaches the same session. The keys in Redis contain it too. The form is
///   `ID` or `PRINCIPAL:ID`, with each part percent-encoded outside `A-Za-z0-9._~-`. A UUID is not changed.
///
/// Anyone who knows a session id can act as its client. For logs and errors, use `Debug`: it shows the first
/// [`SessionId::SHOWN`] characters of the id, and no principal.
///
/// ```
/// use mcp_courier::{Principal, SessionId};
///
/// let of_header = SessionId::new("1f0c2f6e-7a52-4c5e-9a3c-2f0f4a0c9a11")?;
/// assert_eq!(format!("{of_header:?}"), "1f0c2f6e…");
/// assert_eq!(of_header.to_string().parse::<SessionId>()?, of_header);
///
/// let of_alice = of_header.bound_to(Principal::new("alice@example.com")?);
/// assert_eq!(of_alice.to_string(), "alice%40example.com:1f0c2f6e-7a52-4c5e-9a3c-2f0f4a0c9a11");
/// assert_eq!(of_alice.to_string().parse::<SessionId>()?, of_alice);
///
/// assert!(SessionId::new("with space").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Principal
/// A session can be [bound to](Self::bound_to) the user who began it. Such a session differs from the session of the
/// same id that is bound to nobody, or to another user. Their keys in Redis differ, so a notification for one never
/// reaches the other.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    id: Arc<str>,
    /// User of the session. It is a part of the whole form, and so of the keys in Redis.
    principal: Option<Principal>,
}

impl SessionId {
    /// Length of the longest accepted id, in characters.
    pub const MAX_LEN: usize = 256;

    /// Number of characters of an id that `Debug` shows.
    pub const SHOWN: usize = 8;

    /// Reads the value of the header `Mcp-Session-Id`. The session is bound to nobody.
    ///
    /// # Errors
    /// [`InvalidSessionId`] where the value is empty, too long, or has a character that MCP forbids.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidSessionId> {
        let id = id.as_ref();
        if id.is_empty() {
            return Err(InvalidSessionId::Empty);
        }
        if let Some((position, character)) = id.chars().enumerate().find(|(_, c)| !c.is_ascii_graphic()) {
            return Err(InvalidSessionId::Character { character, position });
        }
        if id.len() > Self::MAX_LEN {
            return Err(InvalidSessionId::TooLong { length: id.len() });
        }
        Ok(Self { id: id.into(), principal: None })
    }

    /// Binds the session to a user, in place of the user it was bound to before.
    #[must_use]
    pub fn bound_to(self, principal: Principal) -> Self {
        Self { principal: Some(principal), ..self }
    }

    /// Returns the value of the header `Mcp-Session-Id`. The value is a secret: keep it out of logs.
    pub fn as_str(&self) -> &str {
        &self.id
    }

    /// Returns the user to whom the session is bound, if any.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// Returns a text that others wrote with this id shortened, as `Debug` does. rmcp's errors have the whole id.
    #[cfg(feature = "rmcp")]
    pub(crate) fn shortened_in(&self, text: impl fmt::Display) -> String {
        text.to_string().replace(self.as_str(), &format!("{self:?}"))
    }
}

/// Writes the whole form, which is a secret: keep it out of logs.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(principal) = &self.principal {
            write!(f, "{}:", utf8_percent_encode(principal.as_str(), ENCODED))?;
        }
        write!(f, "{}", utf8_percent_encode(&self.id, ENCODED))
    }
}

/// Writes the first [`SessionId::SHOWN`] characters of the id, for logs and errors.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.id[..self.id.len().min(Self::SHOWN)];
        f.write_str(shown)?;
        if shown.len() < self.id.len() {
            f.write_str("…")?;
        }
        Ok(())
    }
}

/// Reads the whole form, as `Display` writes it.
impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(whole: &str) -> Result<Self, Self::Err> {
        let text = |encoded| percent_decode_str(encoded).decode_utf8().map_err(|_| InvalidSessionId::NotEncoded);
        let (principal, id) = match whole.split_once(':') {
            Some((principal, id)) => (Some(Principal::new(text(principal)?)?), id),
            None => (None, whole),
        };
        let read = Self { principal, ..Self::new(text(id)?)? };
        // Another spelling of the same id would name another key in Redis, so it is refused.
        if read.to_string() == whole { Ok(read) } else { Err(InvalidSessionId::NotEncoded) }
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Status of a session in the fleet, as a push found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionStatus {
    /// A server owns the queue of the session, and delivers.
    Owned,
    /// No server owns the queue, and a session store of the fleet remembers the session: the client may come back.
    Known,
    /// No server owns the queue, and no session store remembers the session. The session has not begun, or has ended,
    /// or its id is wrong.
    ///
    /// A fleet without a session store remembers no session. Its sessions are unknown whenever their clients have no
    /// stream.
    Unknown,
    /// The status was not read. Either reading failed after the push, or the sessions are those of FastMCP servers,
    /// which hold no lease ([`Config::fastmcp_servers`](crate::Config::fastmcp_servers)).
    NotRead,
}

impl SessionStatus {
    /// Returns the value of the label `session`.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Owned => "owned",
            Self::Known => "known",
            Self::Unknown => "unknown",
            Self::NotRead => "not_read",
        }
    }
}

/// Rejection of a string that is no session id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSessionId {
    /// The string is empty.
    #[error("a session id must have 1 to {max} characters, and this one is empty", max = SessionId::MAX_LEN)]
    Empty,
    /// The string has more than [`SessionId::MAX_LEN`] characters.
    #[error("a session id must have 1 to {max} characters, and this one has {length}", max = SessionId::MAX_LEN)]
    TooLong {
        /// Number of characters.
        length: usize,
    },
    /// The string has a character outside visible ASCII.
    #[error(
        "a session id may contain visible ASCII characters (0x21 to 0x7E) only, and this one has {character:?} at {position}"
    )]
    Character {
        /// First such character.
        character: char,
        /// Position of the character, counted in characters from 0.
        position: usize,
    },
    /// The part before the colon is no principal.
    #[error(transparent)]
    Principal(#[from] InvalidPrincipal),
    /// The text differs from the form that `Display` of [`SessionId`] writes.
    #[error(
        "a session id must be percent-encoded outside A-Za-z0-9._~-, as Display writes it; \
         the value of the header Mcp-Session-Id is read by SessionId::new"
    )]
    NotEncoded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_visible_ascii_character_is_allowed() {
        let all: String = (0x21..=0x7e_u8).map(char::from).collect();
        assert_eq!(SessionId::new(&all).unwrap().as_str(), all);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(SessionId::new(""), Err(InvalidSessionId::Empty));
        assert_eq!(SessionId::new("a b"), Err(InvalidSessionId::Character { character: ' ', position: 1 }));
        assert_eq!(SessionId::new("naïve"), Err(InvalidSessionId::Character { character: 'ï', position: 2 }));
        assert_eq!(SessionId::new("x".repeat(257)), Err(InvalidSessionId::TooLong { length: 257 }));
        assert!(SessionId::new("x".repeat(256)).is_ok());
    }

    #[test]
    fn debug_hides_the_rest_and_the_principal() {
        let id = SessionId::new("0123456789abcdef").unwrap();
        assert_eq!(format!("{id:?}"), "01234567…");
        assert_eq!(format!("{:?}", id.bound_to(Principal::new("alice").unwrap())), "01234567…");
        assert_eq!(format!("{:?}", SessionId::new("short").unwrap()), "short");
    }

    #[test]
    #[cfg(feature = "rmcp")]
    fn an_id_is_shortened_in_the_text_of_another() {
        let id = SessionId::new("0123456789abcdef").unwrap().bound_to(Principal::new("alice").unwrap());
        assert_eq!(id.shortened_in("Session not found: 0123456789abcdef"), "Session not found: 01234567…");
    }

    #[test]
    fn what_display_or_serde_wrote_is_read_back_as_the_same_session() {
        for id in ["1f0c2f6e-7a52-4c5e-9a3c-2f0f4a0c9a11", "a:b", "100%", "%41", "a/b+c{d}", ":", "…"] {
            let Ok(id) = SessionId::new(id) else { continue };
            for session in [id.clone(), id.bound_to(Principal::new("Ä: 100%@example.com").unwrap())] {
                assert_eq!(session.to_string().parse(), Ok(session.clone()), "{session}");
                let json = serde_json::to_string(&session).unwrap();
                assert_eq!(json, format!("\"{session}\""));
                assert_eq!(serde_json::from_str::<SessionId>(&json).unwrap(), session);
            }
        }
    }

    #[test]
    fn no_second_text_names_the_same_session() {
        for text in ["a/b", "%61", "%3a", "a%2Fb:c/d", "a:b:c", "100%"] {
            assert_eq!(text.parse::<SessionId>(), Err(InvalidSessionId::NotEncoded), "{text}");
        }
        assert_eq!("".parse::<SessionId>(), Err(InvalidSessionId::Empty));
        assert_eq!("alice:".parse::<SessionId>(), Err(InvalidSessionId::Empty));
        assert_eq!(":a".parse::<SessionId>(), Err(InvalidSessionId::Principal(InvalidPrincipal::Empty)));
        assert!(serde_json::from_str::<SessionId>("\"a/b\"").is_err());
    }
}
