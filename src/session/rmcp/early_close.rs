//! The early close: a client that comes back after a broken stream first gets a stream that ends cleanly at once.
//!
//! Python's SDK counts broken streams, gives up after the second in a row, and resets the count when a stream ends cleanly.
//! So each broken stream is followed by one early close, at whatever server the client comes back. The event id that the
//! client sends says what it needs, and no server has to know what another did:
//!
//! ```text
//!   Last-Event-ID: X           ─► early close, its event has the id closed-<nonce>-X
//!   Last-Event-ID: closed-…-X  ─► the real stream, its first event has the id resumed-<nonce>-X
//!   Last-Event-ID: resumed-…-X ─► early close …
//! ```
//!
//! Some clients ignore the ids of events without data, and some are sent no such events. They come back with the very same
//! id. For them each session remembers the last id that was answered by an early close, for a short time.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use rmcp::transport::streamable_http_server::session::ServerSseMessage;
use uuid::Uuid;

/// Time that a client waits after an early close before it opens the real stream.
const MOMENT: Duration = Duration::from_millis(10);

/// Prefix of the event id of an early close.
const CLOSED: &str = "closed-";

/// Prefix of the first event id of a resumed stream.
const RESUMED: &str = "resumed-";

/// Length of the nonce behind a prefix: MCP wants event ids that are unique within a session.
const NONCE: usize = 32;

/// Time for which a session remembers the id that it answered by an early close. Longer than a client needs to try several
/// servers of a fleet in turn, and shorter than proxies let a silent stream live.
const MEMORY: Duration = Duration::from_secs(10);

/// Returns the only event of an early close.
pub(super) fn early_close(event_id: &str) -> ServerSseMessage {
    ServerSseMessage::priming(with_prefix(CLOSED, event_id), MOMENT)
}

/// Returns the id of the first event of a stream that is resumed behind `event_id`.
pub(super) fn resumed(event_id: &str) -> String {
    with_prefix(RESUMED, event_id)
}

/// Returns the event id that a `Last-Event-ID` names, without the prefixes of this module.
pub(super) fn original(last_event_id: &str) -> &str {
    let mut event_id = last_event_id;
    while let Some(rest) = without_prefix(CLOSED, event_id).or_else(|| without_prefix(RESUMED, event_id)) {
        event_id = rest;
    }
    event_id
}

fn with_prefix(prefix: &str, event_id: &str) -> String {
    format!("{prefix}{}-{event_id}", Uuid::now_v7().simple())
}

fn without_prefix<'a>(prefix: &str, event_id: &'a str) -> Option<&'a str> {
    let (nonce, rest) = event_id.strip_prefix(prefix)?.split_at_checked(NONCE)?;
    if nonce.bytes().all(|byte| byte.is_ascii_hexdigit()) { rest.strip_prefix('-') } else { None }
}

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
    pub(super) fn decide(&mut self, last_event_id: &str, now: Instant) -> bool {
        let remembered = self.last.take();
        if without_prefix(CLOSED, last_event_id).is_some() {
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
    use proptest::prelude::*;

    use super::*;

    fn id_of(event: ServerSseMessage) -> String {
        event.event_id.unwrap()
    }

    /// Comes back to one of several servers after each cut; returns how many cuts in a row there were at most.
    fn cuts_in_a_row(servers: usize, takes_ids_without_data: bool, each_stream_lasts: Duration) -> usize {
        let mut fleet: Vec<_> = (0..servers).map(|_| EarlyCloses::default()).collect();
        let (mut last, mut now, mut cuts, mut worst) = ("e-0".to_owned(), Instant::now(), 0, 0);
        for n in 0..servers * 12 {
            let event_id = match fleet[n % servers].decide(&last, now) {
                true => {
                    (cuts, now) = (0, now + Duration::from_secs(1));
                    id_of(early_close(original(&last)))
                }
                false => {
                    (cuts, now) = (cuts + 1, now + each_stream_lasts);
                    resumed(original(&last))
                }
            };
            worst = worst.max(cuts);
            if takes_ids_without_data {
                last = event_id;
            }
        }
        assert_eq!(original(&last), "e-0");
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

    proptest! {
        #[test]
        fn any_id_comes_back_as_it_was(id in "[a-z0-9/~-]{0,20}", nested in 0..4_usize) {
            let mut last = id.clone();
            for _ in 0..nested {
                last = id_of(early_close(&resumed(&last)));
                prop_assert!(without_prefix(CLOSED, &last).is_some());
            }
            prop_assert_eq!(original(&last), id.as_str());
        }

        #[test]
        fn a_forged_id_is_read_without_a_panic(id in "(closed-|resumed-)?[0-9a-fé]{0,40}(-.*)?") {
            let _ = original(&id);
            EarlyCloses::default().decide(&id, Instant::now());
        }
    }
}
