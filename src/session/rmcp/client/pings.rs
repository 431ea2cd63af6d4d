//! Pings that prove what a client has read: their ids, and the times of their repetition.

use std::time::Duration;

use uuid::Uuid;

use crate::backend::ProcessId;

/// Prefix of the JSON-RPC ids of our pings. The process id follows, and the nonce of the ping as a decimal number.
///
/// Earlier versions counted their pings. Such a number is forwarded to its process, and never equals a nonce of this
/// process.
pub(super) const PING: &str = "mcp-courier:ping:";

/// Returns the JSON-RPC id of a ping.
pub(super) fn id(process: ProcessId, nonce: u128) -> String {
    format!("{PING}{process}:{nonce}")
}

/// Reads the JSON-RPC id of a ping: its process and its nonce.
pub(super) fn read(id: &str) -> Option<(ProcessId, u128)> {
    let (process, nonce) = id.strip_prefix(PING)?.split_once(':')?;
    Some((ProcessId::parse(process)?, nonce.parse().ok()?))
}

/// Returns the nonce of a ping, with 122 random bits.
///
/// No two pings share a nonce. A session may end and be restored in the same process, and a late answer to a ping of
/// the ended one must confirm nothing. Nobody can guess a nonce, so forged news confirm nothing either.
pub(super) fn nonce() -> u128 {
    Uuid::new_v4().as_u128()
}

/// Longest time until the first ping of a confirmation is repeated: its answer may get lost on the way here.
const PING_AGAIN: Duration = Duration::from_secs(1);

/// Factor from the pause behind one ping to the pause behind the next.
const PING_BACKOFF: u32 = 3;

/// Returns the pauses behind the pings of a confirmation that may take `limit`: 1 s, 3 s, 9 s and so on, and last the
/// rest of the time. Where the limit is short, each pause is at least a tenth of it.
pub(super) fn ping_pauses(limit: Duration) -> impl Iterator<Item = Duration> {
    let first = PING_AGAIN.min(limit / 10).max(Duration::from_millis(1));
    std::iter::successors(Some(first), |pause| Some(*pause * PING_BACKOFF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_repeated_after_1_3_and_9_seconds_and_sooner_where_the_time_is_short() {
        let pauses = |limit: u64| ping_pauses(Duration::from_millis(limit)).take(3).map(|p| p.as_millis());
        assert!(pauses(30_000).eq([1000, 3000, 9000]));
        assert!(pauses(3_600_000).eq([1000, 3000, 9000]));
        assert!(pauses(300).eq([30, 90, 270]));
        assert!(pauses(10).eq([1, 3, 9]));
    }
}
