//! Dead letters: now and then someone has one queued again.

use mcp_courier::testing::backend::{Redrove, StoredLetter};
use mcp_courier::testing::envelope::{Envelope, again};

use super::checker::Cause;
use super::messages::number;
use super::trace::trace;
use super::world::World;

impl World {
    /// Has a dead letter of a session queued again. What was wrong with it may be repaired by then.
    pub(crate) fn redrives(&mut self, session: usize) {
        let (now, config, name) = (self.scheduler.now(), self.settings.config.clone(), self.names[session].clone());
        let clock = self.redis.clock(now);
        if now < self.redis.down_until {
            return;
        }
        self.run_out(session);
        let letters = self.redis.store.at(&config, clock).dead_letters(&name, 0, usize::MAX);
        if letters.is_empty() {
            return;
        }
        let skip = self.rng.usize(..letters.len());
        let StoredLetter { raw, mark, .. } = &letters[skip];
        let n = number(raw);
        // What cannot be decoded stays.
        let Ok(envelope) = Envelope::decode("any", raw.clone(), config.time_to_live()) else { return };
        let Some(draft) = again(&envelope, config.time_to_live()) else { return };
        let life = match (envelope.enqueued_at, envelope.expires_at) {
            (Some(from), Some(to)) => to.since(from),
            _ => config.time_to_live(),
        };
        let is_alone = self.checker.queues[session].iter().all(|queued| queued.n != n);
        let mut redrove = Redrove::Changed;
        self.intervene(session, Cause::Pushed, |store, clock| {
            redrove = store.at(&config, clock).redrive(&name, skip, mark, &draft);
        });
        if redrove != Redrove::Done {
            return;
        }
        self.ids.insert(envelope.id, n);
        let is_cured = self.rng.bool();
        let how = if is_cured { ", and what was wrong is repaired" } else { "" };
        trace!(self, Some(session), "#{n} is redriven{how}");
        self.checker.redriven(n, now, clock, life, is_alone, is_cured);
    }
}
