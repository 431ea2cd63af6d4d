//! Evaluation of answers as in the Redis backend: it moves the permit, and reads the lease behind each write of the
//! lease.

use std::sync::Arc;
use std::time::Duration;

use mcp_courier::testing::backend::{Behind, LeaseState, Taken};
use mcp_courier::testing::envelope::set_id;
use mcp_courier::testing::subscription::{Event as Happening, Operation};

use super::messages::{any_id, number};
use super::network::{Command, Reply};
use super::settings::{Guard, Waiting};
use super::world::{OwnerId, World};

impl World {
    /// Takes an answer in.
    pub(crate) fn answered(&mut self, id: OwnerId, operation: u64, reply: Reply) {
        let (now, lease) = (self.instant(), self.settings.config.lease());
        let without = self.settings.without;
        let Some(owner) = self.owners.get_mut(&id) else { return };
        let Some(mut under_way) = owner.under_way.take_if(|under_way| under_way.number == operation) else { return };
        let permit = Arc::clone(owner.machine.permit());
        let sent = if without == Some(Guard::PermitFromSending) { now } else { under_way.sent };
        if let Reply::Failed(why) = reply {
            owner.is_stale = true;
            // A connection that could not be opened is none.
            if let Operation::Open = under_way.operation {
                self.hang_up(id);
            }
            let happening = match under_way.operation {
                Operation::CancelQuestions => Happening::Cancelled,
                // The driver gives a release up, and the lease runs out by itself.
                Operation::Release => Happening::Released,
                _ => Happening::Failed(failure(why)),
            };
            return self.feed(id, happening);
        }
        if let Reply::Read(taken, holder, at) = reply {
            let mark = if without == Some(Guard::SuspensionsSinceSending) { permit.mark() } else { under_way.mark };
            let is_trusted = without == Some(Guard::LeaseBehindRead);
            let holder = if is_trusted { LeaseState::Held } else { holder };
            let is_wait = matches!(under_way.operation, Operation::Wait(_));
            let (number, ends, is_empty) = (under_way.number, under_way.ends, taken.items.is_empty());
            match holder {
                LeaseState::Held => permit.confirmed(mark),
                LeaseState::Absent => {
                    // The script decides. Behind a wait it takes no absent lease, as its owner may have gone meanwhile.
                    let behind = behind_of(&under_way.operation);
                    owner.under_way = Some(under_way);
                    let command = if is_wait { Command::Wait(Duration::ZERO) } else { Command::Take(None, behind) };
                    return self.read(id, operation, command);
                }
                _ => permit.revoke(),
            }
            let is_held = holder == LeaseState::Held;
            owner.is_stale |= !is_held || !is_empty || behind_of(&under_way.operation).is_some();
            if is_wait && is_held && is_empty && self.scheduler.now() < ends {
                self.owner(id).under_way = Some(under_way);
                return self.waits_on(id, number);
            }
            let items = if is_held { taken.items } else { Vec::new() };
            let taken = Taken { lease: holder, items, ..taken };
            let happening = self.happening(id, &under_way.operation, Reply::Taken(taken, at));
            return self.feed(id, happening);
        }
        let is_shared = self.settings.waiting == Waiting::Shared;
        if let Reply::Taken(taken, _) = &reply {
            let is_behind = behind_of(&under_way.operation).is_some();
            owner.is_stale |= !taken.lease.is_held() || !taken.items.is_empty() || is_behind;
        }
        let tracks = match (&under_way.operation, &reply, &under_way.answered) {
            (_, _, Some(_)) => false,
            // The scripts that write a lease read it last, for a connection that tracks all keys.
            (Operation::Claim, ..) if is_shared => {
                permit.renewed(sent, lease, under_way.mark);
                permit.is_suspended()
            }
            (Operation::Claim, ..) => true,
            (Operation::Renew, Reply::Lease(state), _) => {
                if state.is_held() {
                    permit.renewed(sent, lease, under_way.mark);
                } else {
                    permit.revoke();
                }
                state.is_held() && permit.is_suspended()
            }
            (Operation::Take { .. } | Operation::Wait(_), Reply::Taken(taken, _), _) => {
                let untracked = taken.lease == LeaseState::Reclaimed || permit.is_suspended();
                match taken.lease {
                    LeaseState::Held if !untracked => permit.confirmed(under_way.mark),
                    LeaseState::Held | LeaseState::Reclaimed => {}
                    _ => permit.revoke(),
                }
                taken.lease.is_held() && untracked
            }
            _ => false,
        };
        if tracks {
            // The lease is read behind the answer, so that Redis announces its next change.
            if !matches!(under_way.operation, Operation::Claim) {
                under_way.mark = permit.mark();
            }
            under_way.answered = Some(reply);
            owner.under_way = Some(under_way);
            return self.send_for(id, operation, Command::Track);
        }
        let reply = match (under_way.answered, reply) {
            (Some(answered), Reply::Holder(holder)) => {
                if holder == LeaseState::Absent {
                    permit.suspend();
                }
                let is_held = holder == LeaseState::Held;
                match (&under_way.operation, &answered) {
                    (Operation::Claim, _) | (_, Reply::Taken(Taken { lease: LeaseState::Reclaimed, .. }, _))
                        if is_held =>
                    {
                        permit.renewed(sent, lease, under_way.mark);
                    }
                    _ if is_held => permit.confirmed(under_way.mark),
                    (Operation::Renew, _) => {
                        permit.revoke();
                        permit.suspend();
                    }
                    _ => permit.revoke(),
                }
                answered
            }
            (_, reply) => reply,
        };
        let happening = self.happening(id, &under_way.operation, reply);
        self.feed(id, happening);
    }

    fn happening(&mut self, id: OwnerId, operation: &Operation, reply: Reply) -> Happening {
        match (operation, reply) {
            (Operation::Open, _) => Happening::Opened,
            (Operation::Claim, _) => Happening::Claimed,
            (_, Reply::Lease(state)) => Happening::Renewed(state),
            (_, Reply::Taken(mut taken, at)) => {
                self.owner(id).read = (at, self.scheduler.now());
                self.name(&mut taken);
                Happening::Taken(taken)
            }
            (_, Reply::Rewritten(replaced)) => Happening::Rewritten(replaced),
            (Operation::ReadQuestions, _) => Happening::Questions(Vec::new()),
            (Operation::CancelQuestions, _) => Happening::Cancelled,
            (Operation::Release, _) => Happening::Released,
            _ => Happening::Settled,
        }
    }

    /// Learns the numbers of the messages that were read, by their ids.
    fn name(&mut self, taken: &mut Taken) {
        for item in &mut taken.items {
            let Ok(envelope) = &mut item.envelope else { continue };
            let n = number(envelope.params().as_bytes());
            if self.settings.without == Some(Guard::SkipById) {
                let n = self.rng.usize(..1 << 32);
                set_id(envelope, any_id(n, &mut self.rng));
            }
            self.numbers.insert(envelope.id, n);
        }
    }
}

/// Returns the messages that a take passes over.
fn behind_of(operation: &Operation) -> Option<Behind> {
    match operation {
        Operation::Take { behind, .. } => behind.clone(),
        _ => None,
    }
}

fn failure(why: &'static str) -> mcp_courier::QueueError {
    mcp_courier::testing::backend::broken("an operation", why)
}
