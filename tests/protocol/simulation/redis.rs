//! Queue as all processes reach it: the pure store, its clock, the listeners to leases, and the waiters.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use mcp_courier::SessionId;
use mcp_courier::testing::backend::{Change, Store};
use mcp_courier::testing::backend::{LeaseState, Mark, OwnerToken, Replaced, Taken};
use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::testing::subscription::Delivered;

use super::checker::Cause;
use super::messages::Queued;
use super::network::{Command, Reply, Request};
use super::scheduler::Time;
use super::settings::Guard;
use super::trace::trace;
use super::tracking::Key;
use super::world::{ConnectionId, Event, World};

/// Start of the queue's clock. Any moment: the simulation knows no other clock.
const START: i64 = 1_000 * 3_600_000_000;

/// Number of earlier states that a failover may come back with.
const SNAPSHOTS: usize = 4;

pub(crate) struct Redis {
    pub(crate) store: Store,
    /// Sum of the jumps of the queue's clock, in microseconds.
    offset: i64,
    /// Moment of the last jump.
    pub(crate) jumped: Option<Time>,
    snapshots: VecDeque<Store>,
    /// Messages of each queue when it was seen last.
    seen: Vec<Vec<(Vec<u8>, Queued)>>,
    /// Waits that are blocked.
    waiting: Vec<Request>,
    /// Connections to which the queue announces the next change of a key, and no later one.
    pub(crate) tracking: Vec<(Key, ConnectionId)>,
    /// Moments at which leases are checked next, by session.
    looks: Vec<Option<Time>>,
    /// Acknowledgements that are answered and not done, where the guard against that is removed.
    pub(crate) put_off: HashMap<OwnerToken, Delivered>,
    pub(crate) down_until: Time,
}

impl Redis {
    pub(crate) fn new(prefix: &str, sessions: usize) -> Self {
        Self {
            store: Store::new(prefix),
            offset: 0,
            jumped: None,
            snapshots: VecDeque::new(),
            seen: vec![Vec::new(); sessions],
            waiting: Vec::new(),
            tracking: Vec::new(),
            looks: vec![None; sessions],
            put_off: HashMap::new(),
            down_until: Time(0),
        }
    }

    pub(crate) fn clock(&self, now: Time) -> Timestamp {
        Timestamp(START + now.0 as i64 + self.offset)
    }

    /// Ends the tracking of a closed connection. Where the queue notices the close, its waits end too.
    pub(crate) fn forget(&mut self, connection: ConnectionId, notices: bool) {
        self.tracking.retain(|(_, reader)| *reader != connection);
        self.waiting.retain_mut(|request| {
            let is_its = request.connection == Some(connection);
            request.is_abandoned |= is_its;
            !(is_its && notices)
        });
    }

    pub(crate) fn holder(&self, session: &SessionId) -> Option<OwnerToken> {
        self.store.lease(session).map(|(holder, _)| holder)
    }

    fn is_empty(&self, session: &SessionId) -> bool {
        self.store.messages(session).next().is_none()
    }

    /// Returns the messages in a queue where they have changed since the last call.
    pub(crate) fn changed_queue(&mut self, session: usize, name: &SessionId) -> Option<Vec<Queued>> {
        let seen = &mut self.seen[session];
        if self.store.messages(name).eq(seen.iter().map(|(raw, _)| raw.as_slice())) {
            return None;
        }
        let mut old = std::mem::take(seen).into_iter();
        for raw in self.store.messages(name) {
            // What was there before stands in the same order, less what is removed.
            let known = old.as_slice().iter().position(|(other, _)| other == raw);
            let queued = known.and_then(|at| old.nth(at)).map_or_else(|| Queued::of(raw), |(_, queued)| queued);
            seen.push((raw.to_vec(), queued));
        }
        Some(seen.iter().map(|(_, queued)| *queued).collect())
    }
}

impl World {
    /// Does a command at the queue, or blocks it.
    pub(crate) fn execute(&mut self, request: Request) {
        let now = self.scheduler.now();
        if now < self.redis.down_until {
            trace!(self, Some(request.session), "  queue: down, o{} {:?} is lost", request.owner.0, request.command);
            return;
        }
        self.run_out(request.session);
        if let Command::Wait(block) = request.command
            && !block.is_zero()
            && self.redis.is_empty(&self.names[request.session])
        {
            self.scheduler.at(now + block, Event::WaitEnds { operation: request.operation });
            self.redis.waiting.push(request);
            return;
        }
        self.perform(request);
    }

    /// Ends a wait whose time is over.
    pub(crate) fn wait_ends(&mut self, operation: u64) {
        if let Some(at) = self.redis.waiting.iter().position(|request| request.operation == operation) {
            let request = self.redis.waiting.remove(at);
            self.run_out(request.session);
            self.perform(request);
        }
    }

    fn perform(&mut self, mut request: Request) {
        let (now, session) = (self.scheduler.now(), request.session);
        let (clock, config, name) = (self.redis.clock(now), self.settings.config.clone(), self.names[session].clone());
        let without = self.settings.without;
        let mut token = request.token;
        let put_off = self.put_off(&mut request, clock).unwrap_or_default();
        let mut moment = self.redis.store.at(&config, clock);
        let reply = match &request.command {
            Command::Open | Command::ReadQuestions | Command::CancelQuestions => Reply::Done,
            Command::Claim => {
                moment.claim(&name, token);
                Reply::Done
            }
            Command::Renew | Command::ClaimIfAbsent => Reply::Lease(moment.renew(&name, token)),
            Command::Track => Reply::Holder(match self.redis.store.lease(&name) {
                None => LeaseState::Absent,
                Some((holder, _)) if holder == token => LeaseState::Held,
                Some(_) => LeaseState::Lost,
            }),
            Command::Read(behind) => {
                let (held, no_items) = (LeaseState::Held, Vec::new());
                let mut taken = Taken { lease: held, changed: false, has_more: false, now: clock, items: no_items };
                if behind.is_none() {
                    taken.items = moment.read(&name);
                } else {
                    // As its owner would read it.
                    let mut copy = self.redis.store.clone();
                    let (mut moment, behind) = (copy.at(&config, clock), self.unmarked(&name, None, behind.clone()));
                    moment.claim(&name, token);
                    taken = moment.take_behind(&name, token, None, behind.as_ref(), false);
                }
                // Where a read ends at its bound, Redis has not looked whether there is more.
                taken.has_more |= taken.items.len() >= config.batch_messages();
                let lease = match self.redis.store.lease(&name) {
                    None => LeaseState::Absent,
                    Some((holder, _)) if holder == token => LeaseState::Held,
                    Some(_) => LeaseState::Lost,
                };
                Reply::Read(taken, lease, now)
            }
            Command::Take(delivered, behind) => {
                if without == Some(Guard::LeaseCheck)
                    && let Some((holder, _)) = self.redis.store.lease(&name)
                {
                    token = holder;
                }
                let mut delivered = delivered.clone();
                if without == Some(Guard::ContentCheck)
                    && let Some(delivered) = &mut delivered
                    && let Some(last) = self.redis.store.messages(&name).nth(delivered.count - 1)
                {
                    delivered.last = Mark::of(last);
                }
                if without == Some(Guard::CumulativeAck) {
                    delivered =
                        delivered.filter(|delivered| !self.removes_newest_alone(&name, token, delivered, clock));
                }
                if without == Some(Guard::Outcomes)
                    && let Some(delivered) = &mut delivered
                {
                    delivered.outcomes.retain(|outcome| outcome.discarded.is_some());
                }
                let before = self.redis.store.messages(&name).count();
                let behind = self.unmarked(&name, delivered.as_ref(), behind.clone());
                let (delivered, behind) = self.too_many(&name, delivered, behind);
                let mut moment = self.redis.store.at(&config, clock);
                let mut taken = moment.take_behind(&name, token, delivered.as_ref(), behind.as_ref(), true);
                // Where a read ends at its bound, Redis has not looked whether there is more.
                taken.has_more |= taken.items.len() >= config.batch_messages();
                taken.items.drain(..put_off.min(taken.items.len()));
                if let Some(delivered) = delivered.filter(|_| self.redis.store.messages(&name).count() < before) {
                    self.checker.acknowledged(request.owner, session, &delivered);
                }
                Reply::Taken(taken, now)
            }
            Command::Wait(_) => {
                let reclaim = without == Some(Guard::NoReclaimAfterWait);
                Reply::Taken(moment.take(&name, token, None, reclaim), now)
            }
            Command::Rewrite { oldest, replacement } if without == Some(Guard::RewriteInPlace) => {
                let replaced = moment.replace_oldest(&name, token, oldest, replacement.clone());
                if replaced == Replaced::Done {
                    let delivered = Delivered {
                        count: 1,
                        last: Mark::of(replacement),
                        questions: Vec::new(),
                        outcomes: Vec::new(),
                    };
                    moment.take(&name, token, Some(&delivered), false);
                    moment.push_raw(&name, replacement);
                }
                Reply::Rewritten(replaced)
            }
            Command::Rewrite { oldest, replacement } => {
                Reply::Rewritten(moment.replace_oldest(&name, token, oldest, replacement.clone()))
            }
            Command::Release => {
                moment.release(&name, token);
                Reply::Done
            }
        };
        if !matches!(
            request.command,
            Command::Open | Command::Track | Command::ReadQuestions | Command::CancelQuestions
        ) {
            let gone = if request.is_abandoned { " (abandoned)" } else { "" };
            trace!(
                self,
                Some(session),
                "  queue: o{} {}{gone} -> {}",
                request.owner.0,
                short(&request.command),
                shown(&reply)
            );
        }
        let is_granted = match &reply {
            Reply::Lease(state) => state.is_held(),
            Reply::Taken(taken, _) => taken.lease == LeaseState::Reclaimed,
            _ => matches!(request.command, Command::Claim),
        };
        if is_granted && self.owners.contains_key(&request.owner) {
            self.checker.granted(request.owner, session, now + config.lease());
        }
        let has_changed = self.observe(session, Cause::Command { owner: request.owner });
        self.tell(request.connection);
        if has_changed {
            self.tell_of(Key::Queue(session), request.connection);
        }
        self.track(&request, &reply, has_changed);
        self.answer(&request, reply);
    }

    /// Lets what has run out at a queue go.
    pub(crate) fn run_out(&mut self, session: usize) {
        let (now, config) = (self.scheduler.now(), self.settings.config.clone());
        let clock = self.redis.clock(now);
        self.redis.store.at(&config, clock).is_empty(&self.names[session]);
        self.see(session, Cause::RanOut);
    }

    /// Sees what has become of a queue by no owner's doing, and tells of it.
    pub(crate) fn see(&mut self, session: usize, cause: Cause) {
        let has_changed = self.observe(session, cause);
        self.tell(None);
        if has_changed {
            self.tell_of(Key::Queue(session), None);
        }
    }

    /// Looks at a lease when its time may be over.
    pub(crate) fn lease_look(&mut self, session: usize) {
        if self.redis.looks[session] == Some(self.scheduler.now()) {
            self.redis.looks[session] = None;
            self.run_out(session);
        }
    }

    /// Tells whoever tracks a lease, or waits for a message, of what has changed.
    fn tell(&mut self, own: Option<ConnectionId>) {
        let mut changes = self.redis.store.changes();
        changes.sort_by_key(|change| self.session_of(change));
        let mut pushed = Vec::new();
        for change in changes {
            let Some(session) = self.session_of(&change) else { continue };
            match change {
                Change::LeaseEnded(..) => self.tell_of(Key::Lease(session), own),
                Change::Pushed(_) => pushed.push(session),
                _ => {}
            }
        }
        self.look_at_leases();
        for session in pushed {
            let is_its = |request: &mut Request| request.session == session;
            let woken: Vec<_> = self.redis.waiting.extract_if(.., is_its).collect();
            for request in woken {
                self.perform(request);
            }
        }
    }

    fn session_of(&self, change: &Change) -> Option<usize> {
        match change {
            Change::LeaseEnded(session, _) | Change::Pushed(session) => {
                self.names.iter().position(|name| name == session)
            }
            _ => None,
        }
    }

    /// Plans a check of each lease for the moment of its end: the queue announces that end by itself.
    fn look_at_leases(&mut self) {
        let now = self.scheduler.now();
        let clock = self.redis.clock(now);
        for session in 0..self.names.len() {
            let Some((_, until)) = self.redis.store.lease(&self.names[session]) else { continue };
            if self.redis.looks[session].is_none() {
                let at = now + until.since(clock);
                self.redis.looks[session] = Some(at);
                self.scheduler.at(at, Event::LeaseLook { session });
            }
        }
    }

    /// Does something to the store that no owner does.
    pub(crate) fn intervene(&mut self, session: usize, cause: Cause, act: impl FnOnce(&mut Store, Timestamp)) {
        self.run_out(session);
        let clock = self.redis.clock(self.scheduler.now());
        act(&mut self.redis.store, clock);
        self.see(session, cause);
    }

    pub(crate) fn take_snapshot(&mut self) {
        self.redis.snapshots.push_back(self.redis.store.clone());
        if self.redis.snapshots.len() > SNAPSHOTS {
            self.redis.snapshots.pop_front();
        }
    }

    /// Forgets everything, or what came after a snapshot; or only the messages, or the leases.
    pub(crate) fn forget(&mut self) {
        for session in 0..self.names.len() {
            self.run_out(session);
        }
        let older = self.redis.snapshots.len();
        match self.rng.usize(..4) {
            3 => return self.evict(),
            0 => {
                trace!(self, None, "fault: the queue forgets everything");
                self.flush();
            }
            1 if older > 0 => {
                let age = self.rng.usize(..older);
                trace!(self, None, "fault: the queue goes back to an older state");
                self.redis.store = self.redis.snapshots[age].clone();
                self.redis.snapshots.truncate(age + 1);
                for id in self.connections.keys().copied().collect::<Vec<_>>() {
                    let silently = self.rng.usize(..4) == 0;
                    self.break_connection(id, silently);
                }
            }
            _ => {
                trace!(self, None, "fault: the queue forgets its leases");
                let (clock, config) = (self.redis.clock(self.scheduler.now()), self.settings.config.clone());
                for name in &self.names {
                    self.redis.store.at(&config, clock).delete_lease(name);
                }
            }
        }
        for session in 0..self.names.len() {
            self.see(session, Cause::Forgot);
        }
    }

    /// Forgets the messages, as an eviction does: the owners' leases stand.
    pub(crate) fn evict(&mut self) {
        trace!(self, None, "fault: the queue forgets its messages");
        let (clock, config) = (self.redis.clock(self.scheduler.now()), self.settings.config.clone());
        for session in 0..self.names.len() {
            self.run_out(session);
            self.redis.store.at(&config, clock).delete_queue(&self.names[session]);
            self.see(session, Cause::Forgot);
        }
    }

    /// Moves the queue's clock.
    pub(crate) fn jump(&mut self) {
        let most = self.rng.i64(1_000..600_000_000);
        let by = if self.rng.bool() { most } else { -most };
        trace!(self, None, "fault: the queue's clock jumps by {} s", by as f64 / 1e6);
        self.redis.offset += by;
        self.redis.jumped = Some(self.scheduler.now());
        for session in 0..self.names.len() {
            self.redis.looks[session] = None;
            self.run_out(session);
        }
    }

    /// Takes the queue down for a while. All connections break.
    pub(crate) fn take_down(&mut self, lasting: Duration) {
        trace!(self, None, "fault: the queue is down for {lasting:?}");
        self.redis.down_until = self.scheduler.now() + lasting;
        self.redis.waiting.clear();
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            self.break_connection(id, false);
        }
    }
}

fn shown(reply: &Reply) -> String {
    match reply {
        Reply::Read(taken, lease, _) => format!("{lease:?}, {} messages", taken.items.len()),
        Reply::Taken(taken, _) => {
            let changed = if taken.changed { ", changed" } else { "" };
            format!("{:?}{changed}, {} messages", taken.lease, taken.items.len())
        }
        other => format!("{other:?}"),
    }
}

fn short(command: &Command) -> String {
    match command {
        Command::Take(delivered, behind) => {
            let [delivered, behind] = [delivered.as_ref().map(|d| d.count), behind.as_ref().map(|b| b.count)];
            format!("Take(acknowledge {delivered:?}, behind {behind:?})")
        }
        Command::Rewrite { .. } => "Rewrite".to_owned(),
        other => format!("{other:?}"),
    }
}
