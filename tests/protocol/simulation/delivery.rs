//! The server's side of a session: hand-overs down the newest stream, and their confirmation by pings.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_courier::testing::envelope::{Envelope, Timestamp};
use mcp_courier::testing::subscription::{Delivery, Event as Happening, Permit, Step};
use mcp_courier::{DiscardReason, HandOverError, MessageId};

use super::checker::{Handing, Hears, Message};
use super::messages::{Kind, Queued};
use super::scheduler::Time;
use super::settings::{Guard, up_to};
use super::trace::trace;
use super::world::{Event, OwnerId, Phase, ServerId, StreamId, World};

/// Pauses behind the pings of one confirmation.
const PINGS: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)];

/// Longest time in which news travel where nothing is slow.
const SOON: Duration = Duration::from_millis(10);

/// Running delivery.
pub(crate) struct Handover {
    pub(crate) number: u64,
    /// Number by which the machine knows it.
    delivery_number: u64,
    delivery: Delivery,
    /// Numbers of the messages that went out.
    sent: Vec<usize>,
    /// Message that is being handed over, and when that was decided.
    current: Option<(usize, Option<MessageId>, Handing)>,
    read: (Time, Time),
}

/// Awaited confirmation.
pub(crate) struct Confirming {
    owner: OwnerId,
    number: u64,
    stream: StreamId,
    delivery: u64,
    /// Numbers of the messages that went out.
    sent: Vec<usize>,
}

/// Answer of a session to a hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plan {
    Accept,
    Fail,
    /// The session has it, and says that the attempt failed.
    AcceptAndFail,
    Reject,
    /// The client does not read: the stream is cut.
    Stall,
}

impl World {
    pub(crate) fn begin_handover(
        &mut self,
        id: OwnerId,
        delivery_number: u64,
        batch: Vec<Envelope>,
        read_at: (Timestamp, Instant),
        permit: Arc<Permit>,
    ) {
        let now = self.instant();
        let without = self.settings.without == Some(Guard::PermitBeforeEach);
        let permit = if without && permit.holds(now) { unlimited(now) } else { permit };
        if self.trace.is_kept() {
            let numbers: Vec<_> = batch.iter().map(|envelope| self.number_of(envelope)).collect();
            let session = self.owner(id).session;
            trace!(self, Some(session), "o{} delivers {numbers:?}", id.0);
        }
        self.next_operation += 1;
        let number = self.next_operation;
        let owner = self.owner(id);
        let delivery = Delivery::new(batch, read_at, permit);
        let read = owner.read;
        owner.handover = Some(Handover { number, delivery_number, delivery, sent: Vec::new(), current: None, read });
        self.next_step(id);
    }

    /// Does what a delivery says next. Ends, at the latest, with an event for the machine.
    fn next_step(&mut self, id: OwnerId) {
        let (now, instant) = (self.scheduler.now(), self.instant());
        let clock = self.redis.clock(now);
        let owner = self.owner(id);
        let (session, server) = (owner.session, owner.server);
        let Some(handover) = &mut owner.handover else { return };
        let number = handover.number;
        match handover.delivery.next(instant, &owner.ended_tasks) {
            Step::HandOver(envelope) => {
                let n = super::messages::number(envelope.params().as_bytes());
                let (name, generation) = (envelope.message_id, envelope.generation);
                handover.current = Some((n, name, Handing { decided: (now, clock), read: handover.read }));
                match self.next_stream(server, session, generation) {
                    Err(error) => {
                        self.servers[server.0].seats[session].batch = None;
                        self.handed_over(id, Err(error));
                    }
                    Ok(stream) => {
                        let (plan, takes) = self.plan(n);
                        self.scheduler.at(now + takes, Event::HandedOver { owner: id, server, number, stream, plan });
                    }
                }
            }
            Step::Done(mut outcome) => {
                let mut sent = std::mem::take(&mut handover.sent);
                let delivery = handover.delivery_number;
                for n in sent.drain(outcome.accepted.min(sent.len())..) {
                    self.checker.learns(id, n, false);
                }
                let seat = &mut self.servers[server.0].seats[session];
                let stream = seat.batch.take().filter(|stream| seat.streams.contains(stream));
                match stream.filter(|_| outcome.accepted > 0) {
                    Some(stream) => {
                        seat.confirming.push_back(Confirming { owner: id, number, stream, delivery, sent });
                        self.most_unconfirmed = self.most_unconfirmed.max(seat.confirming.len());
                        self.ping(id, server, number, stream);
                    }
                    None if outcome.accepted > 0 => outcome.confirmed = Some(self.answer_of(id, &sent, Err(gone()))),
                    None => {}
                }
                let owner = self.owner(id);
                let ended = owner.handover.take();
                owner.settled = ended.map(|Handover { read, .. }| Handing { decided: (now, clock), read });
                self.feed(id, Happening::Delivered(Some(outcome)));
            }
        }
    }

    /// Returns the stream for the next message: the one that it was read for, if that is still the newest. What was read for an
    /// older stream may be what the client of the newest has.
    fn next_stream(&mut self, server: ServerId, session: usize, generation: u64) -> Result<StreamId, HandOverError> {
        let seat = &self.servers[server.0].seats[session];
        if seat.is_over() {
            return Err(HandOverError::Closed);
        }
        match (seat.streams.last(), seat.batch) {
            (None, _) => Err(gone()),
            (Some(newest), _) if seat.number(*newest) != generation => Err(gone()),
            (Some(newest), Some(batch)) if *newest != batch => Err(gone()),
            (Some(newest), _) => Ok(*newest),
        }
    }

    /// Draws what the session says to a message, and after which time.
    fn plan(&mut self, n: usize) -> (Plan, Duration) {
        let limit = self.settings.config.hand_over_timeout();
        let odds = self.odds();
        let slow = self.hits(odds.slow_session);
        let takes = if slow { limit.mul_f64(self.rng.f64()) } else { up_to(&mut self.rng, Duration::from_millis(1)) };
        let Message { kind, is_cured, .. } = self.checker.messages[n];
        let plan = match kind {
            Kind::Rejected if !is_cured => Plan::Reject,
            Kind::Failing if !is_cured => Plan::Fail,
            _ if self.hits(odds.transient) => {
                if self.rng.bool() {
                    Plan::Fail
                } else {
                    Plan::AcceptAndFail
                }
            }
            _ if slow && self.rng.usize(..8) == 0 => return (Plan::Stall, limit),
            _ => Plan::Accept,
        };
        (plan, takes)
    }

    /// Ends a hand-over: the message goes out, or does not.
    pub(crate) fn hand_over_ends(&mut self, id: OwnerId, number: u64, stream: StreamId, plan: Plan) {
        let Some(owner) = self.owners.get(&id) else { return };
        let (server, session) = (owner.server, owner.session);
        let Some(handover) = owner.handover.as_ref().filter(|handover| handover.number == number) else { return };
        let Some((n, name, handing)) = handover.current else { return };
        let seat = &mut self.servers[server.0].seats[session];
        let result = match plan {
            _ if seat.streams.last() != Some(&stream) => Err(gone()),
            Plan::Accept | Plan::AcceptAndFail => {
                seat.batch = Some(stream);
                let (jumped, hears) = (self.redis.jumped, self.hears(id));
                let queued = Queued { n, at: name.map(|name| name.at) };
                self.checker.sends(id, queued, handing, jumped, hears);
                self.owner(id).handover.as_mut().expect("under way").sent.push(n);
                trace!(self, Some(session), "o{} sends #{n} down stream {}", id.0, stream.0);
                self.down(stream, Event::Arrives { session, stream, n, id: name });
                if plan == Plan::Accept { Ok(()) } else { Err(HandOverError::Transient("it failed late".to_owned())) }
            }
            Plan::Fail => Err(HandOverError::Transient("it failed".to_owned())),
            Plan::Reject => Err(HandOverError::Rejected("never".to_owned())),
            Plan::Stall => {
                self.cut(server, session, stream);
                Err(gone())
            }
        };
        if let Err(HandOverError::Transient(_)) = result {
            self.checker.attempt_failed(n, plan == Plan::AcceptAndFail);
        }
        // Behind a failure a confirmation would be asked of the client's next stream.
        if !matches!(result, Ok(()) | Err(HandOverError::Rejected(_) | HandOverError::Transient(_))) {
            self.servers[server.0].seats[session].batch = None;
        }
        self.handed_over(id, result);
    }

    /// Returns within which time the news of a takeover reach an owner.
    fn hears(&self, id: OwnerId) -> Hears {
        let owner = &self.owners[&id];
        let connection = owner.connection.and_then(|id| self.connections.get(&id)).filter(|c| !c.is_silent);
        match connection.filter(|_| self.settings.tells_of_all()) {
            None => Hears::Perhaps,
            Some(connection) => {
                let since = connection.opened.max(self.servers[owner.server.0].resumed);
                let is_quick = self.settings.odds.slow == 0 || self.phase == Phase::Calm;
                let within = if is_quick { SOON } else { self.settings.slowest + Duration::from_secs(1) };
                Hears::Within(within, since)
            }
        }
    }

    fn handed_over(&mut self, id: OwnerId, result: Result<(), HandOverError>) {
        let (jitter, config) = (self.rng.f64(), Arc::clone(&self.settings.config));
        let owner = self.owner(id);
        if let Some(handover) = &mut owner.handover {
            handover.current = None;
            handover.delivery.handed_over(result, &config, &owner.ended_tasks, || jitter);
        }
        self.next_step(id);
    }

    /// Sends the pings of a confirmation, and cuts the stream where none is answered.
    fn ping(&mut self, owner: OwnerId, server: ServerId, number: u64, stream: StreamId) {
        let (now, limit) = (self.scheduler.now(), self.settings.config.hand_over_timeout());
        let session = self.owner(owner).session;
        let mut at = now;
        self.down(stream, Event::Ping { session, stream, owner, number });
        for pause in PINGS {
            at = at + pause;
            if at.since(now) < limit {
                self.scheduler.at(at, Event::PingAgain { owner, server, number, stream });
            }
        }
        self.scheduler.at(now + limit, Event::ConfirmTimeout { owner, server, number, stream });
    }

    pub(crate) fn ping_again(&mut self, owner: OwnerId, number: u64, stream: StreamId) {
        if let Some(session) = self.is_confirming(owner, number) {
            self.down(stream, Event::Ping { session, stream, owner, number });
        }
    }

    /// Returns the session of an owner whose delivery with this number is being confirmed.
    fn is_confirming(&self, owner: OwnerId, number: u64) -> Option<usize> {
        let Owner { server, session, .. } = self.owners.get(&owner)?;
        let confirming = &self.servers[server.0].seats[*session].confirming;
        confirming.iter().any(|one| one.owner == owner && one.number == number).then_some(*session)
    }

    /// Takes the answer to a ping, which confirms the deliveries before it too.
    pub(crate) fn pong(&mut self, owner: OwnerId, number: u64) {
        while let Some(session) = self.is_confirming(owner, number) {
            let server = self.owner(owner).server;
            let all = self.settings.without == Some(Guard::ConfirmedBefore);
            let count = if all { self.servers[server.0].seats[session].confirming.len() } else { 1 };
            (0..count).for_each(|_| self.end_confirming(server, session, Ok(())));
        }
    }

    pub(crate) fn confirm_timeout(&mut self, owner: OwnerId, number: u64, stream: StreamId) {
        if let Some(session) = self.is_confirming(owner, number) {
            let server = self.owner(owner).server;
            self.cut(server, session, stream);
        }
    }

    /// Ends the oldest confirmation of a session at a server.
    fn end_confirming(&mut self, server: ServerId, session: usize, result: Result<(), HandOverError>) {
        let Some(ended) = self.servers[server.0].seats[session].confirming.pop_front() else { return };
        let Confirming { owner, delivery, sent, .. } = ended;
        let answer = self.answer_of(owner, &sent, result);
        self.feed(owner, Happening::Confirmed { delivery, answer });
    }

    /// Returns the answer of a session about what it was sent, as its owner gets it.
    fn answer_of(
        &mut self,
        owner: OwnerId,
        sent: &[usize],
        result: Result<(), HandOverError>,
    ) -> Result<(), HandOverError> {
        let believes = self.settings.without == Some(Guard::Confirmation);
        let result = if believes { Ok(()) } else { result };
        for n in sent {
            self.checker.learns(owner, *n, result.is_ok());
        }
        result
    }

    /// Fails the confirmations whose stream has closed, or is not the newest any more.
    pub(crate) fn streams_changed(&mut self, server: ServerId, session: usize) {
        loop {
            let seat = &self.servers[server.0].seats[session];
            match seat.confirming.front() {
                Some(Confirming { stream, .. }) if seat.streams.last() != Some(stream) => {
                    self.end_confirming(server, session, Err(gone()));
                }
                _ => return,
            }
        }
    }

    /// Sees an owner discard a notification.
    pub(crate) fn discards(&mut self, id: OwnerId, n: usize, reason: &DiscardReason) {
        let is_foreign = self.checker.messages[n].kind == Kind::FastMcp;
        let clock = match self.owners[&id].settled {
            // A clock that has jumped since the batch was read is not what the owner went by.
            Some(Handing { decided: (_, clock), read: (read, _) })
                if self.redis.jumped.is_none_or(|at| at < read && !is_foreign) =>
            {
                Some(clock)
            }
            _ => None,
        };
        self.checker.discards(id, n, reason, clock);
    }
}

use super::owner::Owner;

fn gone() -> HandOverError {
    HandOverError::NotReady("the stream is gone, or not the newest".to_owned())
}

/// Returns a permit that holds for the rest of any run.
fn unlimited(now: Instant) -> Arc<Permit> {
    let permit = Arc::new(Permit::new());
    permit.renewed(now, Duration::from_secs(1_000_000), permit.mark());
    permit
}
