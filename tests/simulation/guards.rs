//! Variants of the queue that lack a guard of the protocol.

use mcp_courier::SessionId;
use mcp_courier::testing::backend::{Mark, OwnerToken};
use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::testing::subscription::{Delivered, Fate};

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

    /// Where that guard is removed, answers the acknowledgement of a discarded message without doing it. The next command of its
    /// owner does it, if there is one. Changes the request to what is done now.
    pub(crate) fn put_off(&mut self, request: &mut Request, clock: Timestamp) -> Option<usize> {
        if self.settings.without != Some(Guard::DiscardFirst) {
            return None;
        }
        let (name, config, token) = (self.names[request.session].clone(), self.settings.config.clone(), request.token);
        if let Some(earlier) = self.redis.put_off.remove(&token) {
            match &mut request.command {
                Command::Take(Some(delivered)) => *delivered = joined(earlier, delivered),
                _ => drop(self.redis.store.at(&config, clock).take(&name, token, Some(&earlier), false)),
            }
            return None;
        }
        let Command::Take(Some(delivered)) = &mut request.command else { return None };
        let first = delivered.fates.iter().find(|fate| fate.discarded.is_some())?.position;
        let rest = delivered.count - first;
        let messages: Vec<_> = self.redis.store.messages(&name).collect();
        let is_whole = messages.get(delivered.count - 1).is_some_and(|raw| delivered.last.matches(raw));
        if !is_whole || rest >= config.batch_messages() || !delivered.questions.is_empty() {
            return None;
        }
        let (now, later): (Vec<Fate>, Vec<Fate>) = delivered.fates.drain(..).partition(|fate| fate.position < first);
        let later = later.into_iter().map(|fate: Fate| Fate { position: fate.position - first, ..fate }).collect();
        let later = Delivered { count: rest, last: delivered.last.clone(), questions: Vec::new(), fates: later };
        let last = first.checked_sub(1).map(|at| Mark::of(messages[at]));
        request.command =
            Command::Take(last.map(|last| Delivered { count: first, last, questions: Vec::new(), fates: now }));
        self.redis.put_off.insert(token, later);
        Some(rest)
    }
}

/// Joins two acknowledgements into one.
fn joined(earlier: Delivered, later: &Delivered) -> Delivered {
    let moved = later.fates.iter().map(|fate| Fate { position: fate.position + earlier.count, ..fate.clone() });
    Delivered {
        count: earlier.count + later.count,
        last: later.last.clone(),
        questions: earlier.questions.into_iter().chain(later.questions.iter().cloned()).collect(),
        fates: earlier.fates.into_iter().chain(moved).collect(),
    }
}
