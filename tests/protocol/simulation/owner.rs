//! An owner: one machine, and a driver that performs its actions and decides nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_courier::DiscardReason;
use mcp_courier::testing::backend::{OwnerToken, Replaced};
use mcp_courier::testing::envelope::Envelope;
use mcp_courier::testing::subscription::{
    Action, EndedTasks, Event as Happening, ExitReason, Note, Operation, SessionState, SubscriberState, Subscription,
    SuspensionMark,
};

use super::checker::Handing;
use super::delivery::Handover;
use super::messages::number;
use super::network::{Command, Reply, Request};
use super::scheduler::Time;
use super::settings::Waiting;
use super::trace::trace;
use super::world::{ConnectionId, Event, OwnerId, ServerId, World};

pub(crate) struct Owner {
    pub(crate) server: ServerId,
    pub(crate) session: usize,
    pub(crate) machine: Subscription,
    pub(crate) token: OwnerToken,
    pub(crate) connection: Option<ConnectionId>,
    pub(crate) under_way: Option<UnderWay>,
    pub(crate) handover: Option<Handover>,
    pub(crate) ended_tasks: EndedTasks,
    /// Delivery that ended last: when that was, and when its batch was read.
    pub(crate) settled: Option<Handing>,
    /// Moments at which the last batch was read at the queue, and its answer was taken in.
    pub(crate) read: (Time, Time),
    timer: Option<Instant>,
    /// Shared: the queue may have changed since its last read was sent, or is not tracked.
    pub(crate) is_stale: bool,
    /// Moment at which it began to wait for the last time.
    pub(crate) waits_since: Time,
    pub(crate) is_parked: bool,
    /// Moment at which it was asked to stop.
    pub(crate) stopped: Option<Time>,
}

/// Running operation of a machine.
pub(crate) struct UnderWay {
    pub(crate) number: u64,
    pub(crate) operation: Operation,
    pub(crate) sent: Instant,
    pub(crate) mark: SuspensionMark,
    /// Answer that is kept while the lease is read behind it.
    pub(crate) answered: Option<Reply>,
    /// Shared: the read that ends a wait is sent.
    pub(crate) is_read: bool,
    /// Moment at which a wait ends.
    pub(crate) ends: Time,
}

impl Owner {
    /// Returns the open wait of an owner that shares a line, while no read of the queue is sent.
    pub(crate) fn awaits_change(&self) -> Option<u64> {
        let waits = |under_way: &&UnderWay| matches!(under_way.operation, Operation::Wait(_)) && !under_way.is_read;
        self.under_way.as_ref().filter(waits).map(|under_way| under_way.number)
    }
}

impl World {
    /// Makes a machine for a session at a server.
    pub(crate) fn start_owner(&mut self, server: ServerId, session: usize) -> OwnerId {
        self.next_owner += 1;
        let id = OwnerId(self.next_owner);
        let owner = Owner {
            server,
            session,
            machine: Subscription::new(Arc::clone(&self.settings.owners_config)),
            token: OwnerToken::new(),
            connection: None,
            under_way: None,
            handover: None,
            ended_tasks: EndedTasks::default(),
            settled: None,
            read: (Time(0), Time(0)),
            timer: None,
            is_stale: true,
            waits_since: Time(0),
            is_parked: false,
            stopped: None,
        };
        trace!(self, Some(session), "server {} starts o{} for session {session}", server.0, id.0);
        self.tokens.insert(owner.token, id);
        self.owners.insert(id, owner);
        id
    }

    /// Gives a machine an event, and performs what it answers.
    pub(crate) fn feed(&mut self, id: OwnerId, happening: Happening) {
        let (now, jitter) = (self.instant(), self.rng.f64());
        let Some(owner) = self.owners.get_mut(&id) else { return };
        let (session, before) = (owner.session, owner.machine.state());
        if self.trace.is_kept() {
            let shown = shown_event(&happening);
            trace!(self, Some(session), "o{} <- {shown}", id.0);
        }
        let Some(owner) = self.owners.get_mut(&id) else { return };
        if let Err(illegal) = owner.machine.handle(happening, now, jitter) {
            self.checker.fail("legal transitions", session, format!("o{}: {illegal}", id.0));
            return;
        }
        let after = owner.machine.state();
        if before != after {
            owner.waits_since = self.scheduler.now();
            trace!(self, Some(session), "o{} is {after:?}", id.0);
        }
        while let Some(action) = self.owners.get_mut(&id).and_then(|owner| owner.machine.next_action()) {
            self.act(id, action);
        }
        self.set_timer(id);
    }

    fn set_timer(&mut self, id: OwnerId) {
        let (origin, now) = (self.origin, self.instant());
        let Some(owner) = self.owners.get_mut(&id) else { return };
        let deadline = owner.machine.deadline();
        if deadline != owner.timer {
            owner.timer = deadline;
            if let Some(at) = deadline {
                let server = owner.server;
                // A clock that is asked again right away has not moved, so what is due now comes a little later.
                let micros = at.max(now).saturating_duration_since(origin).as_nanos().div_ceil(1000) as u64;
                self.scheduler.at(Time(micros), Event::Timer { owner: id, server, at });
            }
        }
    }

    pub(crate) fn timer_is_due(&mut self, id: OwnerId, at: Instant) {
        if let Some(owner) = self.owners.get_mut(&id).filter(|owner| owner.timer == Some(at)) {
            owner.timer = None;
            self.feed(id, Happening::Timer);
        }
    }

    fn act(&mut self, id: OwnerId, action: Action) {
        let Some(owner) = self.owners.get_mut(&id) else { return };
        let session = owner.session;
        match action {
            Action::Begin(operation) => self.begin(id, operation),
            Action::Close => {
                trace!(self, Some(session), "o{} closes its connection", id.0);
                owner.under_way = None;
                let server = owner.server;
                self.servers[server.0].line.withdraw(id);
                self.hang_up(id);
            }
            Action::Deliver { delivery, batch, read_at, permit } => {
                self.begin_handover(id, delivery, batch, read_at, permit);
            }
            Action::Note(note) => self.note(id, &note),
            Action::Exit(reason) => self.exits(id, &reason),
            Action::Ask { .. } | Action::StopAsking => {}
            Action::Record { .. } => {
                self.checker.fail("legal transitions", session, "a record at least once".to_owned())
            }
        }
    }

    fn begin(&mut self, id: OwnerId, operation: Operation) {
        self.next_operation += 1;
        let number = self.next_operation;
        let (sent, now) = (self.instant(), self.scheduler.now());
        let Some(owner) = self.owners.get_mut(&id) else { return };
        let (session, server) = (owner.session, owner.server);
        let mark = owner.machine.permit().mark();
        if owner.under_way.is_some() {
            self.checker.fail("legal transitions", session, format!("o{} begins {operation:?} beside another", id.0));
            return;
        }
        trace!(self, Some(session), "o{} begins {:?}", id.0, operation.kind());
        let command = match &operation {
            Operation::Open => Command::Open,
            Operation::Claim => Command::Claim,
            Operation::Renew => Command::Renew,
            Operation::Take { delivered, behind } => Command::Take(delivered.clone(), behind.clone()),
            Operation::ReadQuestions => Command::ReadQuestions,
            Operation::Wait(block) => Command::Wait(*block),
            Operation::Rewrite { oldest, replacement } => {
                Command::Rewrite { oldest: oldest.clone(), replacement: replacement.clone() }
            }
            Operation::ClaimIfAbsent => Command::ClaimIfAbsent,
            Operation::CancelQuestions => Command::CancelQuestions,
            Operation::Release => Command::Release,
            Operation::Settle => {
                owner.under_way =
                    Some(UnderWay { number, operation, sent, mark, answered: None, is_read: false, ends: now });
                let at = self.scheduler.now() + Duration::from_micros(10);
                self.scheduler.at(at, Event::Answer { owner: id, server, operation: number, reply: Reply::Done });
                return;
            }
        };
        let block = if let Command::Wait(block) = command { block } else { Duration::ZERO };
        let ends = now + block;
        owner.under_way = Some(UnderWay { number, operation, sent, mark, answered: None, is_read: false, ends });
        let is_shared = self.settings.waiting == Waiting::Shared;
        if let Command::Open = command {
            let connection = if is_shared { self.line(server) } else { self.connect(Some((id, session)), server) };
            self.owner(id).connection = Some(connection);
            self.owner(id).is_stale = true;
        }
        let is_suspended = self.owner(id).machine.permit().is_suspended();
        if let (Command::Wait(_), true, Some(connection)) = (&command, is_suspended, self.owner(id).connection) {
            // The driver watches for doubt while it waits, and finds this at once.
            self.scheduler.at(self.scheduler.now(), Event::Suspended { owner: id, server, connection });
        }
        match command {
            Command::Wait(block) if is_shared => self.wait_for_change(id, number, block),
            Command::Take(None, behind) if is_shared => self.read(id, number, Command::Read(behind)),
            Command::Take(..) if is_shared => self.read(id, number, command),
            _ => {
                // Redis does not announce a connection's own writes, and each of them ends the tracking.
                self.owner(id).is_stale |= matches!(command, Command::Claim | Command::Renew | Command::Rewrite { .. });
                self.send_for(id, number, command);
            }
        }
    }

    /// Gives the connection of an owner up, where it has one.
    pub(crate) fn hang_up(&mut self, id: OwnerId) {
        let connection = self.owner(id).connection.take();
        if let Some(connection) = connection.filter(|_| self.settings.waiting == Waiting::Dedicated) {
            self.disconnect(connection);
        }
    }

    pub(crate) fn send_for(&mut self, id: OwnerId, operation: u64, command: Command) {
        let owner = self.owner(id);
        let is_own = !matches!(
            command,
            Command::ReadQuestions | Command::ClaimIfAbsent | Command::CancelQuestions | Command::Release
        );
        let connection = owner.connection.filter(|_| is_own);
        let (token, server, session) = (owner.token, owner.server, owner.session);
        let none = (None, false);
        let request = Request {
            operation,
            owner: id,
            token,
            server,
            session,
            connection,
            round: None,
            command,
            back: none.0,
            is_abandoned: none.1,
        };
        self.send(request);
    }

    pub(crate) fn owner(&mut self, id: OwnerId) -> &mut Owner {
        self.owners.get_mut(&id).expect("an owner that lives")
    }

    pub(crate) fn number_of(&self, envelope: &Envelope) -> usize {
        number(envelope.params().as_bytes())
    }

    /// Tells an owner that its lease has changed, or that its connection is lost.
    pub(crate) fn news(&mut self, id: OwnerId, connection: ConnectionId) {
        let now = self.scheduler.now();
        let Some(owner) = self.owners.get_mut(&id).filter(|owner| owner.connection == Some(connection)) else { return };
        owner.machine.permit().suspend();
        let session = owner.session;
        self.checker.told(id, now);
        trace!(self, Some(session), "o{} hears that its lease has changed, or its connection is lost", id.0);
        self.permit_suspended(id, connection);
    }

    /// Has a machine that waits look at its lease.
    pub(crate) fn permit_suspended(&mut self, id: OwnerId, connection: ConnectionId) {
        let Some(owner) = self.owners.get(&id).filter(|owner| owner.connection == Some(connection)) else { return };
        let waits =
            owner.under_way.as_ref().is_some_and(|u| matches!(u.operation, Operation::Wait(_)) && u.answered.is_none());
        if waits && owner.machine.permit().is_suspended() && owner.machine.state() == SubscriberState::Waiting {
            self.feed(id, Happening::PermitSuspended);
        }
    }

    /// Informs an owner that its connection broke: by the doubt, and by the failure of the running operation.
    pub(crate) fn broken(&mut self, id: OwnerId, connection: ConnectionId) {
        let failure_first = self.rng.bool();
        if !failure_first {
            self.news(id, connection);
        }
        let Some(owner) = self.owners.get(&id).filter(|owner| owner.connection == Some(connection)) else { return };
        let failing = owner.under_way.as_ref().filter(|u| is_on_connection(&u.operation)).map(|u| u.number);
        if let Some(number) = failing {
            self.answered(id, number, Reply::Failed("the connection broke"));
        }
        if failure_first {
            self.news(id, connection);
        }
    }

    fn note(&mut self, id: OwnerId, note: &Note) {
        let Some(owner) = self.owners.get(&id) else { return };
        let session = owner.session;
        self.met.insert(kind(note));
        if self.trace.is_kept() {
            let shown = format!("{note:?}").chars().take(300).collect::<String>();
            trace!(self, Some(session), "o{} notes {shown}", id.0);
        }
        if let Note::Discarded { id: Some(name), reason, .. } = note
            && let Some(n) = self.numbers.get(name).copied()
        {
            self.discards(id, n, reason);
        } else if let Note::Discarded { id: None, reason, .. } = note {
            // Its message could not be read: it is the oldest of them that the owner has not discarded yet.
            let queue = &self.checker.queues[session];
            let next = queue.iter().map(|queued| queued.n).find(|n| {
                let message = &self.checker.messages[*n];
                message.kind == super::messages::Kind::Garbage && message.discarded.is_none()
            });
            if let Some(n) = next {
                self.checker.discards(id, n, reason, None);
            }
        }
    }

    fn exits(&mut self, id: OwnerId, reason: &ExitReason) {
        let Some(owner) = self.owners.get_mut(&id) else { return };
        let (session, server) = (owner.session, owner.server);
        trace!(self, Some(session), "o{} exits: {reason:?}", id.0);
        if owner.handover.is_some() {
            self.checker.fail("G8", session, format!("o{} exits while it delivers", id.0));
        }
        if owner.connection.is_some() || owner.under_way.is_some() {
            self.checker.fail("G8", session, format!("o{} exits and leaves a connection or an operation", id.0));
        }
        match reason {
            ExitReason::Parked => {
                owner.is_parked = true;
                self.scheduler.at(self.scheduler.now(), Event::Parked { owner: id, server });
            }
            ExitReason::Panicked(why) => {
                self.checker.fail("legal transitions", session, format!("o{} found a defect in itself: {why}", id.0));
            }
            _ => {
                self.owners.remove(&id);
                self.checker.gone(id);
                self.owner_is_gone(server, session, id);
            }
        }
    }

    /// Drops a machine where it stands, as a crash does.
    pub(crate) fn drop_owner(&mut self, id: OwnerId) {
        let Some(owner) = self.owners.remove(&id) else { return };
        self.checker.gone(id);
        if let Some(connection) = owner.connection.filter(|_| self.settings.waiting == Waiting::Dedicated) {
            self.disconnect(connection);
        }
    }

    /// Tells a machine of its client's presence, and starts a parked one again.
    pub(crate) fn presence(&mut self, id: OwnerId, presence: SessionState) {
        let Some(owner) = self.owners.get_mut(&id) else { return };
        if owner.is_parked && presence == SessionState::Disconnected {
            return;
        }
        owner.is_parked = false;
        self.feed(id, Happening::Presence(presence));
    }
}

fn is_on_connection(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Open
            | Operation::Claim
            | Operation::Renew
            | Operation::Take { .. }
            | Operation::Wait(_)
            | Operation::Rewrite { .. }
    )
}

/// Kinds of notes of which a short run must meet each.
pub(crate) const KINDS: [&str; 18] = [
    "delivered",
    "repeated",
    "received",
    "expired",
    "rejected",
    "attempts exhausted",
    "superseded",
    "undecodable",
    "skipped",
    "attempt failed",
    "not ready",
    "queue failed",
    "lease unread",
    "recovered",
    "reclaimed",
    "changed",
    "taken over",
    "wrong clock",
];

fn kind(note: &Note) -> &'static str {
    match note {
        Note::Delivered { .. } => "delivered",
        Note::Repeated(_) => "repeated",
        Note::Discarded { reason: DiscardReason::Expired, .. } => "expired",
        Note::Discarded { reason: DiscardReason::Rejected(_), .. } => "rejected",
        Note::Discarded { reason: DiscardReason::AttemptsExhausted { .. }, .. } => "attempts exhausted",
        Note::Discarded { reason: DiscardReason::Superseded, .. } => "superseded",
        Note::Discarded { reason: DiscardReason::Undecodable(_), .. } => "undecodable",
        Note::Discarded { reason, .. } => panic!("the simulation does not know the reason {reason:?}: add it to KINDS"),
        Note::Received(_) => "received",
        Note::Skipped(_) => "skipped",
        Note::AttemptFailed { .. } => "attempt failed",
        Note::NotReady(_) => "not ready",
        Note::QueueFailed { .. } => "queue failed",
        Note::LeaseUnread(_) => "lease unread",
        Note::Recovered(_) => "recovered",
        Note::Reclaimed => "reclaimed",
        Note::Changed => "changed",
        Note::TakenOver => "taken over",
        Note::WrongClock(_) => "wrong clock",
        Note::Lost { .. } => "lost",
    }
}

fn shown_event(happening: &Happening) -> String {
    match happening {
        Happening::Taken(taken) => {
            let items = taken.items.iter().map(|item| match &item.envelope {
                Ok(envelope) => format!("#{}", number(envelope.params().as_bytes())),
                Err(_) => "?".to_owned(),
            });
            let changed = if taken.changed { ", changed" } else { "" };
            format!("Taken({:?}{changed}, [{}])", taken.lease, items.collect::<Vec<_>>().join(" "))
        }
        Happening::Delivered(Some(outcome)) => {
            format!("Delivered({} accepted, {:?})", outcome.accepted, short_end(outcome))
        }
        Happening::Rewritten(Replaced::Done) => "Rewritten(Done)".to_owned(),
        other => format!("{other:?}").chars().take(120).collect(),
    }
}

fn short_end(outcome: &mcp_courier::testing::subscription::DeliveryOutcome) -> String {
    format!("{:?}", outcome.end).chars().take(60).collect()
}
