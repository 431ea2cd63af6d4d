//! [`Reading`]: state of a fleet at one moment, and the rates since the reading before.

use std::collections::HashMap;
use std::time::Instant;

use mcp_courier::{Inspector, QueueError, ServerId, ServerRecord, SessionSummary};
use serde::Serialize;

use super::SESSIONS;
use crate::commands::sessions;

/// State of a fleet at one moment.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Reading {
    /// Sessions, those with the most waiting notifications first.
    pub(crate) sessions: Vec<SessionSummary>,
    /// Set where there are more sessions than a reading goes through.
    pub(crate) is_cut: bool,
    /// Records of the server processes.
    pub(crate) servers: Vec<ServerRecord>,
    /// Notifications that were delivered and confirmed, for each second since the record before, by all servers.
    /// `None` before two records of a server were read.
    pub(crate) delivered_a_second: Option<f64>,
    /// Notifications that were discarded, counted likewise.
    pub(crate) discarded_a_second: Option<f64>,
    #[serde(skip)]
    pub(crate) totals: Totals,
}

/// Counters of the servers, and the rates that they last gave. A record changes once a heartbeat, so a rate holds until
/// the next record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    servers: HashMap<ServerId, Counters>,
}

#[derive(Debug, Clone, Copy)]
struct Counters {
    delivered: u64,
    discarded: u64,
    /// Moment at which the record was written, by this host's clock.
    written: Instant,
    rates: Option<(f64, f64)>,
}

impl Reading {
    /// Reads the state of the fleet.
    pub(crate) async fn take(inspector: &Inspector, before: Option<&Totals>) -> Result<Self, QueueError> {
        let (mut sessions, is_cut) = sessions::list(inspector, SESSIONS, |_| true, |_| ()).await?;
        let servers = inspector.servers().await?;
        let totals = Totals::of(&servers, before, Instant::now());
        sessions::each_once(&mut sessions);
        // Stable, so that sessions with equal depths do not change places from reading to reading.
        sessions.sort_by_key(|session| std::cmp::Reverse(session.depth));
        let (delivered_a_second, discarded_a_second) = totals.rates().unzip();
        Ok(Self { sessions, is_cut, servers, delivered_a_second, discarded_a_second, totals })
    }

    /// Returns the number of sessions that a server owns, and of notifications that wait.
    pub(crate) fn owned_and_waiting(&self) -> (usize, usize) {
        let owned = self.sessions.iter().filter(|session| session.owner.is_some()).count();
        (owned, self.sessions.iter().map(|session| session.depth).sum())
    }
}

impl Totals {
    fn of(servers: &[ServerRecord], before: Option<&Self>, now: Instant) -> Self {
        let counters = |server: &ServerRecord| {
            let written = now.checked_sub(server.age).unwrap_or(now);
            let new = Counters { delivered: server.delivered, discarded: server.discarded, written, rates: None };
            match before.and_then(|before| before.servers.get(&server.id)) {
                Some(old) => new.since(old),
                None => new,
            }
        };
        Self { servers: servers.iter().map(|server| (server.id, counters(server))).collect() }
    }

    /// Returns the sums of the rates of delivered and of discarded notifications.
    fn rates(&self) -> Option<(f64, f64)> {
        let rates = self.servers.values().filter_map(|counters| counters.rates);
        rates.reduce(|(delivered, discarded), (d, e)| (delivered + d, discarded + e))
    }
}

impl Counters {
    /// Returns the new counters with the rates since the old ones. A record that is the same keeps its rates.
    fn since(self, old: &Self) -> Self {
        let seconds = self.written.saturating_duration_since(old.written).as_secs_f64();
        // The age of a record is known to some milliseconds. Two records are a heartbeat apart, at least 100 ms.
        if seconds < 0.05 {
            return *old;
        }
        let rate = |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds;
        Self { rates: Some((rate(self.delivered, old.delivered), rate(self.discarded, old.discarded))), ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_rate_is_that_between_two_records_and_holds_until_the_next() {
        let now = Instant::now();
        let counters = |delivered, at: u64| Counters {
            delivered,
            discarded: 0,
            written: now + Duration::from_secs(at),
            rates: None,
        };
        let second = counters(300, 30).since(&counters(0, 0));
        assert_eq!(second.rates, Some((10.0, 0.0)));
        assert_eq!(counters(300, 30).since(&second).rates, Some((10.0, 0.0)), "the same record");
        assert_eq!(counters(300, 60).since(&second).rates, Some((0.0, 0.0)));
        assert_eq!(counters(0, 90).since(&second).rates, Some((0.0, 0.0)), "a counter that began again");
    }
}
