//! [`SealingKeys`]: the keys of one process, by their ids.

use std::fmt;
use std::sync::Arc;

use super::cipher::{self, NONCE};
use super::form::{Binding, SealError, Sealed, VERSION, Why, id_is_possible};
use super::key::{InvalidSealingKey, SealingKey};

/// Keys by which a process seals payloads before they go to Redis, and opens them: see
/// [`Config::sealing`](crate::Config::sealing).
///
/// Sealed are notifications with their methods, questions, answers, and stored sessions. Each names the id of its key,
/// so that the key can be changed while the fleet runs. First all processes get the new key as one that
/// [may open](Self::may_open). Then it becomes the one that [seals](Self::sealing). The old one is removed last.
///
/// ```
/// use mcp_courier::{Config, SealingKey, SealingKeys};
///
/// let (new, old) = (SealingKey::generate()?, SealingKey::generate()?);
/// let keys = SealingKeys::sealing("2026-11", new)?.may_open("2026-05", old)?;
/// assert_eq!(format!("{keys:?}"), r#"SealingKeys { seals: Some("2026-11"), opens: ["2026-11", "2026-05"], required: false }"#);
/// let config = Config::builder().sealing(keys).build()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct SealingKeys {
    /// Keys by their ids. The first is the primary one, where the process seals.
    keys: Vec<Arc<(String, SealingKey)>>,
    seals: bool,
    is_required: bool,
}

impl SealingKeys {
    /// Creates the keys of a process that seals with this key, the primary one. An id has 1 to 64 letters, digits,
    /// dots, hyphens and underscores. It stands in Redis and in logs beside each payload.
    ///
    /// # Errors
    /// [`InvalidSealingKey::Id`] where the id cannot be used.
    pub fn sealing(id: impl Into<String>, key: SealingKey) -> Result<Self, InvalidSealingKey> {
        Self { keys: Vec::new(), seals: true, is_required: false }.may_open(id, key)
    }

    /// Creates the keys of a process that seals nothing and may open payloads of this key. A fleet begins so: every
    /// process must be able to open before the first one seals.
    ///
    /// Such a process seals two texts nevertheless: the answer to a sealed question, and the open question itself. Both
    /// are sealed under the key of the question.
    ///
    /// # Errors
    /// [`InvalidSealingKey::Id`] where the id cannot be used.
    pub fn opening(id: impl Into<String>, key: SealingKey) -> Result<Self, InvalidSealingKey> {
        Self { keys: Vec::new(), seals: false, is_required: false }.may_open(id, key)
    }

    /// Adds a key that opens payloads, and seals none. For the next key before its time, and for the last key until
    /// nothing that it sealed is left.
    ///
    /// # Errors
    /// [`InvalidSealingKey::Id`] where the id cannot be used, and [`InvalidSealingKey::Repeated`] where another key has
    /// this id.
    pub fn may_open(mut self, id: impl Into<String>, key: SealingKey) -> Result<Self, InvalidSealingKey> {
        let id = id.into();
        if !id_is_possible(&id) {
            return Err(InvalidSealingKey::Id { id });
        }
        if self.find(&id).is_some() {
            return Err(InvalidSealingKey::Repeated { id });
        }
        self.keys.push(Arc::new((id, key)));
        Ok(self)
    }

    /// Demands that whatever is read is sealed. Plain notifications are discarded, plain questions are cancelled, and
    /// plain sessions count as unknown. Without this call plain payloads are used as before, such as FastMCP's.
    ///
    /// Set this last, once no worker pushes plain payloads any more. Whoever can write to Redis could otherwise push
    /// without a key.
    pub fn required(mut self) -> Self {
        self.is_required = true;
        self
    }

    /// Returns the id of the key that seals, if this process seals.
    pub fn primary(&self) -> Option<&str> {
        self.keys.first().filter(|_| self.seals).map(|key| key.0.as_str())
    }

    /// Returns the ids of all keys that open, the primary one first.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.0.as_str())
    }

    /// Returns whether plain payloads are refused.
    pub fn is_required(&self) -> bool {
        self.is_required
    }

    fn find(&self, id: &str) -> Option<&SealingKey> {
        self.keys.iter().find(|key| key.0 == id).map(|key| &key.1)
    }

    pub(super) fn open(&self, sealed: &Sealed<'_>, binding: &Binding<'_>) -> Result<String, Why> {
        let key = self.find(sealed.key).ok_or(Why::UnknownKey)?;
        cipher::open(sealed.key, key, binding, sealed.data)
    }

    /// Seals a text under the key of this id, with a random nonce. Returns the JSON object of the field `sealed`.
    ///
    /// # Errors
    /// [`SealError`]: there is no such key, or the system has no random numbers.
    pub(crate) fn seal(&self, id: &str, binding: &Binding<'_>, text: &str) -> Result<String, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|error| SealError::NoRandomness(error.to_string()))?;
        self.seal_with(nonce, id, binding, text)
    }

    /// Seals a text under a given nonce, which is never used for a second text.
    pub(super) fn seal_with(
        &self,
        nonce: [u8; NONCE],
        id: &str,
        binding: &Binding<'_>,
        text: &str,
    ) -> Result<String, SealError> {
        let key = self.find(id).ok_or_else(|| SealError::UnknownKey(id.to_owned()))?;
        let data = cipher::seal(id, key, nonce, binding, text)?;
        // Neither an id nor base64 needs an escape.
        Ok(format!("{{\"v\":{VERSION},\"k\":\"{id}\",\"n\":\"{data}\"}}"))
    }
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKeys")
            .field("seals", &self.primary())
            .field("opens", &self.ids().collect::<Vec<_>>())
            .field("required", &self.is_required)
            .finish()
    }
}
