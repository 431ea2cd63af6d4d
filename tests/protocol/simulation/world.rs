//! [`World`]: all that is simulated, and the loop over its events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mcp_courier::testing::backend::{Outgoing, OwnerToken};
use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::testing::subscription::{SessionState, SubscriberState};
use mcp_courier::{MessageId, NotificationId, SessionId};

use super::checker::{Cause, Checker, Violation};
use super::client::{Client, Stream};
use super::delivery::Plan;
use super::guards::remove;
use super::line::Wire;
use super::messages::{Kind, Letter, letter};
use super::network::{Connection, Reply, Request};
use super::owner::Owner;
use super::redis::Redis;
use super::resuming::Habit;
use super::scheduler::{Scheduler, Time};
use super::server::Server;
use super::settings::{Scene, Settings, Waiting, about, pick, up_to};
use super::sharer::POLL;
use super::trace::{Trace, trace};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServerId(pub(crate) usize);
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnerId(pub(crate) u64);
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnectionId(pub(crate) u64);
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StreamId(pub(crate) u64);

/// Part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Faulty,
    /// The faults are over: what is queued is delivered within a bounded time.
    Healing,
    /// Clients move and nothing fails: notifications arrive within a heartbeat.
    Calm,
}

/// Something that happens.
pub(crate) enum Event {
    Pushes { session: usize },
    Queued { session: usize, n: usize, letter: Letter },
    Late { n: usize },
    Overdue { n: usize },
    Execute(Request),
    WaitEnds { operation: u64 },
    LeaseLook { session: usize },
    Answer { owner: OwnerId, server: ServerId, operation: u64, reply: Reply },
    News { owner: OwnerId, server: ServerId, connection: ConnectionId },
    Suspended { owner: OwnerId, server: ServerId, connection: ConnectionId },
    Broken { owner: OwnerId, server: ServerId, connection: ConnectionId },
    RoundBegins { server: ServerId },
    RoundEnds { connection: ConnectionId, round: u64, is_cut: bool },
    RoundTimeout { server: ServerId, connection: ConnectionId, round: u64 },
    Wire { server: ServerId, connection: ConnectionId, news: Wire },
    Sweep { owner: OwnerId, server: ServerId, operation: u64 },
    Interferes { server: ServerId },
    Timer { owner: OwnerId, server: ServerId, at: Instant },
    Parked { owner: OwnerId, server: ServerId },
    HandedOver { owner: OwnerId, server: ServerId, number: u64, stream: StreamId, plan: Plan },
    PingAgain { owner: OwnerId, server: ServerId, number: u64, stream: StreamId },
    ConfirmTimeout { owner: OwnerId, server: ServerId, number: u64, stream: StreamId },
    Pong { owner: OwnerId, server: ServerId, number: u64 },
    StreamOpens { server: ServerId, session: usize, stream: StreamId },
    StreamCloses { server: ServerId, session: usize, stream: StreamId },
    SessionEnds { server: ServerId, session: usize, presence: SessionState },
    StreamEnds { session: usize, stream: StreamId },
    Arrives { session: usize, stream: StreamId, n: usize, id: Option<MessageId> },
    Ping { session: usize, stream: StreamId, owner: OwnerId, number: u64 },
    ComesBack { session: usize },
    ClientActs { session: usize },
    Fault,
    Resume { server: ServerId, epoch: u64 },
    ProcessStarts { server: ServerId, epoch: u64 },
    ProcessEnds { server: ServerId, epoch: u64 },
    DrainEnds { server: ServerId, epoch: u64 },
}

impl Event {
    /// Returns the process in which the event happens, and its source there: events of one source keep their order.
    pub(crate) fn process(&self) -> Option<(ServerId, u64)> {
        Some(match self {
            Self::Answer { owner, server, .. } => (*server, owner.0 * 4),
            Self::News { owner, server, .. }
            | Self::Broken { owner, server, .. }
            | Self::Suspended { owner, server, .. } => (*server, owner.0 * 4 + 1),
            Self::Timer { owner, server, .. } | Self::Sweep { owner, server, .. } => (*server, owner.0 * 4 + 2),
            // What comes over one line keeps its order, answers and news alike.
            Self::Wire { server, .. } => (*server, 1),
            Self::RoundBegins { server } | Self::RoundTimeout { server, .. } => (*server, 2),
            Self::HandedOver { owner, server, .. }
            | Self::PingAgain { owner, server, .. }
            | Self::ConfirmTimeout { owner, server, .. }
            | Self::Pong { owner, server, .. }
            | Self::Parked { owner, server } => (*server, owner.0 * 4 + 3),
            Self::StreamOpens { server, .. } | Self::StreamCloses { server, .. } | Self::SessionEnds { server, .. } => {
                (*server, 0)
            }
            _ => return None,
        })
    }
}

pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) rng: Rng,
    pub(crate) scheduler: Scheduler<Event>,
    pub(crate) trace: Trace,
    pub(crate) checker: Checker,
    pub(crate) phase: Phase,
    /// This host's clock at the start.
    pub(crate) origin: Instant,
    pub(crate) redis: Redis,
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: Vec<Client>,
    pub(crate) owners: BTreeMap<OwnerId, Owner>,
    pub(crate) connections: BTreeMap<ConnectionId, Connection>,
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    /// Ids of the sessions.
    pub(crate) names: Vec<SessionId>,
    /// Numbers of the messages by their ids.
    pub(crate) numbers: HashMap<NotificationId, usize>,
    /// Messages of ours by their numbers, and these numbers by their ids.
    pub(crate) letters: HashMap<usize, Letter>,
    pub(crate) ids: HashMap<NotificationId, usize>,
    pub(crate) tokens: HashMap<OwnerToken, OwnerId>,
    /// Kinds of notes that machines have made.
    pub(crate) met: BTreeSet<&'static str>,
    /// Most deliveries of one session that were unconfirmed at once.
    pub(crate) most_unconfirmed: usize,
    pub(crate) next_owner: u64,
    pub(crate) next_connection: u64,
    pub(crate) next_stream: u64,
    pub(crate) next_operation: u64,
}

/// Longest time in which a push reaches an owner that waits, while nothing fails.
const PROMPT: Duration = Duration::from_millis(500);

/// Result of a run.
pub(crate) struct Run {
    pub(crate) violation: Option<Violation>,
    pub(crate) simulated: Duration,
    pub(crate) events: u64,
    pub(crate) received: u64,
    pub(crate) repeats: u64,
    pub(crate) resumed: u64,
    pub(crate) most_unconfirmed: usize,
    pub(crate) met: BTreeSet<&'static str>,
    pub(crate) trace: Trace,
}

/// Runs one seed.
pub(crate) fn run(scene: Scene, seed: u64, trace: Trace) -> Run {
    let mut rng = Rng::with_seed(seed);
    let settings = Settings::draw(&mut rng, scene);
    World::new(settings, rng, trace).live()
}

impl World {
    fn new(settings: Settings, mut rng: Rng, trace: Trace) -> Self {
        let Settings { servers, sessions, .. } = settings;
        let config = &settings.config;
        let names = (0..sessions).map(|n| SessionId::new(format!("session-{n}")).expect("an id")).collect();
        Self {
            checker: Checker::new(&settings),
            redis: Redis::new(config.prefix(), sessions),
            servers: (0..servers).map(|_| Server::new(sessions)).collect(),
            clients: (0..sessions).map(|_| Client::new(Habit::draw(&mut rng))).collect(),
            rng,
            scheduler: Scheduler::new(),
            trace,
            phase: Phase::Faulty,
            // Ahead of every clock that is read on the way, so that all that is simulated comes later.
            origin: Instant::now() + Duration::from_secs(3600),
            owners: BTreeMap::new(),
            connections: BTreeMap::new(),
            streams: BTreeMap::new(),
            names,
            numbers: HashMap::new(),
            letters: HashMap::new(),
            ids: HashMap::new(),
            tokens: HashMap::new(),
            met: BTreeSet::new(),
            most_unconfirmed: 0,
            next_owner: 0,
            next_connection: 0,
            next_stream: 0,
            next_operation: 0,
            settings,
        }
    }

    fn live(mut self) -> Run {
        trace!(self, None, "{:?}", self.settings);
        for session in 0..self.clients.len() {
            self.scheduler.at(Time(0), Event::ComesBack { session });
            self.scheduler.at(Time(1), Event::Pushes { session });
            self.scheduler.at(Time(2), Event::ClientActs { session });
        }
        let first = self.settings.fault_every;
        self.scheduler.at(Time(0) + first, Event::Fault);
        let mut events = self.until(Time(0) + self.settings.faulty);
        if self.checker.violation.is_none() {
            self.heal();
            let end = self.scheduler.now() + self.recovery();
            events += self.until(end);
        }
        if self.checker.violation.is_none() {
            let ended: Vec<_> = self.clients.iter().map(|client| client.has_ended).collect();
            self.checker.at_the_end(&ended);
            self.check_receipts();
            self.phase = Phase::Calm;
            trace!(self, None, "calm");
            self.plan_interferences();
            let end = self.scheduler.now() + self.settings.calm;
            events += self.until(end);
        }
        let met = self.met;
        let Checker { violation, received, repeats, resuming, .. } = self.checker;
        Run {
            violation,
            simulated: self.scheduler.now().since(Time(0)),
            events,
            received,
            repeats,
            resumed: resuming.resumed,
            most_unconfirmed: self.most_unconfirmed,
            met,
            trace: self.trace,
        }
    }

    /// Lets things happen until then, or until a guarantee is broken. Returns the number of events.
    fn until(&mut self, end: Time) -> u64 {
        let mut events = 0;
        while self.checker.violation.is_none() {
            let Some(event) = self.scheduler.next(end) else { break };
            events += 1;
            if let Some(event) = self.defers(event) {
                self.happens(event);
            }
        }
        events
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Pushes { session } => self.pushes(session),
            Event::Queued { session, n, letter } => self.queued(session, n, &letter),
            Event::Late { n } => self.is_it_late(n),
            Event::Overdue { n } => self.is_it_overdue(n),
            Event::Execute(request) => self.execute(request),
            Event::WaitEnds { operation } => self.wait_ends(operation),
            Event::LeaseLook { session } => self.lease_look(session),
            Event::Answer { owner, operation, reply, .. } => self.answered(owner, operation, reply),
            Event::News { owner, connection, .. } => self.news(owner, connection),
            Event::Suspended { owner, connection, .. } => self.permit_suspended(owner, connection),
            Event::Broken { owner, connection, .. } => self.broken(owner, connection),
            Event::RoundBegins { server } => self.round_begins(server),
            Event::RoundEnds { connection, round, is_cut } => self.round_ends(connection, round, is_cut),
            Event::RoundTimeout { server, connection, round } => self.round_timeout(server, connection, round),
            Event::Wire { server, connection, news } => self.arrives_by_wire(server, connection, news),
            Event::Sweep { owner, operation, .. } => self.sweep(owner, operation),
            Event::Interferes { server } => self.interferes(server),
            Event::Timer { owner, at, .. } => self.timer_is_due(owner, at),
            Event::Parked { owner, server } => self.owner_parked(server, owner),
            Event::HandedOver { owner, number, stream, plan, .. } => self.hand_over_ends(owner, number, stream, plan),
            Event::PingAgain { owner, number, stream, .. } => self.ping_again(owner, number, stream),
            Event::ConfirmTimeout { owner, number, stream, .. } => self.confirm_timeout(owner, number, stream),
            Event::Pong { owner, number, .. } => self.pong(owner, number),
            Event::StreamOpens { server, session, stream } => self.stream_opens(server, session, stream),
            Event::StreamCloses { server, session, stream } => self.stream_closes(server, session, stream),
            Event::SessionEnds { server, session, presence } => self.session_ends(server, session, presence),
            Event::StreamEnds { session, stream } => self.stream_ends(session, stream),
            Event::Arrives { session, stream, n, id } => self.arrives(session, stream, n, id),
            Event::Ping { session, stream, owner, number } => self.pinged(session, stream, owner, number),
            Event::ComesBack { session } => self.comes_back(session),
            Event::ClientActs { session } => self.client_acts(session),
            Event::Fault => self.fault(),
            Event::Resume { server, epoch } => self.resume(server, epoch),
            Event::ProcessStarts { server, epoch } => self.process_starts(server, epoch),
            Event::ProcessEnds { server, epoch } => self.process_ends(server, epoch),
            Event::DrainEnds { server, epoch } => self.drain_ends(server, epoch),
        }
    }

    /// A producer pushes.
    fn pushes(&mut self, session: usize) {
        let mut every = self.settings.push_every;
        if self.phase == Phase::Calm {
            every = every.min(self.settings.config.heartbeat());
        }
        let now = self.scheduler.now();
        let next = now + about(&mut self.rng, every);
        self.scheduler.at(next, Event::Pushes { session });
        if self.phase == Phase::Healing || self.clients[session].has_ended {
            return;
        }
        if self.phase == Phase::Faulty && self.hits(self.settings.redriven) {
            self.redrives(session);
        }
        let count = if self.rng.usize(..10) == 0 { self.rng.i64(2..12) } else { 1 };
        let mut at = now;
        for i in 0..count {
            let kind = if self.phase == Phase::Calm {
                Kind::Ordinary
            } else {
                Kind::draw(&mut self.rng, self.settings.is_foreign)
            };
            let time_to_live = self.settings.config.time_to_live();
            let foreign = matches!(kind, Kind::FastMcp | Kind::Garbage);
            let time_to_live =
                if foreign { time_to_live } else { time_to_live.mul_f64(pick(&mut self.rng, &[1.0, 1.0, 0.5, 3.0])) };
            let n = self.checker.made(session, kind);
            // FastMCP's messages are distinguished by their times, if their last bytes are alike.
            let said = Timestamp(self.redis.clock(now).0 + i);
            let letter = letter(n, kind, time_to_live, said, &mut self.rng);
            if let Letter::Draft { id, .. } = &letter {
                self.ids.insert(*id, n);
                self.letters.insert(n, letter.clone());
            }
            let odds = self.odds();
            if self.hits(odds.lost_request) {
                trace!(self, Some(session), "a push of #{n} is lost");
                continue;
            }
            at = at.max(now + self.delay());
            // Equal messages without an id are two notifications.
            let pushed_again = if self.phase == Phase::Faulty { self.settings.pushed_again } else { 0 };
            if !foreign && self.hits(odds.repeated + pushed_again) {
                let most = if self.rng.bool() { every * 2 } else { Duration::ZERO };
                let again = at + self.delay() + up_to(&mut self.rng, most);
                let letter = letter.clone().again();
                self.scheduler.at(again, Event::Queued { session, n, letter });
            }
            self.scheduler.at(at, Event::Queued { session, n, letter });
        }
    }

    /// A push has reached the queue.
    fn queued(&mut self, session: usize, n: usize, letter: &Letter) {
        let now = self.scheduler.now();
        if now < self.redis.down_until {
            return;
        }
        let (config, name, clock) =
            (Arc::clone(&self.settings.config), self.names[session].clone(), self.redis.clock(now));
        let mut is_queued = true;
        let expires = match letter {
            Letter::Raw(_) => {
                // FastMCP's time is that of its producer, who wrote it before.
                let life = config.time_to_live();
                (Timestamp(clock.0 - 60_000_000).plus(life), clock.plus(life))
            }
            Letter::Draft { time_to_live, .. } => (clock.plus(*time_to_live), clock.plus(*time_to_live)),
        };
        self.run_out(session);
        let replaced = self.replaced_without_guard(session, n);
        self.intervene(session, Cause::Pushed, |store, clock| match letter {
            Letter::Raw(raw) => {
                let mut moment = store.at(&config, clock);
                moment.push_raw(&name, raw);
                // As FastMCP does, whatever else waits.
                moment.expire_queue(&name, config.time_to_live());
            }
            Letter::Draft { draft, .. } => {
                if let Some(replaced) = &replaced {
                    remove(store, &config, clock, &name, replaced);
                }
                let outgoing = Outgoing { session: name.clone(), draft: draft.clone() };
                is_queued = store.at(&config, clock).push(&[outgoing])[0].is_ok();
            }
        });
        if !is_queued {
            trace!(self, Some(session), "#{n} is refused: a bound is reached");
            return;
        }
        trace!(self, Some(session), "#{n} is queued: {:?}", self.checker.messages[n].kind);
        let at = matches!(letter, Letter::Draft { .. }).then_some(clock.0 as u64);
        self.checker.queued(n, now, at, expires);
        if self.phase == Phase::Calm {
            self.scheduler.at(now + self.patience(), Event::Late { n });
            self.scheduler.at(now + PROMPT * 2, Event::Overdue { n });
        }
    }

    /// Judges an owner that waits for a message while one stands in its queue.
    fn is_it_overdue(&mut self, n: usize) {
        let (session, now) = (self.checker.messages[n].session, self.scheduler.now());
        let Some(server) = self.clients[session].streams.last().map(|stream| self.streams[stream].server) else {
            return;
        };
        let Some(id) = self.servers[server.0].seats[session].owner else { return };
        let owner = self.owner(id);
        let waits = owner.machine.state() == SubscriberState::Waiting && now.since(owner.waits_since) > PROMPT;
        if waits && self.settings.wakes() && self.checker.queues[session].iter().any(|queued| queued.n == n) {
            let text = format!("o{} waits, and #{n} stands in its queue for {:?}", id.0, PROMPT * 2);
            self.checker.fail("prompt", session, text);
        }
    }

    /// Returns the time within which a notification arrives while nothing fails: who stands by looks once a heartbeat, and an
    /// owner that was displaced soon after an earlier doubt pauses before it looks.
    fn patience(&self) -> Duration {
        let config = &self.settings.config;
        let poll = if self.settings.waiting == Waiting::Shared { POLL } else { Duration::ZERO };
        // Where Redis may forget what it tracks, the owner that is displaced may not have looked for a heartbeat either.
        let unheard = if self.settings.most_tracked == usize::MAX { Duration::ZERO } else { config.heartbeat() };
        config.heartbeat().max(config.backoff_max()) + unheard + poll + Duration::from_millis(500)
    }

    /// Judges a notification that was pushed in calm.
    fn is_it_late(&mut self, n: usize) {
        let session = self.checker.messages[n].session;
        if self.checker.is_accounted_for(n) {
            return;
        }
        let Some(since) = self.clients[session].reachable_since else { return };
        let (now, at) = (self.scheduler.now(), since + self.patience());
        if now < at {
            return self.scheduler.at(at, Event::Late { n });
        }
        let holder = self.checker.holder(session);
        self.checker.fail(
            "prompt",
            session,
            format!("nothing fails, and #{n} has not arrived after a heartbeat; {holder:?} has the lease"),
        );
    }

    /// Sees what is in a queue now, and who has its lease. Returns whether the queue has changed.
    pub(crate) fn observe(&mut self, session: usize, cause: Cause) -> bool {
        let now = self.scheduler.now();
        let name = &self.names[session];
        let clock = self.redis.clock(now);
        let changed = self.redis.changed_queue(session, name);
        let has_changed = changed.is_some();
        if let Some(queue) = changed {
            self.checker.queue_is(session, queue, cause, clock);
        }
        let holder = self.redis.holder(name);
        let holder = holder.map(|token| self.tokens[&token]);
        self.checker.holder_is(session, holder, now);
        has_changed
    }
}
