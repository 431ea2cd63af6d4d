//! Variants of the queue that lack a guard of the protocol.

use std::time::Duration;

use mcp_courier::testing::backend::{Behind, Mark, OwnerToken, Store};
use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::testing::subscription::{Delivered, MessageOutcome};
use mcp_courier::{Config, SessionId};

use super::messages::number;
use super::network::{Command, Request};
use super::settings::Guard;
use super::world::World;

impl World {
    /// Removes the newest of several delivered messages alone, where an owner may acknowledge them; whether it did.
    pub(crate) fn removes_newest_alone(
        &mut self,
        name: &SessionId,
        token: OwnerToken,
        delivered: &Delivered,
        clock: Timestamp,
    ) -> bool {
        let newest = delivered.count - 1;
        let mut messages: Vec<Vec<u8>> = self.redis.store.messages(name).map(<[u8]>::to_vec).collect();
        let is_owner = self.redis.store.lease(name).is_some_and(|(holder, _)| holder == token);
        if newest == 0 || !is_owner || !messages.get(newest).is_some_and(|message| delivered.last.matches(message)) {
            return false;
        }
        messages.remove(newest);
        let config = self.settings.config.clone();
        let mut moment = self.redis.store.at(&config, clock);
        moment.delete_queue(name);
        messages.iter().for_each(|message| moment.push_raw(name, message));
        true
    }

    /// Returns the message that the push of message `n` replaces where a guard of that is removed: the newest with its
    /// key, also while an owner has the lease, or also where an owner has read it since.
    pub(crate) fn replaced_without_guard(&self, session: usize, n: usize) -> Option<Vec<u8>> {
        let (name, key) = (&self.names[session], self.checker.messages[n].kind.key()?);
        let is_owned = self.redis.store.lease(name).is_some();
        let applies = match self.settings.without {
            Some(Guard::CollapseUnowned) => is_owned,
            Some(Guard::CollapseForgotten) => !is_owned,
            _ => false,
        };
        let is_older = |raw: &&[u8]| {
            let other = number(raw);
            other < n && self.checker.messages[other].kind.key() == Some(key)
        };
        let newest = self.redis.store.messages(name).filter(is_older).last();
        newest.filter(|_| applies).map(<[u8]>::to_vec)
    }

    /// Returns what a read passes over; with the mark of whatever stands there, where that guard is removed.
    pub(crate) fn unmarked(
        &self,
        name: &SessionId,
        delivered: Option<&Delivered>,
        behind: Option<Behind>,
    ) -> Option<Behind> {
        let behind = behind?;
        let position = delivered.map_or(0, |delivered| delivered.count) + behind.count - 1;
        let there = self.redis.store.messages(name).nth(position);
        match there.filter(|_| self.settings.without == Some(Guard::BehindMark)) {
            Some(raw) => Some(Behind { last: Mark::of(raw), ..behind }),
            None => Some(behind),
        }
    }

    /// Returns what is acknowledged and passed over; all of it acknowledged, where that guard is removed.
    pub(crate) fn too_many(
        &self,
        name: &SessionId,
        delivered: Option<Delivered>,
        behind: Option<Behind>,
    ) -> (Option<Delivered>, Option<Behind>) {
        match (delivered, behind) {
            (Some(mut delivered), Some(behind)) if self.settings.without == Some(Guard::AckOfConfirmed) => {
                let all = delivered.count + behind.count;
                let is_whole = self.redis.store.messages(name).nth(all - 1).is_some_and(|raw| behind.last.matches(raw));
                if !is_whole {
                    return (Some(delivered), Some(behind));
                }
                (delivered.count, delivered.last) = (all, behind.last);
                (Some(delivered), None)
            }
            as_it_was => as_it_was,
        }
    }

    /// Answers the acknowledgement of a discarded message without performing it, where that guard is removed. The next
    /// command of its owner performs it, if there is one. Changes the request to the part that is performed now.
    ///
    /// The acknowledgement is cut at its first discard. The messages before the discard are acknowledged now. The rest,
    /// whose positions then count from the discard, is kept for the owner and joined with its next acknowledgement.
    /// Returns the number of messages in the rest, which the read of this command must skip: the owner believes that
    /// they are removed. A case that cannot be cut without another effect is left whole.
    pub(crate) fn put_off(&mut self, request: &mut Request, clock: Timestamp) -> Option<usize> {
        if self.settings.without != Some(Guard::DiscardFirst) {
            return None;
        }
        let (name, config, token) = (self.names[request.session].clone(), self.settings.config.clone(), request.token);
        if let Some(earlier) = self.redis.put_off.remove(&token) {
            match &mut request.command {
                Command::Take(Some(delivered), _) => *delivered = joined(earlier, delivered),
                _ => drop(self.redis.store.at(&config, clock).take(&name, token, Some(&earlier), false)),
            }
            return None;
        }
        let Command::Take(Some(delivered), behind) = &mut request.command else { return None };
        let first = delivered.outcomes.iter().find(|outcome| outcome.discarded.is_some())?.position;
        let rest = delivered.count - first;
        let messages: Vec<_> = self.redis.store.messages(&name).collect();
        let is_whole = messages.get(delivered.count - 1).is_some_and(|raw| delivered.last.matches(raw));
        if !is_whole || rest >= config.batch_messages() || !delivered.questions.is_empty() || behind.is_some() {
            return None;
        }
        let (now, later): (Vec<MessageOutcome>, Vec<MessageOutcome>) =
            delivered.outcomes.drain(..).partition(|outcome| outcome.position < first);
        let later = later
            .into_iter()
            .map(|outcome: MessageOutcome| MessageOutcome { position: outcome.position - first, ..outcome })
            .collect();
        let later = Delivered { count: rest, last: delivered.last.clone(), questions: Vec::new(), outcomes: later };
        let last = first.checked_sub(1).map(|at| Mark::of(messages[at]));
        request.command = Command::Take(
            last.map(|last| Delivered { count: first, last, questions: Vec::new(), outcomes: now }),
            None,
        );
        self.redis.put_off.insert(token, later);
        Some(rest)
    }
}

/// Longest time to live of a message.
const TIME_TO_LIVE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// Removes a message from the middle of a queue.
pub(crate) fn remove(store: &mut Store, config: &Config, clock: Timestamp, name: &SessionId, message: &[u8]) {
    let kept: Vec<Vec<u8>> = store.messages(name).filter(|raw| *raw != message).map(<[u8]>::to_vec).collect();
    let mut moment = store.at(config, clock);
    moment.delete_queue(name);
    kept.iter().for_each(|raw| moment.push_raw(name, raw));
    // The life that the queue had ends with its deletion: the messages that are left must not run out.
    moment.expire_queue(name, TIME_TO_LIVE_MAX);
}

/// Joins two acknowledgements into one.
fn joined(earlier: Delivered, later: &Delivered) -> Delivered {
    let moved = later
        .outcomes
        .iter()
        .map(|outcome| MessageOutcome { position: outcome.position + earlier.count, ..outcome.clone() });
    Delivered {
        count: earlier.count + later.count,
        last: later.last.clone(),
        questions: earlier.questions.into_iter().chain(later.questions.iter().cloned()).collect(),
        outcomes: earlier.outcomes.into_iter().chain(moved).collect(),
    }
}
