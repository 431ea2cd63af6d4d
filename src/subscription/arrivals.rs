//! [`Arrivals`]: what an owner knows of messages whose producers gave them neither an id nor a time of the queue's clock.
//!
//! FastMCP's messages carry the time of their worker's clock, which may be wrong, and no id. The owner knows more: a
//! message is younger than the moment at which the queue was empty, and not younger than the moment at which the owner saw
//! it first. Equal messages share the id that is derived from them, and are told apart by counting.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Item;
use crate::envelope::{Envelope, Timestamp};
use crate::notification::NotificationId;
use crate::recent::Recent;

/// Difference between a producer's clock and the queue's that is worth a warning.
const TOLERANCE: Duration = Duration::from_secs(10);

/// Knowledge of one owner about the messages of its queue.
#[derive(Debug)]
pub(crate) struct Arrivals {
    time_to_live: Duration,
    /// Moment, by the queue's clock, at which the queue was last seen empty.
    empty_at: Option<Timestamp>,
    /// Number of ids to remember.
    capacity: usize,
    /// Knowledge of messages that lack an id or a time; `None` before the first of them.
    foreign: Option<Box<Foreign>>,
    /// Set once the operator was warned of a wrong clock.
    has_warned: bool,
}

/// Knowledge of messages that lack an id or a time.
#[derive(Debug)]
struct Foreign {
    /// Messages that say to be younger than they can be, with the moment at which each was seen first. Only those of the
    /// newest batch.
    ahead: HashMap<NotificationId, Timestamp>,
    /// Derived ids that were delivered and whose acknowledgement is not known yet.
    unacknowledged: Vec<NotificationId>,
    /// Derived ids whose messages are known to be removed: a message that derives one of them now is another message.
    /// The list forgets no sooner than that of delivered ids does, as its capacity is the same.
    removed: Recent<NotificationId>,
}

impl Arrivals {
    /// `capacity` is the number of delivered ids that their owner remembers.
    pub(crate) fn new(capacity: usize, time_to_live: Duration) -> Self {
        Self { time_to_live, empty_at: None, capacity, foreign: None, has_warned: false }
    }

    /// Gives the messages of a batch, which was read at `now`, the ids and the times that they lack.
    ///
    /// Returns by how much a producer's clock is wrong, the first time that it is by more than 10 s.
    pub(crate) fn seen(&mut self, items: &mut [Item], now: Timestamp) -> Option<Duration> {
        // The queue's clock may have stepped back.
        let not_before = self.empty_at.map(|at| at.min(now));
        self.empty_at = if items.is_empty() { Some(now) } else { not_before };
        // Most batches lack nothing.
        if items.iter().filter_map(|item| item.envelope.as_ref().ok()).all(lacks_nothing) {
            if let Some(foreign) = &mut self.foreign {
                foreign.ahead.clear();
            }
            return None;
        }
        let mut envelopes: Vec<_> = items.iter_mut().filter_map(|item| item.envelope.as_mut().ok()).collect();
        let time_to_live = self.time_to_live;
        let foreign = self.foreign();
        foreign.tell_apart(&mut envelopes);
        let seen_before = std::mem::take(&mut foreign.ahead);
        let mut worst = Duration::ZERO;
        for envelope in envelopes {
            let Some(said) = envelope.enqueued_at.filter(|_| !envelope.is_stamped()) else { continue };
            let first_seen = seen_before.get(&envelope.id).map(|at| (*at).min(now));
            if said > now || first_seen.is_some() {
                foreign.ahead.insert(envelope.id, first_seen.unwrap_or(now));
            }
            let latest = first_seen.unwrap_or(now);
            let at = said.min(latest).max(not_before.unwrap_or(said).min(latest));
            worst = worst.max(said.since(latest)).max(at.since(said));
            envelope.set_enqueued_at(at, time_to_live);
        }
        let warns = worst > TOLERANCE && !self.has_warned;
        self.has_warned |= warns;
        warns.then_some(worst)
    }

    /// The notification with this id, which is among those that the owner remembers, is delivered or was before.
    pub(crate) fn delivered(&mut self, id: NotificationId) {
        if id.is_derived() {
            self.foreign().unacknowledged.push(id);
        }
    }

    /// The acknowledgement of what was delivered is done, or its outcome is not known.
    pub(crate) fn acknowledged(&mut self, is_known_to_be_removed: bool) {
        let Some(foreign) = &mut self.foreign else { return };
        let ids = foreign.unacknowledged.drain(..);
        if is_known_to_be_removed {
            for id in ids {
                foreign.removed.insert(id);
            }
        }
    }

    fn foreign(&mut self) -> &mut Foreign {
        let capacity = self.capacity;
        self.foreign.get_or_insert_with(|| {
            Box::new(Foreign { ahead: HashMap::new(), unacknowledged: Vec::new(), removed: Recent::new(capacity) })
        })
    }
}

fn lacks_nothing(envelope: &Envelope) -> bool {
    envelope.is_stamped() && !envelope.has_derived_id()
}

impl Foreign {
    /// Gives equal messages ids of their own.
    fn tell_apart(&self, envelopes: &mut [&mut Envelope]) {
        if envelopes.iter().all(|envelope| !envelope.has_derived_id()) {
            return;
        }
        // A failed attempt is written with the id of its message: its equals behind it get others.
        let mut used: HashSet<_> = envelopes.iter().filter(|e| !e.has_derived_id()).map(|e| e.id).collect();
        let mut next: HashMap<NotificationId, u32> = HashMap::new();
        for envelope in envelopes.iter_mut().filter(|envelope| envelope.has_derived_id()) {
            let count = next.entry(envelope.id).or_default();
            let id = loop {
                let id = envelope.id.of_equal(*count);
                *count += 1;
                if !self.removed.contains(&id) && !used.contains(&id) {
                    break id;
                }
            };
            used.insert(id);
            envelope.set_id(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TTL: Duration = Duration::from_secs(300);
    const HOUR: i64 = 3_600_000_000;
    const MINUTE: i64 = 60_000_000;
    /// Any moment: the tests know no other clock.
    const NOW: i64 = 1_000 * HOUR;

    fn arrivals() -> Arrivals {
        Arrivals::new(8, TTL)
    }

    fn fastmcp(n: u32, at: i64) -> Item {
        let notification = json!({"method": "notifications/x", "params": {"n": n}});
        let at = Timestamp(at).to_string();
        let raw = json!({"notification": notification, "attempt": 0, "enqueued_at": at}).to_string();
        Item::decode("q", raw.into_bytes(), TTL)
    }

    fn envelopes(items: &[Item]) -> impl Iterator<Item = &Envelope> {
        items.iter().map(|item| item.envelope.as_ref().unwrap())
    }

    /// How old one message, which says to be queued at `said`, is at `now`, in seconds.
    fn age(arrivals: &mut Arrivals, said: i64, now: i64) -> i64 {
        let mut items = [fastmcp(0, said)];
        arrivals.seen(&mut items, Timestamp(now));
        let envelope = envelopes(&items).next().unwrap();
        assert_eq!(envelope.expires_at, envelope.enqueued_at.map(|at| at.plus(TTL)));
        (now - envelope.enqueued_at.unwrap().0) / 1_000_000
    }

    #[test]
    fn without_knowledge_a_message_is_as_old_as_it_says() {
        assert_eq!(age(&mut arrivals(), NOW - HOUR, NOW), 3600);
    }

    #[test]
    fn a_message_is_no_older_than_the_moment_at_which_the_queue_was_empty() {
        let mut arrivals = arrivals();
        assert_eq!(arrivals.seen(&mut [], Timestamp(NOW)), None);
        assert_eq!(age(&mut arrivals, NOW - 6 * MINUTE, NOW + MINUTE), 60);
        // It waits: it gets older, and the time at which the queue was empty does not move.
        assert_eq!(age(&mut arrivals, NOW - 6 * MINUTE, NOW + 10 * MINUTE), 600);
        // A right clock is believed.
        assert_eq!(age(&mut arrivals, NOW + 9 * MINUTE, NOW + 10 * MINUTE), 60);
    }

    #[test]
    fn a_message_is_no_younger_than_the_moment_at_which_it_was_seen_first() {
        let mut arrivals = arrivals();
        for minutes in [0, 1, 6] {
            assert_eq!(age(&mut arrivals, NOW + HOUR, NOW + minutes * MINUTE), minutes * 60);
        }
        // Also when its time has come.
        assert_eq!(age(&mut arrivals, NOW + HOUR, NOW + 61 * MINUTE), 61 * 60);
        // Others that are seen later are younger.
        assert_eq!(age(&mut arrivals, NOW + 2 * HOUR, NOW + 62 * MINUTE), 0);
    }

    #[test]
    fn a_queue_clock_that_steps_back_makes_nothing_immortal() {
        let mut arrivals = arrivals();
        arrivals.seen(&mut [], Timestamp(NOW + HOUR));
        assert_eq!(age(&mut arrivals, NOW - HOUR, NOW), 0);
        assert_eq!(age(&mut arrivals, NOW - HOUR, NOW + 6 * MINUTE), 360);
    }

    #[test]
    fn what_the_queue_stamped_keeps_its_time() {
        let mut arrivals = arrivals();
        arrivals.seen(&mut [], Timestamp(NOW));
        let notification = crate::Notification::new("notifications/x").unwrap();
        let draft = crate::envelope::Draft::new(&notification, NotificationId::derived(b"any"), TTL);
        let mut items = [Item::decode("q", draft.stamp(Timestamp(NOW - HOUR)), TTL)];
        assert_eq!(arrivals.seen(&mut items, Timestamp(NOW)), None);
        assert_eq!(envelopes(&items).next().unwrap().enqueued_at, Some(Timestamp(NOW - HOUR)));
    }

    #[test]
    fn a_wrong_clock_is_told_once() {
        let said = |arrivals: &mut Arrivals, at| arrivals.seen(&mut [fastmcp(0, at)], Timestamp(NOW));
        for off in [-HOUR, HOUR] {
            let mut arrivals = arrivals();
            arrivals.seen(&mut [], Timestamp(NOW));
            assert_eq!(said(&mut arrivals, NOW + off / 360), None, "10 s are no trouble");
            assert_eq!(said(&mut arrivals, NOW + off), Some(Duration::from_secs(3600)));
            assert_eq!(said(&mut arrivals, NOW + off), None);
        }
    }

    /// The ids of so many equal messages.
    fn ids(arrivals: &mut Arrivals, count: usize) -> Vec<NotificationId> {
        let mut items: Vec<_> = (0..count).map(|_| fastmcp(0, NOW)).collect();
        arrivals.seen(&mut items, Timestamp(NOW));
        envelopes(&items).map(|envelope| envelope.id).collect()
    }

    #[test]
    fn equal_messages_have_ids_of_their_own_wherever_their_batches_are_cut() {
        let mut arrivals = arrivals();
        let all = ids(&mut arrivals, 3);
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), 3);
        // Not acknowledged, they are the same ones.
        assert_eq!(ids(&mut arrivals, 3), all);
        arrivals.delivered(all[0]);
        arrivals.acknowledged(false);
        assert_eq!(ids(&mut arrivals, 3), all);
        // What is known to be removed is none of the rest.
        arrivals.delivered(all[0]);
        arrivals.acknowledged(true);
        assert_eq!(ids(&mut arrivals, 2), all[1..]);
    }

    #[test]
    fn a_failed_attempt_keeps_its_id_and_its_equals_theirs() {
        let mut arrivals = arrivals();
        let all = ids(&mut arrivals, 3);
        arrivals.delivered(all[0]);
        arrivals.acknowledged(true);
        let mut items = [fastmcp(0, NOW), fastmcp(0, NOW)];
        arrivals.seen(&mut items, Timestamp(NOW));
        let failed = items[0].envelope.as_ref().unwrap().after_failure("e");
        for arrivals in [&mut arrivals, &mut self::arrivals()] {
            let mut items = [Item::decode("q", failed.clone(), TTL), fastmcp(0, NOW)];
            arrivals.seen(&mut items, Timestamp(NOW));
            let [first, second] = [0, 1].map(|i| items[i].envelope.as_ref().unwrap().id);
            assert_eq!(first, all[1]);
            assert_ne!(second, first);
        }
    }

    #[test]
    fn many_equal_messages_are_told_apart_in_little_time_and_memory() {
        let mut arrivals = Arrivals::new(1024, TTL);
        let mut known = HashSet::new();
        for _ in 0..30 {
            for id in ids(&mut arrivals, 100) {
                arrivals.delivered(id);
                known.insert(id);
            }
            arrivals.acknowledged(true);
        }
        // As many as are remembered are told apart from each other.
        assert!(known.len() >= 1024, "{}", known.len());
    }
}
