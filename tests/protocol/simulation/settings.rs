//! [`Settings`]: what a seed decides at the start of its run.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use mcp_courier::Config;

/// Way in which the sessions of a process wait for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Each over a connection of its own, by a command that blocks.
    Dedicated,
    /// All over one connection of their process, which the queue tells of changes.
    Shared,
}

/// A guard of the protocol that a variant of the adapters removes, to see that the checker finds its lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    /// A take names the token of whoever holds the lease.
    LeaseCheck,
    /// An acknowledgement carries the mark of whatever stands at its position.
    ContentCheck,
    /// A failed attempt is removed, and pushed anew behind the others.
    RewriteInPlace,
    /// The permit is asked once for each batch.
    PermitBeforeEach,
    /// The permit counts from the answer to a renewal.
    PermitFromSending,
    /// A batch counts as delivered though its client has not confirmed it.
    Confirmation,
    /// An acknowledgement removes the newest of the delivered messages, and not all before it.
    CumulativeAck,
    /// Each read gives every message another id, so that a repeat is not recognised.
    SkipById,
    /// No server hears what a client says that it has.
    Resume,
    /// A client that names a message is taken to name any that brings the same notification.
    ResumeByTime,
    /// An acknowledgement of a discarded message is answered before it is done.
    DiscardFirst,
    /// A confirmation is believed of all that was handed over, also behind it.
    ConfirmedBefore,
    /// A read behind unconfirmed messages passes over whatever stands in their place.
    BehindMark,
    /// An owner hands over more than a window.
    WindowBound,
    /// An acknowledgement names the unconfirmed messages too, behind which it reads.
    AckOfConfirmed,
    /// An acknowledgement does not say what became of each message.
    Outcomes,
    /// A push replaces a message though an owner has the lease.
    CollapseUnowned,
    /// A push replaces also a message that an owner may have read since.
    CollapseForgotten,
    /// The take behind a wait takes an absent lease.
    NoReclaimAfterWait,
    /// Shared: a plain read counts though the lease behind it is not the reader's.
    LeaseBehindRead,
    /// Shared: an answer lifts also the suspensions that came up while it was on its way.
    SuspensionsSinceSending,
    /// Shared: a change that is announced during a read causes no other read.
    ReadAfterChange,
    /// Shared: an acknowledgement reads the queue before it removes messages, so that the queue is not tracked behind it.
    ReadLast,
    /// Shared: no change of a lease is announced.
    LeaseTracked,
    /// Shared: a wait has no end but a change.
    Sweep,
    /// Shared: whoever waits does not hear that the connection was lost.
    LossWakes,
    /// Shared: news that everything has changed mean nothing.
    NullMeansAll,
}

/// Parts in a thousand of the requests to the queue that meet a fault.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Odds {
    pub(crate) lost_request: u32,
    pub(crate) lost_answer: u32,
    pub(crate) repeated: u32,
    pub(crate) slow: u32,
    /// The process is paused when it has just sent a request.
    pub(crate) paused: u32,
    /// Of hand-overs: the attempt fails.
    pub(crate) transient: u32,
    /// Of hand-overs: the session needs long.
    pub(crate) slow_session: u32,
    /// Of pings: the answer is lost.
    pub(crate) lost_ping: u32,
}

/// Scene of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene {
    pub(crate) waiting: Waiting,
    /// Guard whose need the scene is to show, if it is one's.
    pub(crate) of: Option<Guard>,
    /// Set where that guard is removed.
    pub(crate) is_removed: bool,
}

/// Settings of a run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) waiting: Waiting,
    pub(crate) config: Arc<Config>,
    /// The same for owners; without a bound of the window, where that guard is removed.
    pub(crate) owners_config: Arc<Config>,
    pub(crate) servers: usize,
    pub(crate) sessions: usize,
    /// Length of the time with faults.
    pub(crate) faulty: Duration,
    /// Length of the calm time after the recovery.
    pub(crate) calm: Duration,
    /// Mean pauses between two pushes to a session, two faults, and two acts of a client.
    pub(crate) push_every: Duration,
    pub(crate) fault_every: Duration,
    pub(crate) act_every: Duration,
    pub(crate) odds: Odds,
    /// Parts in a thousand of the pushes that are repeated a while later, or bring a dead letter back.
    pub(crate) pushed_again: u32,
    pub(crate) redriven: u32,
    /// Longest time after which a client answers a ping.
    pub(crate) answers: Duration,
    /// Longest delay of a slow request or answer.
    pub(crate) slowest: Duration,
    /// FastMCP's workers, and others, push to the same queues.
    pub(crate) is_foreign: bool,
    /// The queue tells owners of changes to their leases: a proxy, or an old server, may not.
    pub(crate) tracks: bool,
    /// Most keys of whose changes the queue tells. Others it forgets, and not all of their readers hear of that.
    pub(crate) most_tracked: usize,
    pub(crate) forgets: bool,
    pub(crate) jumps: bool,
    pub(crate) ends_sessions: bool,
    /// Half of the faults are evictions of the queues.
    pub(crate) evicts: bool,
    pub(crate) without: Option<Guard>,
}

impl Settings {
    pub(crate) fn draw(rng: &mut Rng, Scene { waiting, of, is_removed }: Scene) -> Self {
        let without = of.filter(|_| is_removed);
        let millis = Duration::from_millis;
        let heartbeat = millis(pick(rng, &[200, 1000, 1000, 5000, 5000, 30_000]));
        let hand_over = millis(pick(rng, &[500, 3000, 30_000]));
        let time_to_live = millis(pick(rng, &[5_000, 60_000, 300_000, 86_400_000]));
        let builder = Config::builder()
            .heartbeat(heartbeat)
            .hand_over_timeout(hand_over)
            .time_to_live(time_to_live)
            .expiry_grace(millis(pick(rng, &[1000, 60_000])))
            .backoff_max(millis(pick(rng, &[200, 2000])))
            .max_attempts(pick(rng, &[1, 2, 3, 5]))
            .batch_messages(pick(rng, &[1, 2, 4, 10]))
            .window_messages(pick(rng, &[1, 5, 20]))
            .queue_max_messages(pick(rng, &[5, 30, 30, 100]))
            .dead_letters(pick(rng, &[0, 3, 50]))
            // Longer than any run.
            .receipt_life(Duration::from_secs(86_400));
        let builder = match of {
            Some(Guard::BehindMark) => {
                builder.window_messages(20).batch_messages(2).queue_max_messages(100).hand_over_timeout(millis(30_000))
            }
            Some(Guard::PermitFromSending) => {
                builder.heartbeat(millis(1000)).hand_over_timeout(millis(3000)).batch_messages(10)
            }
            Some(Guard::LeaseTracked) => {
                builder.heartbeat(millis(5000)).hand_over_timeout(millis(3000)).batch_messages(10)
            }
            _ => builder,
        };
        let config = builder.clone().build().expect("possible settings");
        let owners = if without == Some(Guard::WindowBound) { builder.window_messages(1000) } else { builder };
        let owners_config = owners.build().expect("possible settings");
        // Faults that meet show more than faults alone.
        let odds = if rng.usize(..3) == 0 { [20, 50, 50, 100] } else { [0, 2, 10, 50] };
        let calm = config.heartbeat() * 6 + Duration::from_secs(10);
        let mut settings = Self {
            waiting,
            config: Arc::new(config),
            owners_config: Arc::new(owners_config),
            servers: pick(rng, &[1, 2, 2, 3, 3]),
            sessions: rng.usize(1..=2),
            faulty: Duration::from_secs(rng.u64(20..200)),
            calm,
            push_every: millis(pick(rng, &[300, 2000, 5000, 30_000])),
            fault_every: millis(pick(rng, &[2000, 10_000, 60_000])),
            act_every: millis(pick(rng, &[1000, 5000, 30_000])),
            odds: Odds {
                lost_request: pick(rng, &odds),
                lost_answer: pick(rng, &odds),
                repeated: pick(rng, &odds),
                slow: pick(rng, &odds),
                paused: pick(rng, &odds) / 2,
                transient: pick(rng, &odds),
                slow_session: pick(rng, &odds) * 4,
                lost_ping: pick(rng, &odds) * 4,
            },
            pushed_again: pick(rng, &[0, 0, 50, 150]),
            redriven: pick(rng, &[0, 100, 300]),
            answers: millis(pick(rng, &[1, 20, 300, 2000])),
            slowest: millis(pick(rng, &[500, 4000, 30_000])),
            is_foreign: rng.bool(),
            tracks: rng.usize(..4) > 0,
            most_tracked: usize::MAX,
            forgets: rng.bool(),
            jumps: rng.usize(..4) == 0,
            ends_sessions: rng.usize(..4) == 0,
            evicts: false,
            without,
        };
        if waiting == Waiting::Shared {
            settings.sessions *= 2;
            settings.most_tracked = pick(rng, &[1, 3, usize::MAX, usize::MAX, usize::MAX, usize::MAX]);
        }
        if let Some(guard) = of {
            settings.set(guard);
        }
        settings
    }

    /// Sets the scene of a guard that is needed rarely: what it is against happens often in it.
    fn set(&mut self, guard: Guard) {
        let millis = Duration::from_millis;
        match guard {
            Guard::BehindMark => {
                (self.evicts, self.forgets, self.push_every, self.fault_every, self.answers) =
                    (true, true, millis(200), millis(2000), millis(2000));
                (self.odds.lost_ping, self.odds.slow_session, self.odds.transient) = (0, 0, 0);
            }
            Guard::PermitFromSending => {
                (self.push_every, self.slowest, self.sessions) = (millis(200), millis(4000), 1);
                (self.odds.slow, self.odds.slow_session) = (500, 700);
            }
            Guard::LeaseTracked => {
                (self.servers, self.tracks, self.most_tracked) = (3, true, usize::MAX);
                (self.push_every, self.act_every, self.odds.slow_session) = (millis(500), millis(1000), 500);
            }
            Guard::CollapseUnowned | Guard::CollapseForgotten => {
                (self.push_every, self.act_every, self.answers) = (millis(300), millis(1000), millis(2000));
            }
            _ => {}
        }
    }

    /// Returns whether a push wakes whoever waits for it.
    pub(crate) fn wakes(&self) -> bool {
        self.waiting == Waiting::Dedicated || self.tells_of_all()
    }

    /// Returns whether each change of what an owner has read reaches its process, if the connection is well.
    pub(crate) fn tells_of_all(&self) -> bool {
        self.tracks && self.most_tracked == usize::MAX
    }
}

pub(crate) fn pick<T: Copy>(rng: &mut Rng, from: &[T]) -> T {
    from[rng.usize(..from.len())]
}

/// Returns a duration from zero up to `most`, short ones more often.
pub(crate) fn up_to(rng: &mut Rng, most: Duration) -> Duration {
    Duration::from_micros((most.as_micros() as f64 * rng.f64().powi(3)) as u64)
}

/// Returns a pause whose mean is about `mean`, at least a millisecond.
pub(crate) fn about(rng: &mut Rng, mean: Duration) -> Duration {
    mean.mul_f64((-(1.0 - rng.f64()).ln()).min(6.0)).max(Duration::from_millis(1))
}
