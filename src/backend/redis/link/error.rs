//! Errors of a link, and their meaning for the caller of a request.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value};

use crate::backend::redis::url;
use crate::failure::QueueErrorKind;

/// Error of an answer that did not come in time. Redis may have done the request.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

/// Returns the error of a request whose answer did not come within `time`.
pub(super) fn no_answer(time: Duration) -> QueueErrorKind {
    QueueErrorKind::Broken(Box::new(NoAnswer(time)))
}

/// Returns whether an error says that an answer did not come in time.
pub(in crate::backend::redis) fn is_timeout(error: &QueueErrorKind) -> bool {
    matches!(error, QueueErrorKind::Broken(cause) if cause.is::<NoAnswer>())
}

/// Returns an error of the same kind and text. The failure of a request that many share goes to each of them.
#[cfg(any(feature = "cluster", feature = "server"))]
pub(in crate::backend::redis) fn same(error: &QueueErrorKind) -> QueueErrorKind {
    let text = |cause: &dyn std::fmt::Display| cause.to_string().into();
    match error {
        QueueErrorKind::Unreachable(cause) => QueueErrorKind::Unreachable(text(cause)),
        QueueErrorKind::Broken(cause) => match cause.downcast_ref() {
            Some(NoAnswer(time)) => no_answer(*time),
            None => QueueErrorKind::Broken(text(cause)),
        },
        QueueErrorKind::Refused(text) => QueueErrorKind::Refused(text.clone()),
        QueueErrorKind::Sealing(text) => QueueErrorKind::Sealing(text.clone()),
    }
}

/// Beginning of the refusal of a command whose slot a cluster is migrating.
#[cfg(any(feature = "cluster", feature = "server"))]
pub(super) const MIGRATING: &str = "the slot of the key is being migrated";

/// Returns whether a command was refused because its slot is being migrated. The command did nothing.
#[cfg(feature = "server")]
pub(in crate::backend::redis) fn is_migrating(answer: &Result<Value, QueueErrorKind>) -> bool {
    matches!(answer, Err(QueueErrorKind::Refused(text)) if text.starts_with(MIGRATING))
}

/// Returns the meaning of an error of redis-rs.
pub(super) fn kind(error: RedisError) -> QueueErrorKind {
    match error.kind() {
        ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::AuthenticationFailed => {
            QueueErrorKind::Refused(said(&error))
        }
        // No connection was made, so nothing was done.
        _ if error.is_connection_refusal() => QueueErrorKind::Unreachable(Box::new(error)),
        _ => QueueErrorKind::Broken(Box::new(error)),
    }
}

/// Reads an answer as the type that its command returns.
///
/// # Errors
/// Redis's refusal, or an answer of another type.
pub(in crate::backend::redis) fn read<T: redis::FromRedisValue>(answer: Value) -> Result<T, QueueErrorKind> {
    let answer = answer.extract_error().map_err(kind)?;
    // The error of redis-rs shows the answer, which may be the content of a message.
    redis::from_redis_value(answer)
        .map_err(|_| QueueErrorKind::Broken("the answer is not of the command's type".into()))
}

/// Returns the error text as Redis wrote it. redis-rs replaces the text of some codes by its own.
pub(super) fn said(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) if lacks_right(code, detail) => {
            format!("{code} {detail}; docs/redis.md lists the rights that a user needs")
        }
        (Some(code), Some(detail)) => format!("{code} {}", url::without_arguments(detail)),
        _ => error.to_string(),
    }
}

/// Returns whether Redis refused for lack of a right. Before Redis 7.2 the error of a script has another code.
fn lacks_right(code: &str, detail: &str) -> bool {
    code == "NOPERM"
        || detail.contains("The user executing the script can't")
        || detail.contains("ACL failure in script")
}

/// Returns whether an error says that the connection itself is broken or silent, rather than that a command was
/// refused.
pub(super) fn is_broken(error: &RedisError) -> bool {
    !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// Returns whether an answer says that Redis does not know the script.
pub(super) fn is_noscript(answer: &Value) -> bool {
    let Value::ServerError(error) = answer else { return false };
    RedisError::from(error.clone()).kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
