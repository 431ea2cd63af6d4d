//! [`Principal`]: the authenticated user to whom a session is bound.

use std::fmt;
use std::sync::Arc;

/// Authenticated user, under the name that a server's authorisation gives: the `sub` of a token, perhaps with its
/// issuer.
///
/// MCP's security best practices want a session bound to its user. A stranger who knows or guesses a session id can
/// then neither take the session over nor push to it. See [`SessionId::bound_to`](crate::SessionId::bound_to).
///
/// A principal has 1 to [`Principal::MAX_LEN`] bytes of UTF-8 without control characters. The name may be a person's
/// address, so `Debug` does not show it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(Arc<str>);

impl Principal {
    /// Length of the longest accepted principal, in bytes.
    pub const MAX_LEN: usize = 512;

    /// Creates a principal from its name.
    ///
    /// # Errors
    /// [`InvalidPrincipal`] where the name is empty, too long or has a control character.
    pub fn new(principal: impl AsRef<str>) -> Result<Self, InvalidPrincipal> {
        let principal = principal.as_ref();
        if principal.is_empty() {
            return Err(InvalidPrincipal::Empty);
        }
        if let Some((position, character)) = principal.chars().enumerate().find(|(_, c)| c.is_control()) {
            return Err(InvalidPrincipal::Character { character, position });
        }
        if principal.len() > Self::MAX_LEN {
            return Err(InvalidPrincipal::TooLong { length: principal.len() });
        }
        Ok(Self(principal.into()))
    }

    /// Returns the whole name. The name may be personal: keep it out of logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Principal(…)")
    }
}

impl std::str::FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(principal: &str) -> Result<Self, Self::Err> {
        Self::new(principal)
    }
}

/// Rejection of a string that cannot name a principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPrincipal {
    /// The string is empty.
    #[error("a principal must have 1 to {max} bytes, and this one is empty", max = Principal::MAX_LEN)]
    Empty,
    /// The string has more than [`Principal::MAX_LEN`] bytes.
    #[error("a principal must have 1 to {max} bytes, and this one has {length}", max = Principal::MAX_LEN)]
    TooLong {
        /// Length of the string, in bytes.
        length: usize,
    },
    /// The string has a control character.
    #[error("a principal must have no control characters, and this one has {character:?} at {position}")]
    Character {
        /// First control character.
        character: char,
        /// Position of the character, counted in characters from 0.
        position: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(Principal::new(""), Err(InvalidPrincipal::Empty));
        assert_eq!(Principal::new("a\nb"), Err(InvalidPrincipal::Character { character: '\n', position: 1 }));
        assert_eq!(Principal::new("ä".repeat(257)), Err(InvalidPrincipal::TooLong { length: 514 }));
        assert_eq!(Principal::new("https://idp.example|Ä").unwrap().as_str(), "https://idp.example|Ä");
    }
}
