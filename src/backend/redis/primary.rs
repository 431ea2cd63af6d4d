//! Noticing that a connection leads to a server that is no primary (any more).
//!
//! A planned failover leaves connections open, to a server that has become a replica, while new connections lead to the new
//! primary. A replica still answers reads, `PING`, `SUBSCRIBE` and `PUBLISH`, so a connection that does nothing else never
//! fails. Each long-lived connection is therefore checked with a write that changes nothing.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value};

use super::connection::{said, within};
use crate::failure::QueueErrorKind;
use crate::keys::Keys;

/// Time after which a connection that is in use is checked again.
pub(super) const CHECK_EVERY: Duration = Duration::from_secs(5);

/// Codes of a server that is a replica, still loads its data, or is a replica without its primary.
const CODES: [&str; 3] = ["READONLY", "LOADING", "MASTERDOWN"];

/// A write that changes nothing: the key never exists. A replica refuses the command all the same.
pub(super) fn probe(keys: &Keys) -> Cmd {
    let mut probe = redis::cmd("PEXPIRE");
    probe.arg(keys.probe()).arg(1);
    probe
}

/// Returns whether a server's error text says that the server is no primary.
pub(super) fn says_no_primary(text: &str) -> bool {
    CODES.iter().any(|code| {
        // Before Redis 7.0 the error of a script has the code within its text only.
        text.strip_prefix(code).is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
            || text.contains(&format!("-{code} "))
    })
}

/// Returns whether an error, or any of the errors of a pipeline or transaction, says that the server is no primary.
pub(super) fn is_no_primary(error: &RedisError) -> bool {
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|all| all.iter().any(|(_, error)| says_no_primary(&said(&error.clone().into()))))
}

/// Checks that a connection answers, and that the server behind it is a primary.
///
/// # Errors
/// Fails where the connection is broken, silent, or leads to a server that is no primary. A probe that is refused for
/// another reason, as by an ACL, is an answer like others.
pub(super) async fn check(connection: &mut MultiplexedConnection, probe: &Cmd) -> Result<(), QueueErrorKind> {
    match within(Duration::ZERO, probe.query_async::<Value>(connection)).await {
        Err(QueueErrorKind::Refused(text)) if !says_no_primary(&text) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_each_code_is_recognised_and_nothing_else() {
        for text in [
            "READONLY You can't write against a read only replica.",
            "READONLY",
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
