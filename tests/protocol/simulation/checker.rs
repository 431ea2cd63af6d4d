//! [`Checker`]: sees what really happens, and says which guarantee it breaks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mcp_courier::DiscardReason;
use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::testing::subscription::Delivered;

use super::messages::{Kind, Queued};
use super::resuming::Resuming;
use super::scheduler::Time;
use super::settings::Settings;
use super::world::{OwnerId, StreamId};

/// A broken guarantee.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) guarantee: &'static str,
    pub(crate) session: Option<usize>,
    pub(crate) text: String,
}

/// Cause of a change of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Pushed,
    /// A command of this owner.
    Command {
        owner: OwnerId,
    },
    RanOut,
    /// Redis forgot: a flush, or a failover to an older state.
    Forgot,
}

/// Outcome of one hand-over, as its owner knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Nothing,
    Unconfirmed,
    Confirmed,
}

/// Notification, from its push on.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) session: usize,
    pub(crate) kind: Kind,
    /// Place in the order of all pushes, once it was queued.
    pub(crate) order: Option<u64>,
    /// Number of times that it was queued: a push may be repeated.
    copies: u32,
    /// Earliest and latest time of its expiry by the queue's clock; the two differ where its producer's clock decides.
    expires: (Timestamp, Timestamp),
    pub(crate) queued_at: Time,
    /// Queue's time of its last push.
    pub(crate) pushed_at: u64,
    sent: Vec<(OwnerId, Known)>,
    /// Number of times that its client has received it.
    pub(crate) received: u32,
    /// The session took it once, and said that the attempt failed.
    pub(crate) failed_late: bool,
    /// Set once the letter was redriven: the reason of its discard no longer holds.
    pub(crate) is_cured: bool,
    failures: u32,
    pub(crate) discarded: Option<DiscardReason>,
    /// Number of times that Redis lost it, or brought it back.
    pub(crate) forgotten: u32,
    pub(crate) ran_out: bool,
    /// Set once the push of a newer one with its key has removed it.
    pub(crate) is_replaced: bool,
}

/// Standing of one owner at its queue.
#[derive(Debug, Default)]
struct Tenure {
    session: usize,
    /// End of the lease that it was given last.
    until: Time,
    displaced: Option<Time>,
    /// Moment at which its process heard that it is displaced.
    told: Option<Time>,
    /// Messages that the owner has sent and that are still in the queue.
    outstanding: BTreeSet<Queued>,
}

/// Times of a hand-over, which are known when its message goes out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handing {
    /// Moment at which the delivery decided to hand it over, and the queue's clock then.
    pub(crate) decided: (Time, Timestamp),
    /// Moments at which the batch was read at the queue, and its answer was taken in.
    pub(crate) read: (Time, Time),
}

/// Certainty with which an owner hears that another has taken its lease.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hears {
    /// The connection of the owner may lose the news of the takeover.
    Perhaps,
    /// Within this time, where that happened after this moment.
    Within(Duration, Time),
}

pub(crate) struct Checker {
    pub(crate) violation: Option<Violation>,
    pub(crate) messages: Vec<Message>,
    /// Messages in each queue, the oldest first.
    pub(crate) queues: Vec<Vec<Queued>>,
    /// Newest message that each client has received, by its order.
    newest: Vec<Option<u64>>,
    pub(crate) resuming: Resuming,
    tenures: BTreeMap<OwnerId, Tenure>,
    holders: Vec<Option<OwnerId>>,
    pushed: u64,
    window: usize,
    max_attempts: u32,
    grace: Duration,
    is_foreign: bool,
    /// Number of notifications that clients have received, repeats included.
    pub(crate) received: u64,
    pub(crate) repeats: u64,
}

impl Checker {
    pub(crate) fn new(Settings { sessions, config, is_foreign, .. }: &Settings) -> Self {
        let sessions = *sessions;
        Self {
            violation: None,
            messages: Vec::new(),
            queues: vec![Vec::new(); sessions],
            newest: vec![None; sessions],
            resuming: Resuming::default(),
            tenures: BTreeMap::new(),
            holders: vec![None; sessions],
            pushed: 0,
            window: config.window_messages().max(config.batch_messages()),
            max_attempts: config.max_attempts(),
            grace: config.expiry_grace(),
            is_foreign: *is_foreign,
            received: 0,
            repeats: 0,
        }
    }

    pub(crate) fn fail(&mut self, guarantee: &'static str, session: impl Into<Option<usize>>, text: String) {
        let session = session.into();
        self.violation.get_or_insert(Violation { guarantee, session, text });
    }

    /// Makes the next message, and returns its number.
    pub(crate) fn made(&mut self, session: usize, kind: Kind) -> usize {
        self.messages.push(Message {
            session,
            kind,
            order: None,
            copies: 0,
            expires: (Timestamp(0), Timestamp(0)),
            queued_at: Time(0),
            pushed_at: 0,
            sent: Vec::new(),
            received: 0,
            failed_late: false,
            is_cured: false,
            failures: 0,
            discarded: None,
            forgotten: 0,
            ran_out: false,
            is_replaced: false,
        });
        self.messages.len() - 1
    }

    /// Sees a push reach the queue. `at` is the queue's time, where the message has it.
    pub(crate) fn queued(&mut self, n: usize, now: Time, at: Option<u64>, expires: (Timestamp, Timestamp)) {
        self.resuming.queued(Queued { n, at }, self.pushed);
        let message = &mut self.messages[n];
        message.pushed_at = at.unwrap_or_default();
        message.copies += 1;
        if message.order.is_none() {
            message.queued_at = now;
            message.expires = expires;
        }
        // Each copy has its own, and the queue's clock may jump between them.
        message.expires = (message.expires.0.min(expires.0), message.expires.1.max(expires.1));
        message.order.get_or_insert(self.pushed);
        self.pushed += 1;
    }

    /// Sees a dead letter be queued again.
    pub(crate) fn redriven(
        &mut self,
        n: usize,
        now: Time,
        clock: Timestamp,
        life: Duration,
        is_alone: bool,
        is_cured: bool,
    ) {
        let message = &mut self.messages[n];
        message.is_cured |= is_cured;
        // Where a copy of it is queued too, what was discarded before may be that.
        if is_alone {
            message.discarded = None;
        }
        let until = clock.plus(life);
        self.queued(n, now, Some(clock.0 as u64), (until, until));
    }

    /// Sees what is in a queue now. `clock` is the queue's; `is_owned` says whether anyone has the lease.
    pub(crate) fn queue_is(&mut self, session: usize, now: Vec<Queued>, cause: Cause, clock: Timestamp) {
        let before = std::mem::replace(&mut self.queues[session], now.clone());
        let mut left = now;
        let mut removed = Vec::new();
        for n in before {
            match left.iter().position(|other| *other == n) {
                Some(at) => drop(left.remove(at)),
                None => removed.push(n),
            }
        }
        if cause == Cause::Forgot {
            self.resuming.forgot(session);
            for queued in &left {
                self.messages[queued.n].forgotten += 1;
            }
        }
        for queued in removed {
            for tenure in self.tenures.values_mut() {
                tenure.outstanding.remove(&queued);
            }
            let n = queued.n;
            let Message { expires, received, discarded, .. } = &self.messages[n];
            match cause {
                Cause::Forgot => self.messages[n].forgotten += 1,
                // FastMCP sets a life of its own for the whole queue.
                Cause::RanOut if expires.0.plus(self.grace) > clock && !self.is_foreign => {
                    self.fail("G5", session, format!("#{n} ran out with its queue before its time"));
                }
                Cause::RanOut => self.messages[n].ran_out = true,
                Cause::Command { owner } if *received == 0 && discarded.is_none() => {
                    if !self.resuming.is_forged(session, n) {
                        let text = format!("#{n} was removed by o{}, and nobody has received or discarded it", owner.0);
                        self.fail("G2", session, text);
                    }
                }
                Cause::Command { .. } => {}
                Cause::Pushed => {
                    let key = self.messages[n].kind.key();
                    let has_newer = self.queues[session]
                        .iter()
                        .any(|other| other.n > n && self.messages[other.n].kind.key() == key);
                    if key.is_none() || !has_newer {
                        self.fail("G2", session, format!("#{n} was removed by a push, and no newer one replaces it"));
                    }
                    self.messages[n].is_replaced = true;
                }
            }
        }
    }

    /// Sees the oldest messages of a queue be acknowledged, each as delivered or as discarded.
    pub(crate) fn acknowledged(
        &mut self,
        owner: OwnerId,
        session: usize,
        Delivered { count, outcomes, .. }: &Delivered,
    ) {
        let discarded =
            |position| outcomes.iter().any(|outcome| outcome.position == position && outcome.discarded.is_some());
        let delivered = self.queues[session].iter().take(*count).enumerate().filter(|(at, _)| !discarded(*at));
        let is_lost = |n: &usize| {
            let Message { received, forgotten, .. } = &self.messages[*n];
            *received == 0 && *forgotten == 0 && !self.resuming.is_forged(session, *n)
        };
        if let Some(n) = delivered.map(|(_, queued)| queued.n).find(is_lost) {
            let text = format!("#{n} is acknowledged by o{} as delivered, and its client has not received it", owner.0);
            self.fail("G2", session, text);
        }
    }

    /// Sees that an owner holds the lease until `until`.
    pub(crate) fn granted(&mut self, owner: OwnerId, session: usize, until: Time) {
        let tenure = self.tenures.entry(owner).or_default();
        (tenure.session, tenure.until) = (session, until);
    }

    /// Sees who holds the lease.
    pub(crate) fn holder_is(&mut self, session: usize, holder: Option<OwnerId>, now: Time) {
        if self.holders[session] == holder {
            return;
        }
        self.holders[session] = holder;
        let Some(holder) = holder else { return };
        for (owner, tenure) in self.tenures.iter_mut().filter(|(_, tenure)| tenure.session == session) {
            if *owner == holder {
                (tenure.displaced, tenure.told) = (None, None);
            } else {
                tenure.displaced.get_or_insert(now);
            }
        }
    }

    pub(crate) fn holder(&self, session: usize) -> Option<OwnerId> {
        self.holders[session]
    }

    /// Sees that the news of a changed lease have reached an owner's process.
    pub(crate) fn told(&mut self, owner: OwnerId, now: Time) {
        if let Some(tenure) = self.tenures.get_mut(&owner).filter(|tenure| tenure.displaced.is_some()) {
            tenure.told.get_or_insert(now);
        }
    }

    /// Sees that an owner has exited, or died: it sends nothing more.
    pub(crate) fn gone(&mut self, owner: OwnerId) {
        self.tenures.remove(&owner);
    }

    /// Sees a notification go out.
    pub(crate) fn sends(
        &mut self,
        owner: OwnerId,
        queued: Queued,
        handing: Handing,
        jumped: Option<Time>,
        hears: Hears,
    ) {
        let n = queued.n;
        self.resuming.sends(self.messages[n].session, queued);
        let Message { session, expires, kind, forgotten, .. } = &self.messages[n];
        let (session, expires) = (*session, *expires);
        // A message with its producer's time is as old as its owner believes, after a jump or a failover.
        let is_believed = *kind == Kind::FastMcp && (*forgotten > 0 || jumped.is_some());
        let (decided, clock) = handing.decided;
        let Some(tenure) = self.tenures.get_mut(&owner) else {
            return self.fail("G4", session, format!("o{} sends #{n} and never had the lease, or is gone", owner.0));
        };
        // A failover may put what it brings back before what was sent.
        if self.queues[session].contains(&queued) && *forgotten == 0 {
            tenure.outstanding.insert(queued);
        }
        let (outstanding, until, displaced, told) =
            (tenure.outstanding.clone(), tenure.until, tenure.displaced, tenure.told);
        let o = owner.0;
        if decided >= until {
            self.fail("G4", session, format!("o{o} began to send #{n} at {decided}; its lease had ended at {until}"));
        }
        if displaced.is_some_and(|at| handing.read.0 > at) {
            self.fail("G4", session, format!("o{o} sends #{n}, which it read after it was displaced"));
        }
        if told.is_some_and(|at| decided > at) {
            self.fail("G4", session, format!("o{o} began to send #{n} after it was told that it is displaced"));
        }
        if let (Some(at), Hears::Within(time, since)) = (displaced, hears)
            && at > since
            && decided > at + time
        {
            self.fail(
                "G4",
                session,
                format!("o{o} began to send #{n} and has not heard that it was displaced at {at}"),
            );
        }
        if outstanding.len() > self.window {
            self.fail(
                "G3",
                session,
                format!("o{o} has sent {outstanding:?} and did not acknowledge them, more than a window"),
            );
        }
        // The owner knows the clock of the moment at which the queue was read, and takes it for that of the answer.
        let behind = handing.read.1.since(handing.read.0);
        let is_steady = !is_believed && jumped.is_none_or(|at| at < handing.read.0);
        if is_steady && clock.since(expires.1.plus(behind)) > Duration::from_millis(1) {
            self.fail("G5", session, format!("o{o} sends #{n}, which had expired before it was read"));
        }
        let message = &mut self.messages[n];
        let is_known = message.sent.contains(&(owner, Known::Confirmed));
        message.sent.push((owner, Known::Nothing));
        // Brought back by a failover, it is an equal of the one that is known to be removed.
        let is_equal = message.kind == Kind::FastMcp && message.forgotten > 0;
        if is_known && !is_equal {
            self.fail("G3", session, format!("o{o} sends #{n} again, which was confirmed to it"));
        }
    }

    /// Sees what a client receives.
    pub(crate) fn receives(&mut self, stream: StreamId, queued: Queued) {
        self.received += 1;
        let (n, order) = (queued.n, self.resuming.order(queued));
        self.arrives_by(stream, queued);
        let Message { session, received, discarded, forgotten, ran_out, pushed_at, .. } = &mut self.messages[n];
        *received += 1;
        let is_first = *received == 1;
        self.repeats += u64::from(*received > 1);
        // A failover may bring back messages that were lost before later ones were delivered.
        // A process that was paused during a hand-over ends that hand-over, whatever has happened to the message meanwhile.
        let is_older = queued.at.unwrap_or_default() != *pushed_at;
        let is_excused = discarded.is_some() || *forgotten > 0 || *ran_out || is_older;
        let session = *session;
        let newest = &mut self.newest[session];
        if is_first && !is_excused && order < *newest && !self.resuming.is_forged(session, n) {
            self.fail("G1", session, format!("#{n} arrives after a later one"));
        } else {
            *newest = order.max(*newest);
        }
    }

    /// Sees what an owner learns of what it sent.
    pub(crate) fn learns(&mut self, owner: OwnerId, n: usize, is_confirmed: bool) {
        let known = if is_confirmed { Known::Confirmed } else { Known::Unconfirmed };
        let Message { session, sent, received, .. } = &mut self.messages[n];
        for sent in sent.iter_mut().filter(|sent| sent.0 == owner && sent.1 == Known::Nothing) {
            sent.1 = known;
        }
        if is_confirmed && *received == 0 {
            let session = *session;
            self.fail("G2", session, format!("#{n} is confirmed to o{}, and its client has not received it", owner.0));
        }
    }

    /// Sees an attempt fail. `is_late` where the session had taken it.
    pub(crate) fn attempt_failed(&mut self, n: usize, is_late: bool) {
        self.messages[n].failures += 1;
        self.messages[n].failed_late |= is_late;
    }

    /// Sees an owner discard a notification. `clock` is the queue's when that was decided, `None` where it jumped since.
    pub(crate) fn discards(&mut self, owner: OwnerId, n: usize, reason: &DiscardReason, clock: Option<Timestamp>) {
        let Message { session, kind, expires, failures, .. } = &self.messages[n];
        let (session, o) = (*session, owner.0);
        let is_right = match reason {
            DiscardReason::Expired => clock.is_none_or(|clock| expires.0 <= clock),
            DiscardReason::Rejected(_) => *kind == Kind::Rejected,
            DiscardReason::AttemptsExhausted { .. } => *failures >= self.max_attempts,
            DiscardReason::Superseded => matches!(kind, Kind::Status { is_terminal: false, .. }),
            DiscardReason::Undecodable(_) => *kind == Kind::Garbage,
            _ => false,
        };
        self.messages[n].discarded.get_or_insert(reason.clone());
        if !is_right {
            let guarantee = if *reason == DiscardReason::Expired { "G5" } else { "G2" };
            self.fail(guarantee, session, format!("o{o} discards #{n} without cause: {reason}"));
        }
    }

    /// Returns whether it is known what became of a message.
    pub(crate) fn is_accounted_for(&self, n: usize) -> bool {
        let Message { session, received, discarded, forgotten, ran_out, is_replaced, .. } = &self.messages[n];
        let is_over = discarded.is_some() || *ran_out || *is_replaced;
        *received > 0 || is_over || *forgotten > 0 || self.resuming.is_forged(*session, n)
    }

    /// Judges what has become of everything when all has had its time.
    pub(crate) fn at_the_end(&mut self, ended: &[bool]) {
        for (session, has_ended) in ended.iter().enumerate() {
            if !has_ended && !self.queues[session].is_empty() {
                let left = self.queues[session].clone();
                self.fail("G2", session, format!("the faults are over, and these are still queued: {left:?}"));
            }
        }
        for n in 0..self.messages.len() {
            let Message { session, order, .. } = self.messages[n];
            if order.is_some() && !self.is_accounted_for(n) && !ended[session] {
                self.fail("G2", session, format!("#{n} was queued, and nobody knows what became of it"));
            }
        }
    }
}
