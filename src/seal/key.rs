//! [`SealingKey`]: one secret key of 32 bytes.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::form::KEY_ID_MAX;

/// Reader of base64 with or without padding, as people copy keys in both forms.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Secret key of 32 bytes, which seals payloads and opens them: see [`SealingKeys`](crate::SealingKeys).
///
/// A key is drawn at random once, as by `openssl rand -base64 32`, and then given to each process of the fleet as a
/// secret. Its memory is overwritten when the key is dropped, and `Debug` does not show the key. A text from which a
/// key was read stays the caller's to erase.
///
/// ```
/// use mcp_courier::SealingKey;
///
/// let key = SealingKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")?;
/// assert_eq!(key, SealingKey::from_hex("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")?);
/// assert_eq!(format!("{key:?}"), "SealingKey(…)");
/// # Ok::<(), mcp_courier::InvalidSealingKey>(())
/// ```
#[derive(Clone)]
pub struct SealingKey(Box<Zeroizing<[u8; Self::LENGTH]>>);

impl SealingKey {
    /// Length of a key, in bytes.
    pub const LENGTH: usize = 32;

    /// Creates a key from its bytes.
    ///
    /// # Errors
    /// [`InvalidSealingKey::Length`] where these are not 32 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSealingKey> {
        let mut key = Self::empty();
        if bytes.len() != Self::LENGTH {
            return Err(InvalidSealingKey::Length { found: bytes.len() });
        }
        key.0.copy_from_slice(bytes);
        Ok(key)
    }

    /// Creates a key from base64 of the standard alphabet, with padding or without. Space around the text is ignored.
    ///
    /// # Errors
    /// [`InvalidSealingKey::Text`] where the text is no base64, and [`InvalidSealingKey::Length`] where it is not of 32
    /// bytes. The error does not show the text.
    pub fn from_base64(text: &str) -> Result<Self, InvalidSealingKey> {
        let decoded = BASE64.decode(text.trim()).map(Zeroizing::new);
        Self::from_bytes(&decoded.map_err(|_| InvalidSealingKey::Text { form: "base64" })?)
    }

    /// Creates a key from 64 hexadecimal digits of either case. Space around the text is ignored.
    ///
    /// # Errors
    /// [`InvalidSealingKey::Text`] where the text has other characters, and [`InvalidSealingKey::Length`] where it is
    /// not of 32 bytes. The error does not show the text.
    pub fn from_hex(text: &str) -> Result<Self, InvalidSealingKey> {
        let text = text.trim();
        let wrong = InvalidSealingKey::Text { form: "hexadecimal" };
        if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong);
        }
        if text.len() != 2 * Self::LENGTH {
            return Err(InvalidSealingKey::Length { found: text.len() / 2 });
        }
        let mut key = Self::empty();
        for (byte, at) in key.0.iter_mut().zip((0..text.len()).step_by(2)) {
            *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| wrong.clone())?;
        }
        Ok(key)
    }

    /// Draws a new key from the random numbers of the operating system.
    ///
    /// # Errors
    /// [`InvalidSealingKey::NoRandomness`] where the system gives none.
    pub fn generate() -> Result<Self, InvalidSealingKey> {
        let mut key = Self::empty();
        getrandom::fill(key.0.as_mut_slice())
            .map_err(|error| InvalidSealingKey::NoRandomness { why: error.to_string() })?;
        Ok(key)
    }

    fn empty() -> Self {
        Self(Box::new(Zeroizing::new([0; Self::LENGTH])))
    }

    pub(super) fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl PartialEq for SealingKey {
    /// Compares all bytes, so that the time of the comparison does not depend on them.
    fn eq(&self, other: &Self) -> bool {
        let differences = self.0.iter().zip(other.0.iter()).fold(0, |all, (a, b)| all | (a ^ b));
        std::hint::black_box(differences) == 0
    }
}

impl Eq for SealingKey {}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(…)")
    }
}

/// Rejection of a sealing key or of its id. No error shows a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSealingKey {
    /// The key has another length.
    #[error("a sealing key must have 32 bytes, and this one has {found}")]
    Length {
        /// Length of the key, in bytes.
        found: usize,
    },
    /// The text of the key has not the form that it should have.
    #[error("the text of a sealing key must be {form}, and this one is not")]
    Text {
        /// Name of the form.
        form: &'static str,
    },
    /// The id of the key cannot be used.
    #[error(
        "the id of a sealing key must have 1 to {max} letters, digits, dots, hyphens and underscores, and this one is {id:?}",
        max = KEY_ID_MAX
    )]
    Id {
        /// Id that was given.
        id: String,
    },
    /// Two keys have the same id, so a sealed payload would not say which of them opens it.
    #[error("two sealing keys have the id {id:?}")]
    Repeated {
        /// Id of both keys.
        id: String,
    },
    /// The operating system gave no random numbers.
    #[error("the system has no random numbers for a sealing key: {why}")]
    NoRandomness {
        /// Text of the system's error.
        why: String,
    },
}
