//! Server processes: the streams of each session, who serves it, and crashes, pauses and stops of the whole process.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mcp_courier::MessageId;
use mcp_courier::testing::subscription::{Event as Happening, SessionState};

use super::delivery::Confirming;
use super::line::Line;
use super::scheduler::Time;
use super::settings::up_to;
use super::trace::trace;
use super::world::{Event, OwnerId, ServerId, StreamId, World};

/// Longest time that a process which stops waits for its owners.
const DRAIN: Duration = Duration::from_secs(60);

/// Server process.
#[derive(Default)]
pub(crate) struct Server {
    pub(crate) seats: Vec<Seat>,
    pub(crate) state: Running,
    /// Connection that its sessions share.
    pub(crate) line: Line,
    /// Moment at which the process went on after its last pause.
    pub(crate) resumed: Time,
    /// Events that arrived while the process was paused, by their source.
    deferred: BTreeMap<u64, Vec<Event>>,
    /// Number of starts of the process.
    pub(crate) epoch: u64,
}

impl Server {
    pub(crate) fn new(sessions: usize) -> Self {
        Self { seats: (0..sessions).map(|_| Seat::default()).collect(), ..Self::default() }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Running {
    #[default]
    Up,
    Paused,
    /// The process ends when its owners have exited.
    Stopping,
    Down,
}

/// Session at one server.
#[derive(Default)]
pub(crate) struct Seat {
    /// Number of streams that were opened here.
    opened: u64,
    /// Open streams, the newest last; the number of each, and the newest message that its client said it has.
    pub(crate) streams: Vec<StreamId>,
    numbers: BTreeMap<StreamId, (u64, Option<MessageId>)>,
    /// Stream that has what was handed over since the last confirmation.
    pub(crate) batch: Option<StreamId>,
    pub(crate) confirming: VecDeque<Confirming>,
    over: Option<SessionState>,
    pub(crate) owner: Option<OwnerId>,
}

impl Seat {
    pub(crate) fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// Returns the number of an open stream.
    pub(crate) fn number(&self, stream: StreamId) -> u64 {
        self.numbers[&stream].0
    }

    fn presence(&self) -> SessionState {
        match (self.over, self.streams.last()) {
            (Some(over), _) => over,
            (None, Some(newest)) => {
                let (generation, received) = self.numbers[newest];
                SessionState::Connected { generation, received }
            }
            (None, None) => SessionState::Disconnected,
        }
    }
}

impl World {
    /// Takes a new stream in, and starts an owner where none runs.
    pub(crate) fn stream_opens(&mut self, server: ServerId, session: usize, stream: StreamId) {
        let is_up = self.servers[server.0].state == Running::Up;
        let seat = &mut self.servers[server.0].seats[session];
        if seat.over == Some(SessionState::Detached) && seat.owner.is_none() {
            // The session is restored here.
            *seat = Seat::default();
        }
        if !is_up || seat.is_over() || !self.clients[session].streams.contains(&stream) {
            let at = self.scheduler.now() + self.delay();
            self.scheduler.at(at, Event::StreamEnds { session, stream });
            return;
        }
        let received = self.heard(session, self.streams[&stream].named);
        let seat = &mut self.servers[server.0].seats[session];
        seat.opened += 1;
        seat.numbers.insert(stream, (seat.opened, received));
        seat.streams.push(stream);
        trace!(self, Some(session), "server {} takes stream {} in", server.0, stream.0);
        self.checker.resuming.taken_in(session, stream);
        if self.servers[server.0].seats[session].owner.is_none() {
            let owner = self.start_owner(server, session);
            self.servers[server.0].seats[session].owner = Some(owner);
        }
        self.presence_changed(server, session);
    }

    pub(crate) fn stream_closes(&mut self, server: ServerId, session: usize, stream: StreamId) {
        let seat = &mut self.servers[server.0].seats[session];
        if seat.streams.contains(&stream) {
            seat.streams.retain(|open| *open != stream);
            trace!(self, Some(session), "server {} hears that stream {} has closed", server.0, stream.0);
            self.presence_changed(server, session);
        }
    }

    /// Ends a stream from the server's side. Its client hears of that soon, or late.
    pub(crate) fn cut(&mut self, server: ServerId, session: usize, stream: StreamId) {
        trace!(self, Some(session), "server {} cuts stream {}", server.0, stream.0);
        self.end_soon(session, stream);
        self.stream_closes(server, session, stream);
    }

    fn end_soon(&mut self, session: usize, stream: StreamId) {
        let at = self.scheduler.now() + self.delay() + up_to(&mut self.rng, Duration::from_secs(3));
        self.scheduler.at(at, Event::StreamEnds { session, stream });
    }

    fn presence_changed(&mut self, server: ServerId, session: usize) {
        self.see_reach(session);
        self.streams_changed(server, session);
        let seat = &self.servers[server.0].seats[session];
        if let (Some(owner), presence) = (seat.owner, seat.presence()) {
            self.presence(owner, presence);
        }
    }

    pub(crate) fn session_ends(&mut self, server: ServerId, session: usize, presence: SessionState) {
        let is_down = self.servers[server.0].state == Running::Down;
        let seat = &mut self.servers[server.0].seats[session];
        if is_down || seat.over.is_some() {
            return;
        }
        seat.over = Some(presence);
        for stream in std::mem::take(&mut seat.streams) {
            self.end_soon(session, stream);
        }
        self.presence_changed(server, session);
    }

    /// Looks whether the client came back while its owner parked.
    pub(crate) fn owner_parked(&mut self, server: ServerId, id: OwnerId) {
        let Some(owner) = self.owners.get(&id) else { return };
        let session = owner.session;
        let presence = self.servers[server.0].seats[session].presence();
        if self.servers[server.0].state == Running::Stopping {
            self.stop_owner(id);
        } else if presence != SessionState::Disconnected {
            self.presence(id, presence);
        }
    }

    /// Forgets an owner that has exited. A process that stops ends with its last one.
    pub(crate) fn owner_is_gone(&mut self, server: ServerId, session: usize, id: OwnerId) {
        let seat = &mut self.servers[server.0].seats[session];
        if seat.owner == Some(id) {
            seat.owner = None;
        }
        let is_empty = self.servers[server.0].seats.iter().all(|seat| seat.owner.is_none());
        if self.servers[server.0].state == Running::Stopping && is_empty {
            let epoch = self.servers[server.0].epoch;
            self.scheduler.at(self.scheduler.now(), Event::ProcessEnds { server, epoch });
        }
    }

    fn stop_owner(&mut self, id: OwnerId) {
        let now = self.scheduler.now();
        if let Some(owner) = self.owners.get_mut(&id) {
            owner.is_parked = false;
            if owner.stopped.is_none() {
                owner.stopped = Some(now);
                self.feed(id, Happening::Stop);
            }
        }
    }

    /// Kills a process. It starts again later.
    pub(crate) fn crash(&mut self, server: ServerId) {
        if self.servers[server.0].state == Running::Down {
            return;
        }
        trace!(self, None, "fault: server {} dies", server.0);
        self.end_process(server);
    }

    /// Ends a process, whatever it does.
    pub(crate) fn end_process(&mut self, server: ServerId) {
        self.servers[server.0].state = Running::Down;
        self.servers[server.0].epoch += 1;
        self.servers[server.0].deferred.clear();
        self.drop_line(server);
        for session in 0..self.clients.len() {
            let seat = std::mem::take(&mut self.servers[server.0].seats[session]);
            for stream in seat.streams {
                self.end_soon(session, stream);
            }
            if let Some(owner) = seat.owner {
                self.drop_owner(owner);
            }
        }
        let at = self.scheduler.now() + up_to(&mut self.rng, Duration::from_secs(30));
        let epoch = self.servers[server.0].epoch;
        self.scheduler.at(at, Event::ProcessStarts { server, epoch });
    }

    pub(crate) fn process_starts(&mut self, server: ServerId, epoch: u64) {
        if self.servers[server.0].epoch == epoch && self.servers[server.0].state == Running::Down {
            trace!(self, None, "server {} starts", server.0);
            self.servers[server.0].state = Running::Up;
        }
    }

    /// Asks a process to stop: its owners exit, then it ends.
    pub(crate) fn stop(&mut self, server: ServerId) {
        if self.servers[server.0].state != Running::Up {
            return;
        }
        trace!(self, None, "fault: server {} is asked to stop", server.0);
        self.servers[server.0].state = Running::Stopping;
        let epoch = self.servers[server.0].epoch;
        let owners: Vec<_> = self.servers[server.0].seats.iter().filter_map(|seat| seat.owner).collect();
        if owners.is_empty() {
            return self.end_process(server);
        }
        self.scheduler.at(self.scheduler.now() + DRAIN, Event::DrainEnds { server, epoch });
        for owner in owners {
            self.stop_owner(owner);
        }
    }

    /// Judges a stop that has lasted for too long.
    pub(crate) fn drain_ends(&mut self, server: ServerId, epoch: u64) {
        if self.servers[server.0].epoch == epoch && self.servers[server.0].state == Running::Stopping {
            let left: Vec<_> = self.servers[server.0].seats.iter().filter_map(|seat| seat.owner).collect();
            self.checker.fail("G8", None, format!("{left:?} of server {} did not stop within {DRAIN:?}", server.0));
        }
    }

    pub(crate) fn process_ends(&mut self, server: ServerId, epoch: u64) {
        if self.servers[server.0].epoch == epoch {
            trace!(self, None, "server {} has stopped", server.0);
            self.end_process(server);
        }
    }

    pub(crate) fn pause(&mut self, server: ServerId, lasting: Duration) {
        if self.servers[server.0].state == Running::Up {
            trace!(self, None, "fault: server {} is paused for {lasting:?}", server.0);
            self.servers[server.0].state = Running::Paused;
            let (at, epoch) = (self.scheduler.now() + lasting, self.servers[server.0].epoch);
            self.scheduler.at(at, Event::Resume { server, epoch });
        }
    }

    /// Keeps an event for a process that is paused, or drops one for a process that is down.
    pub(crate) fn defers(&mut self, event: Event) -> Option<Event> {
        let Some((server, source)) = event.process() else { return Some(event) };
        let server = &mut self.servers[server.0];
        match server.state {
            Running::Up | Running::Stopping => Some(event),
            Running::Paused => {
                server.deferred.entry(source).or_default().push(event);
                None
            }
            Running::Down => matches!(event, Event::StreamOpens { .. }).then_some(event),
        }
    }

    /// Continues a paused process. It handles the events that have arrived: the sources in any order, each source in
    /// its own order.
    pub(crate) fn resume(&mut self, server: ServerId, epoch: u64) {
        if self.servers[server.0].epoch != epoch || self.servers[server.0].state != Running::Paused {
            return;
        }
        trace!(self, None, "server {} goes on", server.0);
        self.servers[server.0].state = Running::Up;
        self.servers[server.0].resumed = self.scheduler.now();
        let mut sources: Vec<_> = std::mem::take(&mut self.servers[server.0].deferred)
            .into_values()
            .map(|events| events.into_iter().collect::<std::collections::VecDeque<_>>())
            .collect();
        let mut at = self.scheduler.now();
        while !sources.is_empty() {
            let source = self.rng.usize(..sources.len());
            if let Some(event) = sources[source].pop_front() {
                at = Time(at.0 + self.rng.u64(..3));
                self.scheduler.at(at, event);
            } else {
                sources.remove(source);
            }
        }
    }
}
