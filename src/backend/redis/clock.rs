//! [`ServerClock`]: estimate of the clock of the Redis server.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::envelope::Timestamp;

/// Clock of this host, corrected by as much as the server's answers prove it wrong.
///
/// The estimate serves people, and readers other than this version: see `Times` in `envelope/draft.rs`.
/// Nothing else depends on it.
#[derive(Debug, Default)]
pub(super) struct ServerClock {
    /// Microseconds by which the server is ahead of this host.
    ahead: AtomicI64,
}

impl ServerClock {
    /// Returns the estimated time at the server at the moment when this host's clock shows `host`.
    pub(super) fn at(&self, host: Timestamp) -> Timestamp {
        Timestamp(host.0.saturating_add(self.ahead.load(Ordering::Relaxed)))
    }

    /// Learns that the server's clock showed `server` between `sent`, a time of this host's clock, and now.
    pub(super) fn learn(&self, sent: Timestamp, server: Timestamp) {
        self.learn_until(Timestamp::of_this_host(), sent, server);
    }

    fn learn_until(&self, received: Timestamp, sent: Timestamp, server: Timestamp) {
        let [least, most] = [received, sent].map(|host| server.0.saturating_sub(host.0));
        // The host's clock may have stepped back between the two.
        let ahead = self.ahead.load(Ordering::Relaxed).clamp(least, most.max(least));
        self.ahead.store(ahead, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000_000;

    #[test]
    fn a_right_clock_is_not_corrected_and_a_wrong_one_by_as_much_as_is_proven() {
        let clock = ServerClock::default();
        let learn = |sent, server, received| {
            clock.learn_until(Timestamp(received), Timestamp(sent), Timestamp(server));
            clock.at(Timestamp(0)).0
        };
        assert_eq!(learn(100, 105, 110), 0);
        assert_eq!(learn(100, HOUR + 105, 110), HOUR - 5);
        // The next answer leaves less room for the estimate, and a slow answer proves nothing more.
        assert_eq!(learn(200, HOUR + 202, 202), HOUR);
        assert_eq!(learn(300, HOUR + 305, 900), HOUR);
        // The host's clock was set, also while an answer was on its way.
        assert_eq!(learn(HOUR, HOUR + 5, HOUR + 10), 5);
        assert_eq!(learn(HOUR, HOUR, -HOUR), 2 * HOUR);
    }
}
