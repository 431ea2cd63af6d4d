//! The early close: a client that comes back after a broken stream first gets a stream that ends cleanly at once.
//!
//! Python's SDK counts broken streams, gives up after the second in a row, and resets the count when a stream ends cleanly.
//! So each broken stream is followed by one early close, at whatever server the client comes back. The event id that the
//! client sends says what it needs, and no server has to know what another did:
//!
//! ```text
//!   Last-Event-ID: …~e…~…  ─► early close: its event has the kind c, and carries all else on
//!   Last-Event-ID: …~c…~…  ─► the real stream, whose events have the kind e
//! ```
//!
//! The event has no data. Some clients ignore the ids of such events, and come back with the very same id. For them each session
//! remembers the last id that was answered by an early close, for a short time. Clients of versions before 2025-11-25 get no early
//! close: Python's of that time open no second stream, and TypeScript's open none behind a stream that ended cleanly.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use super::event_id::EventId;

/// Time that a client waits after an early close before it opens the real stream.
pub(super) const MOMENT: Duration = Duration::from_millis(10);

/// Time for which a session remembers the id that it answered by an early close. Longer than a client needs to try several
/// servers of a fleet in turn, and shorter than proxies let a silent stream live.
const MEMORY: Duration = Duration::from_secs(10);

/// Decides for one session which streams are closed early.
#[derive(Debug, Default)]
pub(super) struct EarlyCloses {
    /// Hashes ids, which clients choose and may make long.
    hasher: RandomState,
    /// The last id that was answered by an early close, and when.
    last: Option<(u64, Instant)>,
}

impl EarlyCloses {
    /// Decides whether the stream of a client that comes back with this id is closed early, and remembers the decision.
    pub(super) fn decide(&mut self, named: &EventId<'_>, last_event_id: &str, now: Instant) -> bool {
        let remembered = self.last.take();
        if named.is_early_close() {
            return false;
        }
        let id = self.hasher.hash_one(last_event_id);
        if remembered.is_some_and(|(last, at)| last == id && now.saturating_duration_since(at) < MEMORY) {
            return false;
        }
        self.last = Some((id, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::rmcp::event_id::EventIds;

    /// Comes back to one of several servers after each cut; returns how many cuts in a row there were at most.
    fn cuts_in_a_row(servers: usize, takes_ids_without_data: bool, each_stream_lasts: Duration) -> usize {
        let mut fleet: Vec<_> = (0..servers).map(|_| EarlyCloses::default()).collect();
        let (mut last, mut now, mut cuts, mut worst) = ("e-0".to_owned(), Instant::now(), 0, 0);
        for n in 0..servers * 12 {
            let named = EventId::parse(&last);
            let event_id = match fleet[n % servers].decide(&named, &last, now) {
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
        // Where its streams are cut sooner it is served all the same.
        assert!(cuts_in_a_row(3, false, Duration::ZERO) >= 1);
    }
}
