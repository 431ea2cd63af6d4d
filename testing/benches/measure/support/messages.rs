//! Messages of the benchmarks: as notifications, as they lie in a queue, and the queues they lie in.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcp_courier::testing::envelope::{Draft, Timestamp};
use mcp_courier::testing::notification_id;
use mcp_courier::{Config, Notification, NotificationId, SessionId};
use serde_json::json;
use uuid::Uuid;

/// Returns the time in nanoseconds since 1970, in 19 digits: all processes of this host share that clock.
pub(crate) fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// Returns the session of a number.
pub(crate) fn session(number: usize) -> SessionId {
    SessionId::new(format!("bench-{number}")).unwrap()
}

/// Returns the key of a session's queue, under the prefix of the default settings.
pub(crate) fn queue_of(session: &SessionId) -> String {
    format!("{}:notifications:{session}", Config::default().prefix())
}

/// Returns the key of a session's lease.
pub(crate) fn lease_of(session: &SessionId) -> String {
    format!("{{{}}}:lease", queue_of(session))
}

/// Returns a notification that says when it was made, and has this many bytes in the queue, or as few as it can.
pub(crate) fn notification(bytes: usize) -> Notification {
    padded(bytes.saturating_sub(*LEAST))
}

/// Returns a message as it lies in a queue, of this many bytes.
///
/// A message of the publisher has about 280 bytes at least. A smaller message has an id and nothing else that it can do without,
/// as a producer of another kind may push it.
pub(crate) fn message(bytes: usize) -> Vec<u8> {
    if bytes < *LEAST {
        let id = id();
        return format!(r#"{{"notification":{{"method":"notifications/bench"}},"id":"{id}"}}"#).into_bytes();
    }
    stamped(&notification(bytes))
}

/// Returns an id as the publisher gives it, a UUID of version 7. One of version 5 would be that of a message without an id, behind
/// which a subscriber reads nothing before it is confirmed.
fn id() -> NotificationId {
    notification_id(Uuid::now_v7().as_u128())
}

/// Returns when a notification or message was made, found in its text: to parse all of it would cost more than it took.
pub(crate) fn made_at(text: &[u8]) -> u64 {
    const FIELD: &[u8] = b"\"made\":";
    let at = text.windows(FIELD.len()).position(|window| window == FIELD).expect("a message of this benchmark");
    text[at + FIELD.len()..].iter().take_while(|c| c.is_ascii_digit()).fold(0, |n, c| 10 * n + u64::from(c - b'0'))
}

/// Size of the least message in the queue, in bytes.
static LEAST: LazyLock<usize> = LazyLock::new(|| stamped(&padded(0)).len());

fn padded(padding: usize) -> Notification {
    let params = json!({"made": now(), "padding": "x".repeat(padding)});
    Notification::new("notifications/bench").unwrap().with_params(params).unwrap()
}

/// Returns a notification as it lies in a queue.
pub(crate) fn stamped(notification: &Notification) -> Vec<u8> {
    let id = id();
    Draft::new(notification, id, Config::default().time_to_live()).stamp(Timestamp::of_this_host())
}

/// Returns how long ago a notification or message was made.
pub(crate) fn age(text: &[u8]) -> Duration {
    Duration::from_nanos(now().saturating_sub(made_at(text)))
}
