//! Positions from the tail of a queue, where the oldest message stands, and the read of the oldest messages.

use redis::Cmd;

/// Returns the position of a message from the tail, in the form of Redis: 1 is the oldest.
pub(super) fn from_the_tail(position: usize) -> i64 {
    -i64::try_from(position).unwrap_or(i64::MAX)
}

/// Returns the command that reads the oldest messages of a queue behind those that are passed over. Redis answers with
/// the newest first, and with the newest of the passed-over messages last.
pub(super) fn oldest(queue: &str, passed_over: usize, count: usize) -> Cmd {
    let mut command = Cmd::with_capacity(4, queue.len() + 24);
    let (first, last) = (from_the_tail(passed_over.saturating_add(count)), from_the_tail(passed_over.max(1)));
    command.arg("LRANGE").arg(queue).arg(first).arg(last);
    command
}
