//! The connection that all sessions of a process share: rounds of commands there, answers and news of changes back.

use std::time::Duration;

use super::network::{Command, Reply, Request, TIMEOUT};
use super::settings::{Guard, up_to};
use super::trace::trace;
use super::tracking::Key;
use super::world::{ConnectionId, Event, OwnerId, ServerId, World};

/// Longest time between the arrival of answers at a process and the moment at which an owner takes its own in.
const HAND_OFF: Duration = Duration::from_millis(1);

/// Longest time between two commands of a round at the queue. Others' commands may come between.
const GAP: Duration = Duration::from_micros(100);

/// The shared connection of one process.
#[derive(Default)]
pub(crate) struct Line {
    /// Connection under it; `None` until a command needs one.
    pub(crate) connection: Option<ConnectionId>,
    /// Commands of the next round.
    next: Vec<Request>,
    /// Number of the open round, and its operations. There is one round at a time.
    round: Option<u64>,
    sent: Vec<(OwnerId, u64)>,
}

impl Line {
    /// Takes the commands of an owner back that are not sent yet.
    pub(crate) fn withdraw(&mut self, owner: OwnerId) {
        self.next.retain(|request| request.owner != owner);
    }
}

/// Events that reach a process over its line, in the order in which the queue sent them.
#[derive(Debug)]
pub(crate) enum Wire {
    Changed(Key),
    /// Everything may have changed.
    AllChanged,
    Answers(u64, Vec<(OwnerId, u64, Reply)>),
    Broken,
}

impl World {
    /// Sends a command in the next round of its process.
    pub(crate) fn send_in_round(&mut self, request: Request) {
        let server = request.server;
        self.may_pause(&request);
        let line = &mut self.servers[server.0].line;
        line.next.push(request);
        if line.round.is_none() {
            self.scheduler.at(self.scheduler.now(), Event::RoundBegins { server });
        }
    }

    /// Returns the shared connection of a process. Makes one where there is none: it opens by its first round.
    pub(crate) fn line(&mut self, server: ServerId) -> ConnectionId {
        if let Some(connection) = self.servers[server.0].line.connection {
            return connection;
        }
        let connection = self.connect(None, server);
        self.servers[server.0].line.connection = Some(connection);
        connection
    }

    /// Sends the operations that have gathered, unless a round is open.
    pub(crate) fn round_begins(&mut self, server: ServerId) {
        let line = &mut self.servers[server.0].line;
        if line.round.is_some() || line.next.is_empty() {
            return;
        }
        let requests = std::mem::take(&mut line.next);
        self.next_operation += 1;
        let round = self.next_operation;
        line.round = Some(round);
        line.sent = requests.iter().map(|request| (request.owner, request.operation)).collect();
        for request in &requests {
            // Whatever changes from now on may not be in the answer.
            let reads = matches!(request.command, Command::Read(_) | Command::Take(..) | Command::Wait(_));
            if let Some(owner) = self.owners.get_mut(&request.owner).filter(|_| reads) {
                owner.is_stale = false;
            }
        }
        let (now, id) = (self.scheduler.now(), self.line(server));
        self.scheduler.at(now + TIMEOUT, Event::RoundTimeout { server, connection: id, round });
        let (odds, there) = (self.odds(), self.delay());
        let lost_from = self.hits(odds.lost_request).then(|| self.rng.usize(..requests.len()));
        let loses_answer = self.hits(odds.lost_answer);
        let Some(connection) = self.connections.get(&id).filter(|connection| !connection.is_silent) else { return };
        let mut at = connection.done.max(now + there);
        for (n, mut request) in requests.into_iter().enumerate() {
            if lost_from.is_some_and(|from| n >= from) {
                trace!(self, Some(request.session), "  network: o{} {:?} is lost", request.owner.0, request.command);
                continue;
            }
            request.round = Some(id);
            if self.hits(odds.repeated) {
                let again = Request { round: None, back: None, ..request.clone() };
                self.scheduler.at(at, Event::Execute(again));
            }
            self.scheduler.at(at, Event::Execute(request));
            at = at + up_to(&mut self.rng, GAP);
        }
        self.scheduler.at(at, Event::RoundEnds { connection: id, round, is_cut: lost_from.is_some() || loses_answer });
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.done = at;
        }
    }

    /// Answers a round that the queue has done; or the connection breaks.
    pub(crate) fn round_ends(&mut self, id: ConnectionId, round: u64, is_cut: bool) {
        let is_down = self.scheduler.now() < self.redis.down_until;
        if is_cut {
            let silently = self.rng.usize(..4) == 0;
            self.break_connection(id, silently);
        }
        if let Some(connection) = self.connections.get_mut(&id).filter(|_| !is_cut && !is_down) {
            let answers = std::mem::take(&mut connection.replies);
            self.tell_line(id, Wire::Answers(round, answers));
        }
    }

    /// Sends something to a process over its line, behind all that was sent before.
    pub(crate) fn tell_line(&mut self, id: ConnectionId, news: Wire) {
        let at = self.scheduler.now() + self.delay();
        let Some(connection) = self.connections.get_mut(&id).filter(|connection| !connection.is_silent) else { return };
        connection.answered = connection.answered.max(at);
        let (at, server) = (connection.answered, connection.server);
        self.scheduler.at(at, Event::Wire { server, connection: id, news });
    }

    /// Takes in what came over a line. News are handled at once; an owner takes its answer in a little later.
    pub(crate) fn arrives_by_wire(&mut self, server: ServerId, id: ConnectionId, news: Wire) {
        if self.servers[server.0].line.connection != Some(id) {
            return;
        }
        match news {
            Wire::Changed(key) => self.changed(server, id, |it| it == key),
            Wire::AllChanged if self.settings.without == Some(Guard::NullMeansAll) => {}
            Wire::AllChanged => self.changed(server, id, |_| true),
            Wire::Broken => self.line_lost(server, id),
            Wire::Answers(round, answers) => {
                if self.servers[server.0].line.round != Some(round) {
                    return;
                }
                self.servers[server.0].line.round = None;
                self.servers[server.0].line.sent.clear();
                for (owner, operation, reply) in answers {
                    let at = self.scheduler.now() + up_to(&mut self.rng, HAND_OFF);
                    self.scheduler.at(at, Event::Answer { owner, server, operation, reply });
                }
                self.round_begins(server);
            }
        }
    }

    /// Tells the owners of a line which of their keys have changed.
    fn changed(&mut self, server: ServerId, id: ConnectionId, is_meant: impl Fn(Key) -> bool) {
        let is_of_line = |(owner, it): (&OwnerId, &super::owner::Owner)| {
            (it.server == server && it.connection == Some(id)).then_some((*owner, it.session))
        };
        let owners: Vec<_> = self.owners.iter().filter_map(is_of_line).collect();
        for (owner, session) in owners {
            if is_meant(Key::Queue(session)) {
                self.queue_changed(owner);
            }
            if is_meant(Key::Lease(session)) {
                self.news(owner, id);
            }
        }
    }

    pub(crate) fn round_timeout(&mut self, server: ServerId, id: ConnectionId, round: u64) {
        let line = &self.servers[server.0].line;
        if line.connection == Some(id) && line.round == Some(round) {
            trace!(self, None, "server {} waits no longer for the answers of a round", server.0);
            self.line_lost(server, id);
        }
    }

    /// Makes a new connection in place of one that is lost, and doubts all that is known. What was sent fails: it may be done, or
    /// not. What was not sent is sent anew.
    fn line_lost(&mut self, server: ServerId, id: ConnectionId) {
        trace!(self, None, "server {} hears that its connection is lost", server.0);
        let line = &mut self.servers[server.0].line;
        (line.connection, line.round) = (None, None);
        let sent = std::mem::take(&mut line.sent);
        self.disconnect(id);
        let new = self.line(server);
        let is_of_line = |owner: &&mut super::owner::Owner| owner.connection == Some(id);
        self.owners.values_mut().filter(is_of_line).for_each(|owner| owner.connection = Some(new));
        let failure_first = self.rng.bool();
        if !failure_first && self.settings.without != Some(Guard::LossWakes) {
            self.changed(server, new, |_| true);
        }
        for (owner, operation) in sent {
            self.answered(owner, operation, Reply::Failed("the connection broke"));
        }
        if failure_first && self.settings.without != Some(Guard::LossWakes) {
            self.changed(server, new, |_| true);
        }
        self.scheduler.at(self.scheduler.now(), Event::RoundBegins { server });
    }

    /// Drops the line of a process that ends.
    pub(crate) fn drop_line(&mut self, server: ServerId) {
        let line = std::mem::take(&mut self.servers[server.0].line);
        if let Some(id) = line.connection {
            self.disconnect(id);
        }
    }
}
