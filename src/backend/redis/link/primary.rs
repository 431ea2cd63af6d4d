//! Detection of connections to a server that is not, or no longer, a primary.
//!
//! A planned failover leaves the old connections open. They lead to a server that has become a replica, while new
//! connections lead to the new primary. A replica still answers reads, `PING`, `SUBSCRIBE` and `PUBLISH`. A connection
//! that does nothing else therefore never fails. Hence each shared connection is checked regularly with a write that
//! changes nothing.

use redis::{Pipeline, RedisError, Value};

use super::error::said;
use crate::failure::QueueErrorKind;
use crate::keys::Keys;

/// Error codes of a server that is a replica, still loads its data, or is a replica without its primary. The last is that
/// of a primary without the replicas that it must have, as an old primary is after a failover.
const CODES: [&str; 4] = ["READONLY", "LOADING", "MASTERDOWN", "NOREPLICAS"];

/// Makes a write that changes nothing that anyone reads: its key does not exist, or is about to expire. A replica
/// refuses the command nevertheless.
pub(super) fn probe(keys: &Keys) -> Pipeline {
    redis::pipe().cmd("PEXPIRE").arg(keys.probe()).arg(1).clone()
}

/// Returns whether a server's error text says that the server is no primary.
fn says_no_primary(text: &str) -> bool {
    CODES.iter().any(|code| {
        // Before Redis 7.0 the error of a script contains the code only within its text.
        text.strip_prefix(code).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            || text.contains(&format!("-{code} "))
    })
}

/// Returns whether a request failed because its server is no primary.
pub(super) fn is_no_primary(error: &QueueErrorKind) -> bool {
    matches!(error, QueueErrorKind::Refused(text) if says_no_primary(text))
}

/// Returns whether an answer says that its server is no primary. redis-rs returns such an answer as an `Ok` value.
pub(super) fn refuses(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if says_no_primary(&said(&RedisError::from(error.clone()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_each_code_is_recognised_and_nothing_else() {
        for text in [
            "READONLY You can't write against a read only replica.",
            "READONLY",
            "NOREPLICAS Not enough good replicas to write.",
            "LOADING Redis is loading the dataset in memory",
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "ERR Error running script (call to f_1f): @user_script:5: @user_script: 5: -READONLY You can't write against a \
             read only replica.",
        ] {
            assert!(says_no_primary(text), "{text}");
        }
        for text in ["NOPERM no permissions to run the 'pexpire' command", "OOM", "LOADINGS", "WRONGTYPE READONLY"] {
            assert!(!says_no_primary(text), "{text}");
        }
    }
}
