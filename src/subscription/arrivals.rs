//! [`Arrivals`]: ids and times for messages whose producers gave them none, as FastMCP's.
//!
//! A message of this crate carries an id, and a time by the queue's clock. A message of FastMCP carries no id. Its time
//! is that of its worker's clock, which may be wrong.
//!
//! *Times*. The owner bounds a wrong time from both sides. The queue was once empty, and every message has come after
//! that moment. The owner has once seen the message, and the message was queued before that moment. A time outside
//! these bounds is replaced by the nearer bound.
//!
//! *Ids*. An id is derived from the message itself, so a message that is read again has the same id. Equal messages
//! would share the derived id, so the owner counts them: the second equal message gets another id, and so on.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Item;
use crate::envelope::{Envelope, Timestamp};
use crate::notification::NotificationId;
use crate::recent_set::RecentSet;

/// Difference between a producer's clock and the queue's clock from which the operator is warned.
const TOLERANCE: Duration = Duration::from_secs(10);

/// Knowledge of one owner about the messages of its queue.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// Time to live of messages that carry none.
    time_to_live: Duration,
    /// Moment, by the queue's clock, at which the queue was last seen empty; `None` before the first such read.
    empty_at: Option<Timestamp>,
    /// Number of derived ids to remember.
    capacity: usize,
    /// Knowledge about messages that lack an id or a time; `None` before the first such message, because most queues
    /// have none.
    foreign: Option<Box<Foreign>>,
    /// Set once the operator was warned of a wrong clock. The warning comes once per subscriber.
    has_warned: bool,
}

/// Knowledge about messages that lack an id or a time.
#[derive(Debug)]
struct Foreign {
    /// Messages whose time lay in the future when they were first seen, with the moment of that read. A later read must
    /// not make such a message younger. Only messages of the newest batch are kept.
    ahead: HashMap<NotificationId, Timestamp>,
    /// Derived ids of delivered messages whose acknowledgement has no known outcome yet.
    unacknowledged: Vec<NotificationId>,
    /// Derived ids of messages that are known to be removed. Another message that now derives such an id is a new
    /// message, and gets another id. The list has the same capacity as the list of delivered ids, so it forgets no id
    /// before that list does.
    removed: RecentSet<NotificationId>,
}

impl Arrivals {
    /// Creates the knowledge of an owner that has read nothing. `capacity` is the number of delivered ids that the
    /// owner remembers.
    pub(crate) fn new(capacity: usize, time_to_live: Duration) -> Self {
        Self { time_to_live, empty_at: None, capacity, foreign: None, has_warned: false }
    }

    /// Gives the messages of a batch the ids and the times that they lack. `now` is the time of the read by the queue's
    /// clock.
    ///
    /// Returns the error of a producer's clock, the first time that this error is over 10 s.
    pub(crate) fn seen(&mut self, items: &mut [Item], now: Timestamp) -> Option<Duration> {
        // The queue's clock may have stepped back since the queue was empty. A bound in the future would make messages
        // immortal.
        let not_before = self.empty_at.map(|at| at.min(now));
        self.empty_at = if items.is_empty() { Some(now) } else { not_before };
        // Most batches lack nothing.
        if items.iter().filter_map(|item| item.envelope.as_ref().ok()).all(is_complete) {
            if let Some(foreign) = &mut self.foreign {
                foreign.ahead.clear();
            }
            return None;
        }
        let mut envelopes: Vec<_> = items.iter_mut().filter_map(|item| item.envelope.as_mut().ok()).collect();
        let time_to_live = self.time_to_live;
        let foreign = self.foreign();
        foreign.distinguish(&mut envelopes);
        let seen_before = std::mem::take(&mut foreign.ahead);
        let mut worst = Duration::ZERO;
        for envelope in envelopes {
            let Some(said) = envelope.enqueued_at.filter(|_| !envelope.is_stamped()) else { continue };
            let first_seen = seen_before.get(&envelope.id).map(|at| (*at).min(now));
            if said > now || first_seen.is_some() {
                foreign.ahead.insert(envelope.id, first_seen.unwrap_or(now));
            }
            let latest = first_seen.unwrap_or(now);
            // The time that the producer gave, between two bounds. Not after `latest`, when the message was first seen.
            // Not before `not_before`, when the queue was last empty, because the message was not there then. Where the
            // two contradict each other, `latest` prevails.
            let at = said.min(latest).max(not_before.unwrap_or(said).min(latest));
            worst = worst.max(said.since(latest)).max(at.since(said));
            envelope.set_enqueued_at(at, time_to_live);
        }
        let warns = worst > TOLERANCE && !self.has_warned;
        self.has_warned |= warns;
        warns.then_some(worst)
    }

    /// Notes that a notification is delivered, now or by an earlier delivery. The owner remembers its id among the
    /// delivered ids.
    pub(crate) fn delivered(&mut self, id: NotificationId) {
        if id.is_derived() {
            self.foreign().unacknowledged.push(id);
        }
    }

    /// Takes the outcome of the acknowledgement of the delivered notifications. Where the outcome is unknown, their
    /// messages may still be queued and must keep their ids.
    pub(crate) fn acknowledged(&mut self, is_known_to_be_removed: bool) {
        let Some(foreign) = &mut self.foreign else { return };
        let ids = foreign.unacknowledged.drain(..);
        if is_known_to_be_removed {
            for id in ids {
                foreign.removed.insert(id);
            }
        }
    }

    /// Returns the knowledge about messages that lack an id or a time. The first call creates it.
    fn foreign(&mut self) -> &mut Foreign {
        let capacity = self.capacity;
        self.foreign.get_or_insert_with(|| {
            Box::new(Foreign { ahead: HashMap::new(), unacknowledged: Vec::new(), removed: RecentSet::new(capacity) })
        })
    }
}

/// Returns whether a message has an id and the queue's time.
fn is_complete(envelope: &Envelope) -> bool {
    envelope.is_stamped() && !envelope.has_derived_id()
}

impl Foreign {
    /// Gives each of several equal messages an id of its own.
    fn distinguish(&self, envelopes: &mut [&mut Envelope]) {
        if envelopes.iter().all(|envelope| !envelope.has_derived_id()) {
            return;
        }
        // A failed attempt is written into the queue with its message's id. Equal messages behind that one need other
        // ids.
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
    /// Moment of the tests, which read no clock. Any moment would do.
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

    /// Returns the age at `now`, in seconds, of one message that says it was queued at `said`.
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
        // The message waits and gets older, and the moment at which the queue was empty does not change.
        assert_eq!(age(&mut arrivals, NOW - 6 * MINUTE, NOW + 10 * MINUTE), 600);
        // The time of a right clock is kept.
        assert_eq!(age(&mut arrivals, NOW + 9 * MINUTE, NOW + 10 * MINUTE), 60);
    }

    #[test]
    fn a_message_is_no_younger_than_the_moment_at_which_it_was_seen_first() {
        let mut arrivals = arrivals();
        for minutes in [0, 1, 6] {
            assert_eq!(age(&mut arrivals, NOW + HOUR, NOW + minutes * MINUTE), minutes * 60);
        }
        // The age also grows on when the message's own time has come.
        assert_eq!(age(&mut arrivals, NOW + HOUR, NOW + 61 * MINUTE), 61 * 60);
        // Messages that are first seen later are younger.
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

    /// Returns the ids of this number of equal messages.
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
        // Without an acknowledgement the messages keep their ids.
        assert_eq!(ids(&mut arrivals, 3), all);
        arrivals.delivered(all[0]);
        arrivals.acknowledged(false);
        assert_eq!(ids(&mut arrivals, 3), all);
        // The id of a message that is known to be removed is given to no further message.
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
        // Equal messages get different ids as far back as ids are remembered.
        assert!(known.len() >= 1024, "{}", known.len());
    }
}
