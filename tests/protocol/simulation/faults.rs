//! The faults of a run, and its recovery.

use std::time::Duration;

use mcp_courier::SessionState;

use super::checker::Cause;
use super::server::Running;
use super::settings::{Odds, Waiting, about, up_to};
use super::trace::trace;
use super::world::{Event, Phase, ServerId, World};

const NO_FAULTS: Odds = Odds {
    lost_request: 0,
    lost_answer: 0,
    repeated: 0,
    slow: 0,
    paused: 0,
    transient: 0,
    slow_session: 0,
    lost_ping: 0,
};

impl World {
    /// Returns the odds of now.
    pub(crate) fn odds(&self) -> Odds {
        if self.phase == Phase::Faulty { self.settings.odds } else { NO_FAULTS }
    }

    /// Brings about the next fault.
    pub(crate) fn fault(&mut self) {
        if self.phase != Phase::Faulty {
            return;
        }
        let every = self.settings.fault_every;
        let next = self.scheduler.now() + about(&mut self.rng, every);
        self.scheduler.at(next, Event::Fault);
        if self.settings.evicts && self.rng.bool() {
            return self.evict();
        }
        let server = self.any_server();
        let lease = self.settings.config.lease();
        match self.rng.usize(..100) {
            0..12 => self.crash(server),
            12..20 => self.stop(server),
            20..40 => {
                let most = lease * if self.rng.bool() { 1 } else { 4 };
                let lasting = up_to(&mut self.rng, most) + Duration::from_millis(1);
                self.pause(server, lasting);
            }
            40..65 => {
                let connections: Vec<_> = self.connections.keys().copied().collect();
                if !connections.is_empty() {
                    let id = connections[self.rng.usize(..connections.len())];
                    let silently = self.rng.bool();
                    self.break_connection(id, silently);
                }
            }
            65..76 => self.break_stream(),
            76..80 => self.leave_session(server),
            80..84 => {
                let lasting = up_to(&mut self.rng, lease * 2) + Duration::from_millis(100);
                self.take_down(lasting);
            }
            84..90 if self.settings.forgets => self.take_snapshot(),
            90..96 if self.settings.forgets => self.forget(),
            96..100 if self.settings.jumps => self.jump(),
            _ => {}
        }
    }

    /// Ends a session at one server, as an idle timeout does. The session may continue at another one.
    fn leave_session(&mut self, server: ServerId) {
        let session = self.rng.usize(..self.clients.len());
        trace!(self, Some(session), "fault: server {} lets session {session} go", server.0);
        let now = self.scheduler.now();
        self.scheduler.at(now, Event::SessionEnds { server, session, presence: SessionState::Detached });
    }

    /// Breaks a client's stream: one end hears of that soon, the other late.
    fn break_stream(&mut self) {
        let session = self.rng.usize(..self.clients.len());
        let Some(stream) = self.clients[session].streams.last().copied() else { return };
        if self.rng.bool() {
            self.close_stream(session, stream);
        } else {
            let server = self.streams[&stream].server;
            let now = self.scheduler.now();
            trace!(self, Some(session), "fault: stream {} breaks", stream.0);
            self.scheduler.at(now, Event::StreamCloses { server, session, stream });
            let at = now + up_to(&mut self.rng, Duration::from_secs(20));
            self.scheduler.at(at, Event::StreamEnds { session, stream });
        }
    }

    /// Has each shared line be lost once in the calm time, or everything be forgotten: who waits hears of that.
    pub(crate) fn plan_interferences(&mut self) {
        if self.settings.waiting == Waiting::Shared {
            for server in (0..self.servers.len()).map(ServerId) {
                let at = self.scheduler.now() + self.settings.calm.mul_f64(self.rng.f64() / 2.0);
                self.scheduler.at(at, Event::Interferes { server });
            }
        }
    }

    pub(crate) fn interferes(&mut self, server: ServerId) {
        if self.settings.forgets && self.rng.bool() {
            trace!(self, None, "calm: the queue forgets everything");
            self.flush();
            (0..self.names.len()).for_each(|session| self.see(session, Cause::Forgot));
        } else if let Some(id) = self.servers[server.0].line.connection {
            self.break_connection(id, false);
        }
    }

    /// Ends all faults: processes run, the network is well, clients come back.
    pub(crate) fn heal(&mut self) {
        trace!(self, None, "the faults are over");
        self.phase = Phase::Healing;
        self.redis.down_until = self.scheduler.now();
        for server in (0..self.servers.len()).map(ServerId) {
            let epoch = self.servers[server.0].epoch;
            match self.servers[server.0].state {
                Running::Paused => self.resume(server, epoch),
                Running::Down => self.process_starts(server, epoch),
                Running::Up | Running::Stopping => {}
            }
        }
        for id in self.connections.keys().copied().collect::<Vec<_>>() {
            if self.connections[&id].is_silent {
                self.break_connection(id, false);
            }
        }
        for session in 0..self.clients.len() {
            self.heal_client(session);
        }
    }

    /// Returns the time within which everything that is queued must be delivered once all faults are over.
    pub(crate) fn recovery(&self) -> Duration {
        let config = &self.settings.config;
        // A dead owner's lease, a look of whoever stands by, a delivery that is stuck, an operation that is, a pause.
        let once =
            config.lease() * 2 + config.heartbeat() * 2 + config.hand_over_timeout() * 2 + Duration::from_secs(60);
        let failing = self.checker.queues.iter().flatten().count() as u32;
        once + config.backoff_max() * config.max_attempts() * failing
    }
}
