//! Keys that a producer gives to a notification, so that the queue recognises a repetition.

use std::borrow::Cow;

use uuid::{Uuid, uuid};

use super::{InvalidNotification, Notification};

/// Namespace of the hashes of deduplication keys.
const DEDUPLICATION: Uuid = uuid!("9d0a6e4c-2b5f-4c0e-8a57-0d5e7c1b3f21");

/// Namespace of the hashes of collapse keys that a producer gives.
const COLLAPSE: Uuid = uuid!("3f6c1f0b-7d54-4a0f-9c2e-5a1e9b8d4c60");

/// Namespace of the hashes of the collapse keys that kinds of notifications have by themselves.
const KIND: Uuid = uuid!("c1a4e2d7-0b3e-4f6a-8f19-6e2d7b5a9c04");

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

/// Choice of the notifications that a notification may replace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Collapse {
    /// Those of the same kind about the same thing, where the kind allows that.
    #[default]
    ByKind,
    /// None.
    Never,
    /// Those with the same key.
    By(KeyHash),
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

/// Collapse.
impl Notification {
    /// Sets the collapse key. While no server owns the session, the notification replaces the newest one that waits
    /// with the same key: that one is discarded as [`Collapsed`](crate::DiscardReason::Collapsed), and this one stands
    /// at the end of the queue. All others keep their order.
    ///
    /// Defaults to a key of the kind, where the newest notification says all that the older ones said:
    /// - `notifications/tools/list_changed`, `prompts/list_changed` and `resources/list_changed`,
    /// - `notifications/resources/updated` with the same `uri`,
    /// - `notifications/progress` with the same `progressToken`.
    ///
    /// [`without_collapse`](Self::without_collapse) and [`Config::collapse`](crate::Config::collapse) turn that off.
    ///
    /// *What is not replaced.* A notification that was pushed while a server owned the session, or before one did, may
    /// have been read, and is never removed by a push. Neither is one with a longer time to live, or with a younger
    /// id. A notification that is pushed again under its id replaces nothing. A session has at most 1,000 keys of
    /// notifications that can be replaced, of 4 KiB each. Notifications beyond these bounds are queued as all others.
    ///
    /// Only a hash of the key goes to Redis.
    ///
    /// ```
    /// use mcp_courier::Notification;
    ///
    /// let score = Notification::new("notifications/score")?.with_collapse_key("game-7")?;
    /// # Ok::<(), mcp_courier::InvalidNotification>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidNotification::KeyLength`] where the key is empty or has more than 256 bytes.
    pub fn with_collapse_key(mut self, key: impl AsRef<str>) -> Result<Self, InvalidNotification> {
        self.collapse = Collapse::By(KeyHash::new(&COLLAPSE, checked("collapse key", key.as_ref())?));
        Ok(self)
    }

    /// Lets the notification replace no other, and be replaced by none
    /// ([`with_collapse_key`](Self::with_collapse_key)).
    pub fn without_collapse(mut self) -> Self {
        self.collapse = Collapse::Never;
        self
    }

    /// Returns the collapse key, that of the kind where `by_kind` is set.
    pub(crate) fn collapse_key(&self, by_kind: bool) -> Option<KeyHash> {
        match self.collapse {
            Collapse::By(key) => Some(key),
            Collapse::ByKind if by_kind => self.key_of_kind(),
            Collapse::ByKind | Collapse::Never => None,
        }
    }

    /// Returns the collapse key of the kind, or `None` where each notification of the kind counts.
    fn key_of_kind(&self) -> Option<KeyHash> {
        let field = |name| self.params.as_ref()?.json(name);
        let about = match self.method.as_str() {
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => Cow::Borrowed(""),
            "notifications/resources/updated" => field("uri")?,
            "notifications/progress" => field("progressToken")?,
            _ => return None,
        };
        Some(KeyHash::new(&KIND, [&self.method, " ", &about].concat().as_bytes()))
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
    fn a_kind_of_which_the_newest_says_all_has_a_key_for_each_thing_that_it_is_about() {
        let progress = |token| Notification::progress(token, 1.0, None, None).unwrap();
        let number = |token: i64| Notification::progress(token, 2.0, None, None).unwrap();
        let text = Notification::new("notifications/progress").unwrap();
        let text = text.with_params_json(r#"{"progress": 7.50, "progressToken": "a"}"#).unwrap();
        let all = [
            Notification::tools_list_changed(),
            Notification::prompts_list_changed(),
            Notification::resources_list_changed(),
            Notification::resource_updated("file:///a"),
            Notification::resource_updated("file:///b"),
            progress("a"),
            progress("1"),
            number(1),
            Notification::tools_list_changed().with_collapse_key("a").unwrap(),
            Notification::new("notifications/x").unwrap().with_collapse_key("b").unwrap(),
        ];
        let keys: Vec<_> = all.iter().map(|notification| notification.collapse_key(true).unwrap()).collect();
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(text.collapse_key(true), Some(keys[5]), "however its producer wrote it");
        assert_eq!(progress("a").with_meta(serde_json::json!({"x": 1})).unwrap().collapse_key(true), Some(keys[5]));
        let by_kind = all.iter().filter(|notification| notification.collapse_key(false).is_none()).count();
        assert_eq!(by_kind, 8, "only explicit keys are left");
    }

    #[test]
    fn of_other_kinds_each_counts() {
        let message = Notification::message(crate::LoggingLevel::Info, None, serde_json::json!("x"));
        let bare = |method| Notification::new(method).unwrap();
        let all = [
            message,
            bare("notifications/tasks/status"),
            bare("notifications/progress"),
            bare("notifications/resources/updated"),
            Notification::tools_list_changed().without_collapse(),
        ];
        assert!(all.iter().all(|notification| notification.collapse_key(true).is_none()));
    }

    #[test]
    fn a_key_has_1_to_256_bytes() {
        for bytes in [0, 257] {
            let error = with_key(&"x".repeat(bytes)).unwrap_err();
            let text = format!("the deduplication key must have 1 to 256 bytes, and this one has {bytes}");
            assert_eq!(error.to_string(), text);
        }
        assert!(Notification::tools_list_changed().with_collapse_key("").is_err());
        assert!(with_key("x").is_ok() && with_key(&"x".repeat(256)).is_ok());
    }
}
