//! The network between owners and the queue: requests and answers that are delayed, lost, late and repeated.

use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{Behind, LeaseState, Mark, OwnerToken, Replaced, Taken};
use mcp_courier::testing::subscription::Delivered;

use super::line::Wire;
use super::scheduler::Time;
use super::settings::{Waiting, up_to};
use super::trace::trace;
use super::world::{ConnectionId, Event, OwnerId, ServerId, World};

/// Time after which an owner gives up waiting for an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

/// Command of an owner to the queue.
#[derive(Debug, Clone)]
pub(crate) enum Command {
    Open,
    Claim,
    Renew,
    /// Reads the lease, so that its next change is announced.
    Track,
    Take(Option<Delivered>, Option<Behind>),
    /// Reads the oldest messages, or those behind others, and the lease behind them.
    Read(Option<Behind>),
    Wait(Duration),
    Rewrite {
        oldest: Mark,
        replacement: Vec<u8>,
    },
    ReadQuestions,
    ClaimIfAbsent,
    CancelQuestions,
    Release,
}

/// Answer of the queue.
#[derive(Debug)]
pub(crate) enum Reply {
    Done,
    Lease(LeaseState),
    /// Holder of the lease: the asking owner, nobody, or another.
    Holder(LeaseState),
    Taken(Taken, Time),
    /// Messages of a plain read, and the holder of the lease behind it.
    Read(Taken, LeaseState, Time),
    Rewritten(Replaced),
    Failed(&'static str),
}

/// Command on its way to the queue.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) operation: u64,
    pub(crate) owner: OwnerId,
    pub(crate) token: OwnerToken,
    pub(crate) server: ServerId,
    pub(crate) session: usize,
    /// `None` where the command goes over a connection that the process shares.
    pub(crate) connection: Option<ConnectionId>,
    /// Connection of the process, where the command travels in a round.
    pub(crate) round: Option<ConnectionId>,
    pub(crate) command: Command,
    /// Time that the answer needs; `None` where the answer is lost.
    pub(crate) back: Option<Duration>,
    /// Set once the owner has dropped the operation.
    pub(crate) is_abandoned: bool,
}

/// Connection of one owner, or of all owners of a process.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Owner of the connection, and the owner's session; `None` where a process shares the connection.
    pub(crate) owner: Option<(OwnerId, usize)>,
    pub(crate) server: ServerId,
    pub(crate) opened: Time,
    /// Neither end hears of the other any more, and neither knows.
    pub(crate) is_silent: bool,
    /// Times of the last command done and the last answer given: both keep their order.
    pub(crate) done: Time,
    pub(crate) answered: Time,
    /// Answers of the round that is being done.
    pub(crate) replies: Vec<(OwnerId, u64, Reply)>,
}

impl World {
    /// Opens a connection for an owner and its session, or for all of a process.
    pub(crate) fn connect(&mut self, owner: Option<(OwnerId, usize)>, server: ServerId) -> ConnectionId {
        self.next_connection += 1;
        let id = ConnectionId(self.next_connection);
        let (opened, none) = (self.scheduler.now(), Time(0));
        let replies = Vec::new();
        let connection = Connection { owner, server, opened, is_silent: false, done: none, answered: none, replies };
        self.connections.insert(id, connection);
        id
    }

    /// Closes an owner's end of a connection. The queue may notice at once, or still perform the commands that were
    /// sent.
    pub(crate) fn disconnect(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        let notices = !connection.is_silent && self.rng.bool();
        self.redis.forget(id, notices);
    }

    /// Sends a command. The answer, or a failure, comes as an event.
    pub(crate) fn send(&mut self, mut request: Request) {
        let now = self.scheduler.now();
        let is_for_workers = matches!(request.command, Command::CancelQuestions);
        if self.settings.waiting == Waiting::Shared && !is_for_workers {
            return self.send_in_round(request);
        }
        let block = if let Command::Wait(block) = request.command { block } else { Duration::ZERO };
        let (owner, server, operation) = (request.owner, request.server, request.operation);
        let silent = Event::Answer { owner, server, operation, reply: Reply::Failed("no answer in time") };
        self.scheduler.at(now + block + TIMEOUT, silent);
        let odds = self.odds();
        if block.is_zero() {
            self.may_pause(&request);
        }
        let (there, again) = (self.delay(), self.hits(odds.repeated).then(|| self.delay()));
        request.back = (!self.hits(odds.lost_answer)).then(|| self.delay());
        let mut at = now + there;
        if let Some(connection) = request.connection.and_then(|id| self.connections.get_mut(&id)) {
            if connection.is_silent {
                return;
            }
            at = at.max(connection.done);
            connection.done = at;
        }
        if self.hits(odds.lost_request) {
            trace!(self, Some(request.session), "  network: o{} {:?} is lost", request.owner.0, request.command);
            return;
        }
        if let Some(again) = again {
            trace!(self, Some(request.session), "  network: o{} {:?} is repeated", request.owner.0, request.command);
            let first = Request { back: None, ..request.clone() };
            self.scheduler.at(at, Event::Execute(first));
            at = at + again;
        }
        self.scheduler.at(at, Event::Execute(request));
    }

    /// Pauses a process that has just sent a command, now and then.
    pub(crate) fn may_pause(&mut self, request: &Request) {
        // The worst moment: the process trusts what is answered while it stands still.
        let worse = if matches!(request.command, Command::Renew) { 5 } else { 1 };
        if request.connection.is_some() && self.hits(self.odds().paused * worse) {
            let lasting = self.settings.config.lease().mul_f64(self.rng.f64() * 3.0);
            self.pause(request.server, lasting);
        }
    }

    /// Sends an answer back to its owner.
    pub(crate) fn answer(&mut self, request: &Request, reply: Reply) {
        if let Some(line) = request.round {
            if let Some(connection) = self.connections.get_mut(&line) {
                connection.replies.push((request.owner, request.operation, reply));
            }
            return;
        }
        let Some(back) = request.back else { return };
        let mut at = self.scheduler.now() + back;
        if let Some(id) = request.connection {
            let Some(connection) = self.connections.get_mut(&id).filter(|c| !c.is_silent) else { return };
            at = at.max(connection.answered);
            connection.answered = at;
        }
        let (owner, server, operation) = (request.owner, request.server, request.operation);
        self.scheduler.at(at, Event::Answer { owner, server, operation, reply });
    }

    /// Breaks a connection. Its ends hear of that at once, or never.
    pub(crate) fn break_connection(&mut self, id: ConnectionId, silently: bool) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (owner, server) = (connection.owner, connection.server);
        let how = if silently { " silently" } else { "" };
        connection.is_silent = true;
        match owner {
            Some((owner, session)) => {
                trace!(self, Some(session), "  network: the connection of o{} breaks{how}", owner.0);
            }
            None => trace!(self, None, "  network: the connection of server {} breaks{how}", server.0),
        }
        if silently {
            return;
        }
        self.redis.forget(id, true);
        let at = self.scheduler.now() + self.delay();
        self.scheduler.at(
            at,
            match owner {
                Some((owner, _)) => Event::Broken { owner, server, connection: id },
                None => Event::Wire { server, connection: id, news: Wire::Broken },
            },
        );
    }

    /// Draws the time that a message takes.
    pub(crate) fn delay(&mut self) -> Duration {
        let (odds, slowest) = (self.odds(), self.settings.slowest);
        let most = if self.hits(odds.slow) { slowest } else { Duration::from_millis(2) };
        Duration::from_micros(50) + up_to(&mut self.rng, most)
    }

    /// Draws whether something happens that so many of a thousand times does.
    pub(crate) fn hits(&mut self, of_a_thousand: u32) -> bool {
        of_a_thousand > 0 && self.rng.u32(..1000) < of_a_thousand
    }

    pub(crate) fn instant(&self) -> Instant {
        self.origin + Duration::from_micros(self.scheduler.now().0)
    }
}
