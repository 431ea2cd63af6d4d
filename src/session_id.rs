//! [`SessionId`]: the id that MCP gives to a session, validated once.

use std::fmt;
use std::sync::Arc;

use crate::error::InvalidSessionId;

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
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

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
        Ok(Self(id.into()))
    }

    /// The whole id. It is a secret: keep it out of logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(Self::SHOWN)];
        f.write_str(shown)?;
        if shown.len() < self.0.len() {
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
