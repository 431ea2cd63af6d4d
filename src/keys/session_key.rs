//! [`SessionKey`]: a key that was found in Redis, read back into its prefix and its session.

use super::Keys;
use crate::notification::NotificationId;
use crate::session_id::SessionId;

/// Key of a session, under any prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SessionKey {
    pub(crate) prefix: String,
    pub(crate) session: SessionId,
    pub(crate) kind: SessionKeyKind,
}

/// Content of a session's key. The order is the order in which a list of sessions prefers them: a session is listed for
/// the first of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SessionKeyKind {
    /// State with which the session began, or the mark of its end.
    Stored,
    Queue,
    Lease,
    DeadLetters,
    Questions,
    Receipt(NotificationId),
}

impl SessionKey {
    /// Reads a key of any prefix; `None` where the key is not that of a session. A key that could be of two prefixes
    /// counts as one of `own`.
    pub(crate) fn read(own: &Keys, key: &str) -> Option<Self> {
        if let Some((session, kind)) = own.session_key(key) {
            return Some(Self { prefix: own.prefix.clone(), session, kind });
        }
        [":notifications:", ":session:"].iter().find_map(|word| {
            let prefix = &key[..key.find(word)?];
            // Without a hash tag in the prefix, the brace belongs to the queue's name.
            let prefix = prefix.strip_prefix('{').filter(|prefix| !prefix.contains('}')).unwrap_or(prefix);
            let (session, kind) = Keys::new(prefix).session_key(key).filter(|_| !prefix.is_empty())?;
            Some(Self { prefix: prefix.to_owned(), session, kind })
        })
    }
}

impl Keys {
    /// Returns the session and the content of a key; `None` where the key is none of these keys of a session.
    pub(crate) fn session_key(&self, key: &str) -> Option<(SessionId, SessionKeyKind)> {
        if let Some(session) = key.strip_prefix(&self.session_prefix()) {
            return Some((session.parse().ok()?, SessionKeyKind::Stored));
        }
        let (rest, end) = if self.prefix.contains('{') {
            (key.strip_prefix(&self.of_all())?, "::")
        } else if let Some(key) = key.strip_prefix('{') {
            (key.strip_prefix(&self.of_all())?, "}:")
        } else {
            return Some((key.strip_prefix(&self.of_all())?.parse().ok()?, SessionKeyKind::Queue));
        };
        let (session, kind) = match rest.split_once(end) {
            None => (rest, SessionKeyKind::Queue),
            Some((session, "lease")) => (session, SessionKeyKind::Lease),
            Some((session, "dead")) => (session, SessionKeyKind::DeadLetters),
            Some((session, "questions")) => (session, SessionKeyKind::Questions),
            Some((session, other)) => {
                let id = other.strip_prefix("receipt:")?.parse().ok()?;
                (session, SessionKeyKind::Receipt(NotificationId(id)))
            }
        };
        Some((session.parse().ok()?, kind))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::principal::Principal;

    fn session_id() -> impl Strategy<Value = SessionId> {
        let id = "[!-~]{1,20}|[a-c:]{1,4}|lease|session|notifications".prop_map(|id| SessionId::new(id).unwrap());
        let principal = prop::option::of("\\PC{1,9}|[a-c:]{1,4}|session".prop_map(|p| Principal::new(p).unwrap()));
        (id, principal).prop_map(|(id, principal)| match principal {
            Some(principal) => id.bound_to(principal),
            None => id,
        })
    }

    proptest! {
        #[test]
        fn each_key_of_a_session_is_read_back_and_no_other_key_is(
            id in session_id(), prefix in "[a-z:]{1,5}|[a-z:]{0,5}\\{[a-z:]{1,5}\\}[a-z:]{0,5}",
        ) {
            let (keys, others) = (Keys::new(&prefix), Keys::new("other"));
            let own = keys.of(&id);
            let receipt = NotificationId(uuid::Uuid::from_u128(7));
            for (key, kind) in [
                (keys.session(&id), SessionKeyKind::Stored),
                (own.queue.clone(), SessionKeyKind::Queue),
                (own.lease.clone(), SessionKeyKind::Lease),
                (own.dead.clone(), SessionKeyKind::DeadLetters),
                (own.questions.clone(), SessionKeyKind::Questions),
                (own.receipt(receipt), SessionKeyKind::Receipt(receipt)),
            ] {
                let whole = Some(SessionKey { prefix: prefix.clone(), session: id.clone(), kind });
                prop_assert_eq!(SessionKey::read(&keys, &key), whole.clone(), "{}", key);
                prop_assert_eq!(SessionKey::read(&others, &key), whole, "{}", key);
            }
            for other in [keys.sessions(), keys.servers(), keys.server("a"), keys.news(), keys.probe()] {
                prop_assert_eq!(SessionKey::read(&keys, &other), None, "{}", other);
            }
        }

        #[test]
        fn no_key_makes_the_reader_panic(key in "\\PC*|[{}:a-c]{0,9}(:notifications:|:session:)[{}:a-c%]{0,9}") {
            let _ = SessionKey::read(&Keys::new("p"), &key);
        }
    }
}
