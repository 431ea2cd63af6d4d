//! Errors of a subscriber's operations: they name the operation, and the key that holds a wrong type.
//!
//! Redis says that a type is wrong, and not under which key. An operator must know the key, because only its removal
//! frees the session. The name of the key contains the session's id, which is a secret; so the error names its purpose.

use super::link::Link;
use crate::failure::{QueueError, QueueErrorKind};
use crate::keys::QueueKeys;
use crate::session_id::SessionId;

/// Returns a result whose error names the operation and its session.
pub(super) async fn named<T>(
    link: &Link,
    keys: &QueueKeys,
    session: &SessionId,
    doing: &str,
    result: Result<T, QueueErrorKind>,
) -> Result<T, QueueError> {
    let kind = match result {
        Ok(done) => return Ok(done),
        Err(QueueErrorKind::Refused(text)) if text.contains("WRONGTYPE") => {
            QueueErrorKind::Refused(wrong_types(link, keys).await.unwrap_or(text))
        }
        Err(other) => other,
    };
    Err(QueueError::new(format!("{doing} of {session:?}"), kind))
}

/// Names the keys that hold a wrong type, because Redis does not. Says what each key is for, as its name contains the
/// session's id.
async fn wrong_types(link: &Link, keys: &QueueKeys) -> Option<String> {
    let QueueKeys { queue, lease, questions, .. } = keys;
    let must = [("queue", queue, "list"), ("lease", lease, "string"), ("open questions", questions, "hash")];
    let mut wrong = Vec::new();
    for (what, key, must) in must {
        let found: String = link.query(redis::cmd("TYPE").arg(key)).await.ok()?;
        if found != must && found != "none" {
            wrong.push(format!("the key of the {what} holds a {found}, not a {must}"));
        }
    }
    (!wrong.is_empty()).then(|| format!("WRONGTYPE: {}", wrong.join("; ")))
}
