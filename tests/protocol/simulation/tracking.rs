//! Tracking: the queue tells a connection of the next change of what it has read, and forgets it then.

use mcp_courier::testing::backend::LeaseState;

use super::line::Wire;
use super::network::{Command, Connection, Reply, Request};
use super::settings::{Guard, Waiting};
use super::world::{ConnectionId, Event, World};

/// Key that the queue may tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Lease(usize),
    Queue(usize),
}

impl World {
    /// Remembers what a command has read, to tell its connection of the next change.
    pub(crate) fn track(&mut self, request: &Request, reply: &Reply, has_changed: bool) {
        let Some(connection) = request.connection.filter(|_| self.settings.tracks) else { return };
        let (session, without) = (request.session, self.settings.without);
        let is_shared = self.settings.waiting == Waiting::Shared;
        let is_tracked = without != Some(Guard::LeaseTracked);
        let (lease, queue) = match (&request.command, reply) {
            (Command::Track, _) => (is_tracked, false),
            // It writes the lease, which ends the tracking, and reads it behind that.
            (Command::Renew, _) => (is_tracked, false),
            (Command::Claim, _) if is_shared => (is_tracked, false),
            (Command::Read(_), _) => (is_tracked, true),
            (Command::Take(..) | Command::Wait(_), Reply::Taken(taken, _)) => {
                let reads_last = without != Some(Guard::ReadLast) || !has_changed;
                (is_tracked && taken.lease == LeaseState::Held, taken.lease.is_held() && reads_last)
            }
            _ => (false, false),
        };
        if let Command::Renew | Command::Claim = request.command {
            self.redis.tracking.retain(|entry| *entry != (Key::Lease(session), connection));
        }
        // A dedicated connection chooses what it has tracked: the lease, where it asks for that.
        let asks = matches!(request.command, Command::Track | Command::Renew);
        for (key, is_read) in
            [(Key::Queue(session), queue && is_shared), (Key::Lease(session), lease && (is_shared || asks))]
        {
            if is_read && !self.redis.tracking.contains(&(key, connection)) {
                self.redis.tracking.push((key, connection));
            }
        }
        while self.redis.tracking.len() > self.settings.most_tracked {
            let at = self.rng.usize(..self.redis.tracking.len());
            let (key, told) = self.redis.tracking.swap_remove(at);
            // The session whose own command exceeded the limit gets no announcement.
            if told != connection {
                self.tell_line(told, Wire::Changed(key));
            }
        }
    }

    /// Tells those that have read a key of its change, but not the connection that changed it, and forgets them all.
    pub(crate) fn tell_of(&mut self, key: Key, own: Option<ConnectionId>) {
        let told: Vec<_> = self.redis.tracking.extract_if(.., |(of, _)| *of == key).map(|(_, id)| id).collect();
        for id in told {
            let Some(Connection { owner, server, is_silent, .. }) = self.connections.get(&id) else { continue };
            let (owner, server) = (*owner, *server);
            if Some(id) == own || *is_silent {
                continue;
            }
            let Some((owner, _)) = owner else {
                self.tell_line(id, Wire::Changed(key));
                continue;
            };
            let at = self.scheduler.now() + self.delay();
            self.scheduler.at(at, Event::News { owner, server, connection: id });
        }
    }

    /// Forgets everything. The queue announces that to a shared line once.
    pub(crate) fn flush(&mut self) {
        let lines: Vec<_> =
            self.connections.iter().filter(|(_, line)| line.owner.is_none()).map(|(id, _)| *id).collect();
        self.redis.tracking.retain(|(_, id)| !lines.contains(id));
        self.redis.store.flush();
        for id in lines {
            self.tell_line(id, Wire::AllChanged);
        }
    }
}
