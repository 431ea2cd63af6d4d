//! Payloads sealed at rest: form of a sealed text, its binding to its place, and the reasons for which one stays
//! closed.
//!
//! ```json
//! {"v": 1, "k": "2026-11", "n": "<base64 of 24 bytes of nonce, the ciphertext, and 16 bytes of tag>"}
//! ```
//!
//! *Cipher*. XChaCha20-Poly1305. Its nonce of 192 bits is drawn at random for each text. No counter has to be shared
//! between processes.
//!
//! *Binding*. A sealed text opens only with the [`Binding`] under which it was sealed. The binding names the purpose,
//! the queue or the task, and the id of the notification or question. A text that is moved to another session therefore
//! does not open, nor does a question that is used as an answer.
//!
//! *Without the feature `seal`* the type of the keys has no value. All code that seals is then removed by the compiler,
//! and a sealed text still gets its reason.

#[cfg(not(feature = "seal"))]
mod absent;
#[cfg(feature = "seal")]
mod cipher;
mod form;
#[cfg(feature = "seal")]
mod key;
#[cfg(feature = "seal")]
mod keys;

#[cfg(not(feature = "seal"))]
pub(crate) use self::absent::SealingKeys;
#[cfg(all(test, feature = "seal", feature = "server"))]
pub(crate) use self::form::Why;
pub(crate) use self::form::{Binding, FIELD, Purpose, Refused, SealError, Sealed, Unopened, id_is_possible};
#[cfg(feature = "seal")]
pub use self::key::{InvalidSealingKey, SealingKey};
#[cfg(feature = "seal")]
pub use self::keys::SealingKeys;

/// Returns the keys and the id of the primary one, where this process seals.
pub(crate) fn sealer(keys: Option<&SealingKeys>) -> Option<(&SealingKeys, &str)> {
    keys.and_then(|keys| Some((keys, keys.primary()?)))
}

impl Sealed<'_> {
    /// Opens the text with the key that it names.
    ///
    /// # Errors
    /// [`Unopened`] names the key and the reason.
    pub(crate) fn open(&self, keys: Option<&SealingKeys>, binding: &Binding<'_>) -> Result<String, Unopened> {
        let opened = match keys {
            Some(keys) => keys.open(self, binding),
            None if cfg!(feature = "seal") => Err(form::Why::NoKeys),
            None => Err(form::Why::NoFeature),
        };
        opened.map_err(|why| Unopened { key: self.key.to_owned(), why })
    }
}

#[cfg(all(test, feature = "seal", feature = "elicitation", feature = "rmcp"))]
mod tests;
