//! Early close: a client that comes back after a broken stream first gets a stream that ends cleanly at once.
//!
//! Python's SDK counts broken streams and gives up after the second in a row. A stream that ends cleanly resets the
//! count. Therefore each broken stream is followed by one early close, at whatever server the client comes back. The
//! event id that the client sends decides which stream it needs, so no server has to know the work of another:
//!
//! ```text
//!   Last-Event-ID: …~e…~…  ─► early close: its event has the kind c, and carries all else on
//!   Last-Event-ID: …~c…~…  ─► the real stream, whose events have the kind e
//! ```
//!
//! The event of an early close has no data. Some clients ignore the ids of such events, and come back with the same id
//! as before. For those the server remembers for a short time which ids it has answered by an early close.
//!
//! Clients of versions before 2025-11-25 get no early close. Python's of that time open no second stream, and
//! TypeScript's open none after a stream that ended cleanly.
//!
//! The HTTP layer answers by an early close itself, where the request contains everything needed. Neither rmcp nor
//! Redis is asked then, because all clients of a server that died need an early close at the same time.
//!
//! Tests: `each_cut_stream_is_followed_by_one_early_close_at_any_server`, and `tests/server/failover/early_close.rs`
//! with clients that alternate between servers.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use tokio::time::Instant;

use super::event_id::EventId;
use super::sse::push_event;
use crate::lock::lock;
use crate::metrics;

/// Time for which a client waits after an early close before it opens the real stream.
const MOMENT: Duration = Duration::from_millis(10);

/// Time for which an id that was answered by an early close is remembered. Longer than a client needs to try several
/// servers of a fleet in turn, and shorter than proxies let a silent stream live.
const MEMORY: Duration = Duration::from_secs(10);

/// Half of the largest number of remembered ids. Beyond that number the oldest ids are forgotten sooner.
const CAPACITY: usize = 50_000;

/// Decides which streams are closed early.
#[derive(Debug, Default)]
pub(super) struct EarlyCloses {
    /// Hasher for ids, which clients choose and may make long.
    hasher: RandomState,
    answered: Mutex<Answered>,
}

/// Ids that were answered by an early close, and the times of the answers.
#[derive(Debug, Default)]
struct Answered {
    /// Ids of the current period, by their hashes.
    young: HashMap<u64, Instant>,
    /// Ids of the period before. Dropped as a whole, which costs less than the removal of single ids.
    old: HashMap<u64, Instant>,
    /// Time at which `young` was begun.
    since: Option<Instant>,
}

impl Answered {
    /// Forgets ids that are too old.
    fn age(&mut self, now: Instant) {
        let age = now.saturating_duration_since(*self.since.get_or_insert(now));
        if age >= MEMORY || self.young.len() >= CAPACITY {
            self.old = std::mem::take(&mut self.young);
            self.since = Some(now);
        }
    }
}

impl EarlyCloses {
    /// Decides whether the stream of a client that comes back with this id is closed early, and remembers the decision.
    pub(super) fn decide(&self, session: &str, named: &EventId<'_>, last_event_id: &str, now: Instant) -> bool {
        if named.is_early_close() {
            return false;
        }
        let id = self.hasher.hash_one((session, last_event_id));
        let mut answered = lock(&self.answered);
        answered.age(now);
        let last = answered.young.remove(&id).or_else(|| answered.old.remove(&id));
        if last.is_some_and(|at| now.saturating_duration_since(at) < MEMORY) {
            return false;
        }
        answered.young.insert(id, now);
        metrics::early_close();
        true
    }
}

/// Returns the only event of an early close behind an id.
pub(super) fn event(named: &EventId<'_>) -> ServerSseMessage {
    ServerSseMessage::priming(named.early_close().to_string(), MOMENT)
}

/// Returns the text of an early close behind an id, as it goes out.
pub(super) fn text(named: &EventId<'_>) -> String {
    let mut text = String::new();
    push_event(&mut text, &event(named));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::rmcp::event_id::EventIds;

    /// Comes back to one of several servers after each cut. Returns the largest number of cuts in a row.
    fn cuts_in_a_row(servers: usize, takes_ids_without_data: bool, each_stream_lasts: Duration) -> usize {
        let fleet: Vec<_> = (0..servers).map(|_| EarlyCloses::default()).collect();
        let (mut last, mut now, mut cuts, mut worst) = ("e-0".to_owned(), Instant::now(), 0, 0);
        for n in 0..servers * 12 {
            let named = EventId::parse(&last);
            let event_id = match fleet[n % servers].decide("s", &named, &last, now) {
                true => {
                    (cuts, now) = (0, now + Duration::from_secs(1));
                    named.early_close().to_string()
                }
                false => {
                    (cuts, now) = (cuts + 1, now + each_stream_lasts);
                    EventIds::behind(Some(named)).next().to_string()
                }
            };
            worst = worst.max(cuts);
            if takes_ids_without_data {
                last = event_id;
            }
        }
        assert_eq!(EventId::parse(&last).position, Some("e-0"));
        worst
    }

    #[test]
    fn each_cut_stream_is_followed_by_one_early_close_at_any_server() {
        for servers in 1..=3 {
            assert_eq!(cuts_in_a_row(servers, true, Duration::ZERO), 1, "{servers} servers");
        }
    }

    #[test]
    fn a_client_that_ignores_ids_without_data_is_served_and_not_cut_twice_in_a_row() {
        for servers in 1..=3 {
            assert_eq!(cuts_in_a_row(servers, false, MEMORY), 1, "{servers} servers");
        }
        // A client whose streams are cut sooner is served nevertheless.
        assert!(cuts_in_a_row(3, false, Duration::ZERO) >= 1);
    }

    #[test]
    fn ids_are_remembered_per_session_for_a_while_and_within_a_bound() {
        let (closes, now) = (EarlyCloses::default(), Instant::now());
        let decide = |session: &str, after| closes.decide(session, &EventId::parse("x"), "x", now + after);
        assert!(decide("a", Duration::ZERO) && decide("b", Duration::ZERO));
        assert!(!decide("a", MEMORY / 2), "it is remembered");
        assert!(decide("b", MEMORY), "it is ended");
        for n in 0..3 * CAPACITY {
            closes.decide(&n.to_string(), &EventId::parse("x"), "x", now + 3 * MEMORY);
        }
        let answered = lock(&closes.answered);
        assert!(answered.young.len() + answered.old.len() <= 2 * CAPACITY);
    }
}
