//! Clients: each opens streams at servers, receives, answers pings, moves, goes away and comes back.

use std::time::Duration;

use mcp_courier::MessageId;
use mcp_courier::testing::subscription::SessionState;

use super::messages::Queued;
use super::resuming::Habit;
use super::scheduler::Time;
use super::settings::{about, up_to};
use super::trace::trace;
use super::world::{Event, OwnerId, Phase, ServerId, StreamId, World};

/// Client and its open streams, the newest last.
pub(crate) struct Client {
    pub(crate) habit: Habit,
    /// Names of the messages that it has received, in the order of their arrivals.
    pub(crate) received: Vec<MessageId>,
    pub(crate) streams: Vec<StreamId>,
    /// The client has ended its session.
    pub(crate) has_ended: bool,
    /// The client reads nothing and answers no ping until then.
    deaf_until: Time,
    /// The client opens no stream until then.
    away_until: Time,
    /// Moment from which the client has always had an open stream.
    pub(crate) reachable_since: Option<Time>,
}

impl Client {
    pub(crate) fn new(habit: Habit) -> Self {
        Self {
            habit,
            received: Vec::new(),
            streams: Vec::new(),
            has_ended: false,
            deaf_until: Time(0),
            away_until: Time(0),
            reachable_since: None,
        }
    }
}

/// Stream of a client at a server.
pub(crate) struct Stream {
    pub(crate) server: ServerId,
    /// Newest message that the client said it has when it opened the stream.
    pub(crate) named: Option<MessageId>,
    /// Arrival of the last message: a stream keeps the order.
    arrived: Time,
}

impl World {
    /// Opens a stream. The server hears of it a little later.
    pub(crate) fn open_stream(&mut self, session: usize, server: ServerId) {
        self.next_stream += 1;
        let stream = StreamId(self.next_stream);
        let named = self.says(session, stream);
        if self.trace.is_kept() {
            let said = named.map(|named| format!(" behind {}", self.shown(named))).unwrap_or_default();
            trace!(self, Some(session), "client {session} opens stream {} at server {}{said}", stream.0, server.0);
        }
        self.streams.insert(stream, Stream { server, named, arrived: Time(0) });
        let now = self.scheduler.now();
        let client = &mut self.clients[session];
        client.streams.push(stream);
        let at = now + self.delay();
        self.scheduler.at(at, Event::StreamOpens { server, session, stream });
    }

    /// Sends a message down a stream, behind all others.
    pub(crate) fn down(&mut self, stream: StreamId, event: Event) {
        let at = self.scheduler.now() + self.delay();
        let Some(stream) = self.streams.get_mut(&stream) else { return };
        stream.arrived = stream.arrived.max(at);
        let at = stream.arrived;
        self.scheduler.at(at, event);
    }

    pub(crate) fn arrives(&mut self, session: usize, stream: StreamId, n: usize, id: Option<MessageId>) {
        let now = self.scheduler.now();
        let client = &self.clients[session];
        if !client.streams.contains(&stream) || now < client.deaf_until {
            trace!(self, Some(session), "client {session} misses #{n}");
            if client.streams.contains(&stream) {
                self.close_stream(session, stream);
            }
            return;
        }
        trace!(self, Some(session), "client {session} receives #{n} from stream {}", stream.0);
        self.clients[session].received.extend(id);
        self.checker.receives(stream, Queued { n, at: id.map(|id| id.at) });
    }

    pub(crate) fn pinged(&mut self, session: usize, stream: StreamId, owner: OwnerId, number: u64) {
        let (now, odds) = (self.scheduler.now(), self.odds());
        let client = &self.clients[session];
        let Some(server) = self.streams.get(&stream).map(|stream| stream.server) else { return };
        if client.streams.contains(&stream) && now >= client.deaf_until && !self.hits(odds.lost_ping) {
            let most = if self.phase == Phase::Faulty { self.settings.answers } else { Duration::ZERO };
            let at = now + self.delay() + up_to(&mut self.rng, most);
            self.scheduler.at(at, Event::Pong { owner, server, number });
        }
    }

    /// Closes the client's end of a stream. The server hears of that soon, or late.
    pub(crate) fn close_stream(&mut self, session: usize, stream: StreamId) {
        let Some(server) = self.streams.get(&stream).map(|stream| stream.server) else { return };
        trace!(self, Some(session), "client {session} closes stream {}", stream.0);
        self.clients[session].streams.retain(|open| *open != stream);
        let is_late = self.phase == Phase::Faulty && self.rng.usize(..4) == 0;
        let most = if is_late { Duration::from_secs(60) } else { Duration::from_millis(5) };
        let at = self.scheduler.now() + self.delay() + up_to(&mut self.rng, most);
        self.scheduler.at(at, Event::StreamCloses { server, session, stream });
        self.sees_to_a_stream(session);
    }

    /// Hears that a stream has ended.
    pub(crate) fn stream_ends(&mut self, session: usize, stream: StreamId) {
        let client = &mut self.clients[session];
        if client.streams.contains(&stream) {
            trace!(self, Some(session), "client {session} hears that stream {} has ended", stream.0);
            client.streams.retain(|open| *open != stream);
            self.sees_to_a_stream(session);
        }
    }

    /// Sees whether a client has a stream that is open at both ends.
    pub(crate) fn see_reach(&mut self, session: usize) {
        let now = self.scheduler.now();
        let is_open = |stream: &StreamId| {
            let server = self.streams[stream].server;
            self.servers[server.0].seats[session].streams.contains(stream)
        };
        let is_reachable = self.clients[session].streams.iter().any(is_open);
        let client = &mut self.clients[session];
        client.reachable_since = if is_reachable { client.reachable_since.or(Some(now)) } else { None };
    }

    /// Comes back soon where no stream is open.
    fn sees_to_a_stream(&mut self, session: usize) {
        self.see_reach(session);
        if self.clients[session].streams.is_empty() {
            let most = if self.phase == Phase::Calm { Duration::from_millis(100) } else { Duration::from_secs(2) };
            let at = self.scheduler.now() + up_to(&mut self.rng, most) + Duration::from_millis(1);
            self.scheduler.at(at, Event::ComesBack { session });
        }
    }

    pub(crate) fn comes_back(&mut self, session: usize) {
        let now = self.scheduler.now();
        let client = &self.clients[session];
        if client.has_ended || !client.streams.is_empty() {
            return;
        }
        if now < client.away_until {
            let at = client.away_until;
            self.scheduler.at(at, Event::ComesBack { session });
            return;
        }
        let server = self.any_server();
        self.open_stream(session, server);
    }

    pub(crate) fn any_server(&mut self) -> ServerId {
        ServerId(self.rng.usize(..self.servers.len()))
    }

    /// Does what clients do now and then.
    pub(crate) fn client_acts(&mut self, session: usize) {
        let every = self.settings.act_every;
        let (now, mean) = (
            self.scheduler.now(),
            if self.phase == Phase::Calm { every.min(self.settings.config.heartbeat() * 2) } else { every },
        );
        let next = now + about(&mut self.rng, mean);
        self.scheduler.at(next, Event::ClientActs { session });
        if self.clients[session].has_ended || self.phase == Phase::Healing {
            return;
        }
        let is_faulty = self.phase == Phase::Faulty;
        let newest = self.clients[session].streams.last().copied();
        let server = self.any_server();
        match (self.rng.usize(..10), newest) {
            // Moves: opens a stream elsewhere and closes the older ones, or keeps them.
            (0..4, _) => {
                let older = self.clients[session].streams.clone();
                self.open_stream(session, server);
                if self.rng.bool() {
                    for stream in older {
                        self.close_stream(session, stream);
                    }
                }
            }
            // Closes the newest, so that an older one receives.
            (4..7, Some(newest)) => self.close_stream(session, newest),
            (7, _) if is_faulty => {
                let most = self.settings.config.lease() * 4;
                self.clients[session].away_until = now + up_to(&mut self.rng, most);
                trace!(self, Some(session), "client {session} goes away");
                for stream in self.clients[session].streams.clone() {
                    self.close_stream(session, stream);
                }
            }
            (8, _) if is_faulty => {
                trace!(self, Some(session), "client {session} reads nothing for a while");
                let most = self.settings.config.hand_over_timeout() * 2;
                self.clients[session].deaf_until = now + up_to(&mut self.rng, most);
            }
            (9, _) if is_faulty && self.settings.ends_sessions && self.rng.usize(..20) == 0 => {
                trace!(self, Some(session), "client {session} ends its session at server {}", server.0);
                self.clients[session].has_ended = true;
                self.scheduler.at(now, Event::SessionEnds { server, session, presence: SessionState::Ended });
                for server in 0..self.servers.len() {
                    let at = now + self.delay();
                    self.scheduler.at(
                        at,
                        Event::SessionEnds { server: ServerId(server), session, presence: SessionState::Ended },
                    );
                }
            }
            _ => {}
        }
    }

    /// Makes a client well: it reads, and comes back.
    pub(crate) fn heal_client(&mut self, session: usize) {
        let now = self.scheduler.now();
        let client = &mut self.clients[session];
        (client.deaf_until, client.away_until) = (now, now);
        // A server that has died, or cut a stream, is noticed by then.
        for stream in client.streams.clone() {
            let Stream { server, .. } = self.streams[&stream];
            if !self.servers[server.0].seats[session].streams.contains(&stream) {
                self.stream_ends(session, stream);
            }
        }
        self.scheduler.at(now, Event::ComesBack { session });
    }
}
