//! Errors of a subscriber's operations: what was done, and which key holds something else than it must.

use super::link::Link;
use crate::failure::{QueueError, QueueErrorKind};
use crate::keys::QueueKeys;
use crate::session_id::SessionId;

/// Returns a result whose error says what was done, and to which session.
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

/// Says which of the keys hold something else than they must: Redis does not name them. Not by their names, which have the
/// session's id in them.
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
