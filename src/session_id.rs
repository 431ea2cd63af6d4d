//! [`SessionId`]: the id that MCP gives to a session, validated once, and perhaps whose session it is.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{percent_decode_str, utf8_percent_encode};

use crate::error::InvalidSessionId;
use crate::keys::ENCODED;
use crate::principal::Principal;

/// The id of an MCP session, as the header `Mcp-Session-Id` carries it.
///
/// MCP's rule: 1 to [`SessionId::MAX_LEN`] visible ASCII characters (0x21 to 0x7E); the upper bound is ours.
/// A `SessionId` that exists is valid, so nothing behind it checks again.
///
/// Whoever knows a session id can act as its client, so neither `Debug` nor `Display` shows more than its first
/// [`SessionId::SHOWN`] characters. [`as_str`](Self::as_str) gives all of it.
///
/// ```
/// use mcp_courier::SessionId;
///
/// let id = SessionId::new("1f0c2f6e-7a52-4c5e-9a3c-2f0f4a0c9a11")?;
/// assert_eq!(id.to_string(), "1f0c2f6e…");
/// assert!(SessionId::new("with space").is_err());
/// # Ok::<(), mcp_courier::InvalidSessionId>(())
/// ```
///
/// A session may be [bound to](Self::bound_to) the user who began it. It is then another session than the one of the same
/// id that is bound to nobody, or to another: it has other keys, so that nothing that is meant for the one can reach the
/// other.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    id: Arc<str>,
    principal: Option<Principal>,
}

impl SessionId {
    /// The longest id that is accepted, in characters.
    pub const MAX_LEN: usize = 256;

    /// How many characters of an id `Debug` and `Display` show.
    pub const SHOWN: usize = 8;

    /// Checks an id.
    ///
    /// # Errors
    /// [`InvalidSessionId`] says whether it is empty, too long, or which character it may not contain and where.
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

    /// The session of that id which is this user's.
    ///
    /// ```
    /// use mcp_courier::{Principal, SessionId};
    ///
    /// let session = SessionId::new("1f0c2f6e")?.bound_to(Principal::new("alice@example.com")?);
    /// assert_eq!(session.encode(), "alice%40example.com:1f0c2f6e");
    /// assert_eq!(SessionId::decode(&session.encode()), Some(session));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn bound_to(self, principal: Principal) -> Self {
        Self { principal: Some(principal), ..self }
    }

    /// The whole id. It is a secret: keep it out of logs.
    pub fn as_str(&self) -> &str {
        &self.id
    }

    /// Whose session it is, where it is bound to anyone.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// All of it in one string, as it stands in keys and as a worker can be given it: the id, percent-encoded outside
    /// `A-Za-z0-9._~-`, and before it the principal, encoded too, and a colon.
    pub fn encode(&self) -> String {
        let id = utf8_percent_encode(&self.id, ENCODED);
        match &self.principal {
            Some(principal) => format!("{}:{id}", utf8_percent_encode(principal.as_str(), ENCODED)),
            None => id.to_string(),
        }
    }

    /// What [`encode`](Self::encode) made; `None` for what it cannot have made.
    pub fn decode(encoded: &str) -> Option<Self> {
        let text = |encoded| percent_decode_str(encoded).decode_utf8().ok();
        let (principal, id) = match encoded.split_once(':') {
            Some((principal, id)) => (Some(Principal::new(text(principal)?).ok()?), id),
            None => (None, encoded),
        };
        let decoded = Self { principal, ..Self::new(text(id)?).ok()? };
        // What is not as we write it would be another's key.
        (decoded.encode() == encoded).then_some(decoded)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.id[..self.id.len().min(Self::SHOWN)];
        f.write_str(shown)?;
        if shown.len() < self.id.len() {
            f.write_str("…")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({self})")
    }
}

impl std::str::FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        Self::new(id)
    }
}

impl TryFrom<&str> for SessionId {
    type Error = InvalidSessionId;

    fn try_from(id: &str) -> Result<Self, Self::Error> {
        Self::new(id)
    }
}

impl TryFrom<String> for SessionId {
    type Error = InvalidSessionId;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(id)
    }
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
    fn debug_and_display_hide_the_rest() {
        let id = SessionId::new("0123456789abcdef").unwrap();
        assert_eq!(format!("{id} {id:?}"), "01234567… SessionId(01234567…)");
        assert_eq!(SessionId::new("short").unwrap().to_string(), "short");
    }
}
