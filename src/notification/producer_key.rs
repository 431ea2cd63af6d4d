//! Keys that a producer gives to a notification, so that the queue recognises a repetition.

use uuid::{Uuid, uuid};

use super::{InvalidNotification, Notification};

/// Namespace of the hashes of deduplication keys.
const DEDUPLICATION: Uuid = uuid!("9d0a6e4c-2b5f-4c0e-8a57-0d5e7c1b3f21");

/// Largest length of a producer's key, in bytes.
pub(crate) const KEY_MAX_BYTES: usize = 256;

/// Hash of a producer's key, by which the queue knows the key. The key itself never leaves the producer's process.
///
/// The hash is a UUID of version 5, which has 122 bits of a SHA-1. Equal keys have equal hashes. A reader of Redis can
/// therefore check a guess, as with any hash without a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyHash(Uuid);

impl KeyHash {
    fn new(namespace: &Uuid, key: &[u8]) -> Self {
        Self(Uuid::new_v5(namespace, key))
    }

    /// Returns the 16 bytes under which the queue keeps the key.
    pub(crate) fn as_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }
}

impl Notification {
    /// Sets the deduplication key. A later push to the same session with the same key queues nothing. Its answer names
    /// the notification that was queued first, and says [`Pushed::is_duplicate`](crate::Pushed::is_duplicate). Defaults
    /// to no key.
    ///
    /// A worker that restarts and pushes its work again uses this, with a key that it can compute again: the id of its
    /// job, or of its step. A key is remembered for
    /// [`Config::deduplication_window`](crate::Config::deduplication_window) after the push that queued its
    /// notification, whether that one is queued, delivered, discarded or expired. A refused push leaves no key. Only a
    /// hash of the key goes to Redis. A FastMCP worker sets no key and knows none.
    ///
    /// ```
    /// use mcp_courier::Notification;
    ///
    /// let done = Notification::new("notifications/done")?.with_deduplication_key("job-17/done")?;
    /// assert!(Notification::new("notifications/done")?.with_deduplication_key("").is_err());
    /// # Ok::<(), mcp_courier::InvalidNotification>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidNotification::KeyLength`] where the key is empty or has more than 256 bytes.
    pub fn with_deduplication_key(mut self, key: impl AsRef<str>) -> Result<Self, InvalidNotification> {
        let key = checked("deduplication key", key.as_ref())?;
        self.deduplication_key = Some(KeyHash::new(&DEDUPLICATION, key));
        Ok(self)
    }
}

/// Checks the length of a key, and returns its bytes.
fn checked<'a>(name: &'static str, key: &'a str) -> Result<&'a [u8], InvalidNotification> {
    match key.len() {
        1..=KEY_MAX_BYTES => Ok(key.as_bytes()),
        bytes => Err(InvalidNotification::KeyLength { name, bytes, limit: KEY_MAX_BYTES }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_key(key: &str) -> Result<Notification, InvalidNotification> {
        Notification::tools_list_changed().with_deduplication_key(key)
    }

    #[test]
    fn equal_keys_have_equal_hashes_and_no_others_have() {
        let hash = |key| with_key(key).unwrap().deduplication_key.unwrap();
        assert_eq!(hash("job-1"), hash("job-1"));
        assert_ne!(hash("job-1"), hash("job-2"));
        assert_eq!(Notification::tools_list_changed().deduplication_key, None);
    }

    #[test]
    fn a_key_has_1_to_256_bytes() {
        for bytes in [0, 257] {
            let error = with_key(&"x".repeat(bytes)).unwrap_err();
            let text = format!("the deduplication key must have 1 to 256 bytes, and this one has {bytes}");
            assert_eq!(error.to_string(), text);
        }
        assert!(with_key("x").is_ok() && with_key(&"x".repeat(256)).is_ok());
    }
}
