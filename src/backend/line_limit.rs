//! [`LineLimit`]: the size of one request over the line to the queue, so that its answer comes in time on any line.
//!
//! A take whose answer comes too late is repeated, and so is a push. On a narrow line a repetition of the same size
//! would fail for ever. Therefore the size shrinks after a timeout, and the allowed time grows.
//!
//! ```text
//!              took ≤ ¼ of the time: twice as much, up to the most
//!             ┌──────────────────────────────────────────────────────┐
//!   the most ─┴─ timed out ──► one message ── timed out ──► one message, twice the time, up to LONGEST
//!                                   ▲                                  │
//!                                   └── took ≤ ¼ of the time: half ────┘
//! ```

use std::time::Duration;

/// Bounds of a subscriber's next take, or of a process's next pushes, learned from the earlier ones. The limit outlives
/// connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLimit {
    /// Largest value of `messages`.
    most_messages: usize,
    /// Largest value of `bytes`.
    most_bytes: usize,
    /// Largest number of messages of the next request.
    messages: usize,
    /// Largest number of bytes of the next request.
    bytes: usize,
    /// Longest time of the next request.
    time: Duration,
    /// Largest value of `time`.
    longest: Duration,
}

impl LineLimit {
    /// Time that a request may last in the beginning, and as long as answers come in time.
    pub const SHORTEST: Duration = Duration::from_secs(5);

    /// Longest time that a request may last, where messages have at most 1 MiB. One message that times out again and
    /// again reaches it. For larger messages the time is as much longer: see
    /// [`for_messages_of`](Self::for_messages_of).
    pub const LONGEST: Duration = Duration::from_secs(80);

    /// Makes the limit with the most messages and the most bytes, each at least 1, for messages of at most 1 MiB.
    pub fn new(messages: usize, bytes: usize) -> Self {
        let (messages, bytes) = (messages.max(1), bytes.max(1));
        Self {
            most_messages: messages,
            most_bytes: bytes,
            messages,
            bytes,
            time: Self::SHORTEST,
            longest: Self::LONGEST,
        }
    }

    /// Makes the limit for the largest batch of a subscriber.
    #[cfg(feature = "server")]
    pub(crate) fn of_batches(config: &crate::config::Config) -> Self {
        use crate::config::Delivery;

        let messages = match config.delivery() {
            Delivery::AtLeastOnce => config.batch_messages(),
            Delivery::AtMostOnce => 1,
        };
        Self::new(messages, config.batch_bytes()).for_messages_of(config.message_max_bytes())
    }

    /// Allows enough time for one message of this many bytes to pass a line of 13.2 KB/s.
    pub fn for_messages_of(mut self, bytes: usize) -> Self {
        let of_one = Self::LONGEST.mul_f64(bytes as f64 / (1024.0 * 1024.0));
        self.longest = of_one.max(Self::LONGEST);
        self
    }

    /// Number of messages to move, at least 1.
    pub fn messages(&self) -> usize {
        self.messages
    }

    /// Number of bytes to move, at least 1. One message is always moved, also where it is larger.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether the answer may take no more time than it does now.
    pub fn is_longest(&self) -> bool {
        self.time >= self.longest
    }

    /// Time that the answer may take.
    pub fn time(&self) -> Duration {
        self.time
    }

    /// Learns from a request whose answer did not come in time.
    pub fn timed_out(&mut self) {
        if self.messages == 1 {
            self.time = (self.time * 2).min(self.longest);
        }
        // Reduced to one at once, not by half: each further timeout would cost the whole time.
        (self.messages, self.bytes) = (1, 1);
    }

    /// Learns from a request that moved this many messages and bytes, and how long its answer took.
    pub fn succeeded(&mut self, messages: usize, bytes: usize, took: Duration) {
        if messages == 0 {
            self.answered(took);
            return;
        }
        if took > self.time / 2 {
            // Half of what was moved, as the next messages may be larger and need longer.
            self.messages = (messages / 2).clamp(1, self.messages);
            self.bytes = (bytes / 2).clamp(1, self.bytes);
            return;
        }
        if took > self.time / 4 {
            return;
        }
        if self.time > Self::SHORTEST {
            self.answered(took);
        } else {
            self.grow(messages, bytes);
        }
    }

    /// Learns from a request that had nothing to move. A quick answer halves the allowed time.
    pub fn answered(&mut self, took: Duration) {
        if took <= self.time / 4 {
            self.time = (self.time / 2).max(Self::SHORTEST);
        }
    }

    /// Learns from a request that moved this many messages and bytes without trouble. The next may move twice as much.
    pub fn grow(&mut self, messages: usize, bytes: usize) {
        // Only a bound that was reached is raised: a smaller request does not show what else would pass.
        if messages >= self.messages {
            self.messages = self.messages.saturating_mul(2).min(self.most_messages);
        }
        if bytes >= self.bytes / 2 {
            self.bytes = self.bytes.max(bytes).saturating_mul(2).min(self.most_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: usize = 1024 * 1024;

    fn seconds(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn what_timed_out_is_asked_for_one_by_one_and_only_one_gets_more_time() {
        let mut limit = LineLimit::new(100, MIB);
        assert_eq!((limit.messages(), limit.bytes(), limit.time()), (100, MIB, LineLimit::SHORTEST));
        limit.timed_out();
        assert_eq!((limit.messages(), limit.time()), (1, LineLimit::SHORTEST));
        for time in [10, 20, 40, 80, 80] {
            limit.timed_out();
            assert_eq!((limit.messages(), limit.time()), (1, Duration::from_secs(time)));
        }
    }

    #[test]
    fn what_goes_well_grows_back_to_the_settings_and_to_the_shortest_time() {
        let mut limit = LineLimit::new(100, MIB);
        (0..9).for_each(|_| limit.timed_out());
        for _ in 0..40 {
            let messages = limit.messages().min((limit.bytes() / 300).max(1));
            limit.succeeded(messages, messages * 300, Duration::from_millis(1));
        }
        assert_eq!((limit.messages(), limit.time()), (100, LineLimit::SHORTEST));
        // Small messages say nothing of large ones.
        assert!(limit.bytes() >= 100 * 300, "{limit:?}");
    }

    #[test]
    fn less_than_what_was_asked_for_is_no_reason_to_ask_for_more() {
        let mut limit = LineLimit::new(100, MIB);
        limit.timed_out();
        limit.succeeded(1, 100_000, seconds(0.7));
        assert_eq!((limit.messages(), limit.bytes()), (2, 200_000));
        limit.succeeded(1, 300, seconds(0.001));
        limit.succeeded(0, 0, seconds(0.001));
        assert_eq!((limit.messages(), limit.bytes()), (2, 200_000));
    }

    #[test]
    fn an_answer_that_leaves_little_of_the_time_is_followed_by_a_smaller_one() {
        let mut limit = LineLimit::new(100, MIB);
        limit.succeeded(10, MIB, seconds(2.6));
        assert_eq!((limit.messages(), limit.bytes()), (5, MIB / 2));
        limit.succeeded(1, MIB / 2, seconds(2.6));
        assert_eq!((limit.messages(), limit.bytes()), (1, MIB / 4));
    }

    /// Takes `sizes`, in order, over a line of `rate` bytes a second that answers `late`. Returns the number of timeouts.
    fn drain(sizes: &[usize], rate: f64, late: Duration, limit: &mut LineLimit) -> usize {
        let (mut next, mut timeouts, mut takes) = (0, 0, 0);
        while next < sizes.len() {
            takes += 1;
            assert!(takes < 50 * sizes.len() + 50, "no end: {limit:?}");
            let (mut count, mut bytes) = (0, 0);
            while count < limit.messages() && next + count < sizes.len() {
                if count > 0 && bytes + sizes[next + count] > limit.bytes() {
                    break;
                }
                bytes += sizes[next + count];
                count += 1;
            }
            let took = late + seconds(bytes as f64 / rate);
            if took > limit.time() {
                timeouts += 1;
                limit.timed_out();
            } else {
                next += count;
                limit.succeeded(count, bytes, took);
            }
        }
        timeouts
    }

    #[test]
    fn twelve_of_100_kb_pass_a_line_of_150_and_one_of_20_kb_a_second() {
        for (rate, most) in [(150_000.0, 1), (20_000.0, 3)] {
            let timeouts = drain(&[100_000; 12], rate, Duration::from_millis(1), &mut LineLimit::new(100, MIB));
            assert!(timeouts <= most, "{timeouts} timeouts at {rate} bytes a second");
        }
    }

    #[test]
    fn whatever_may_be_queued_passes_a_line_of_14_kb_a_second() {
        for size in [MIB, 16 * MIB, 64 * MIB] {
            let mut limit = LineLimit::new(100, MIB).for_messages_of(size);
            let timeouts = drain(&[300, size, 300], 14_000.0, Duration::from_millis(100), &mut limit);
            assert!(timeouts <= 12, "{timeouts} timeouts for {size} bytes");
        }
    }

    #[test]
    fn quick_answers_without_messages_take_the_time_back() {
        let mut limit = LineLimit::new(1, MIB);
        (0..4).for_each(|_| limit.timed_out());
        for time in [40, 20, 10, 5, 5] {
            limit.succeeded(0, 0, limit.time() / 3);
            limit.succeeded(0, 0, seconds(0.01));
            assert_eq!((limit.messages(), limit.time()), (1, Duration::from_secs(time)));
        }
    }

    proptest! {
        #[test]
        fn nothing_goes_below_one_or_beyond_the_settings(
            most in (0_usize..2000, 0_usize..(4 * MIB)),
            takes in prop::collection::vec((any::<bool>(), 0_usize..2000, 0_usize..(2 * MIB), 0.0..100.0), 0..60),
        ) {
            let mut limit = LineLimit::new(most.0, most.1);
            for (timed_out, messages, bytes, took) in takes {
                let before = limit;
                if timed_out {
                    limit.timed_out();
                    prop_assert!(limit.messages() == 1 && limit.time() >= before.time());
                } else {
                    limit.succeeded(messages, bytes, seconds(took));
                    prop_assert!(limit.time() <= before.time());
                }
                prop_assert!((1..=most.0.max(1)).contains(&limit.messages()));
                prop_assert!((1..=most.1.max(1)).contains(&limit.bytes()));
                prop_assert!((LineLimit::SHORTEST..=LineLimit::LONGEST).contains(&limit.time()));
            }
        }

        #[test]
        fn whatever_passes_in_the_longest_time_is_delivered(
            sizes in prop::collection::vec(prop_oneof![300_usize..3000, 50_000_usize..200_000, 900_000_usize..MIB], 1..40),
            rate in 14_000.0..10_000_000.0,
            late in 0_u64..400,
        ) {
            drain(&sizes, rate, Duration::from_millis(late), &mut LineLimit::new(100, MIB));
        }
    }
}
