//! An owner that shares the line of its process: plain reads, and waits that a change ends, or their time.

use std::time::Duration;

use mcp_courier::testing::subscription::Operation;

use super::network::Command;
use super::settings::Guard;
use super::world::{Event, OwnerId, World};

/// Pause between two reads of a queue that tells of no changes.
pub(crate) const POLL: Duration = Duration::from_millis(250);

impl World {
    /// Begins to wait until a change is announced, or until the time is over. The queue is read then in any case.
    pub(crate) fn wait_for_change(&mut self, id: OwnerId, operation: u64, block: Duration) {
        let (now, server) = (self.scheduler.now(), self.owner(id).server);
        if self.owner(id).is_stale {
            self.read_awaited(id, operation);
        } else if self.settings.without != Some(Guard::Sweep) {
            let block = if self.settings.tracks { block } else { block.min(POLL) };
            self.scheduler.at(now + block, Event::Sweep { owner: id, server, operation });
        }
    }

    pub(crate) fn sweep(&mut self, id: OwnerId, operation: u64) {
        if self.owners.get(&id).is_some_and(|owner| owner.awaits_change() == Some(operation)) {
            self.read_awaited(id, operation);
        }
    }

    /// Notes that a queue has changed since it was read, or while it is being read.
    pub(crate) fn queue_changed(&mut self, id: OwnerId) {
        let without = self.settings.without;
        let owner = self.owner(id);
        let awaits = owner.awaits_change();
        if awaits.is_some() || owner.under_way.is_none() || without != Some(Guard::ReadAfterChange) {
            owner.is_stale = true;
        }
        if let Some(operation) = awaits {
            self.read_awaited(id, operation);
        }
    }

    /// Reads the queue for an owner that waits.
    pub(crate) fn read_awaited(&mut self, id: OwnerId, operation: u64) {
        self.read(id, operation, Command::Read(None));
    }

    /// Sends a command that reads the queue.
    pub(crate) fn read(&mut self, id: OwnerId, operation: u64, command: Command) {
        let sent = self.instant();
        let owner = self.owner(id);
        let mark = owner.machine.permit().mark();
        if let Some(under_way) = &mut owner.under_way {
            // A suspension in a wait is not lifted by the read at its end.
            if !matches!(under_way.operation, Operation::Wait(_)) {
                under_way.mark = mark;
            }
            (under_way.sent, under_way.is_read) = (sent, true);
        }
        self.send_for(id, operation, command);
    }

    /// Waits on, where a change brought nothing and the time is not over.
    pub(crate) fn waits_on(&mut self, id: OwnerId, operation: u64) {
        let now = self.scheduler.now();
        if let Some(under_way) = &mut self.owner(id).under_way {
            under_way.is_read = false;
            let block = under_way.ends.since(now);
            self.wait_for_change(id, operation, block);
        }
    }
}
