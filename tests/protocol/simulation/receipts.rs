//! Receipts: in the end each tells what became of its notification.

use mcp_courier::{DiscardReason, Receipt};

use super::messages::Letter;
use super::settings::Guard;
use super::world::World;

impl World {
    /// Judges the receipts, where the queue has lost nothing and its clock has not jumped.
    pub(crate) fn check_receipts(&mut self) {
        // The variants without a guard of collapse settle no receipts of what they remove.
        let settles = !matches!(self.settings.without, Some(Guard::CollapseUnowned | Guard::CollapseForgotten));
        if self.settings.forgets || self.settings.jumps || !settles {
            return;
        }
        let (clock, config) = (self.redis.clock(self.scheduler.now()), self.settings.config.clone());
        for n in 0..self.checker.messages.len() {
            let Some(Letter::Draft { id, .. }) = self.letters.get(&n).filter(|_| has_receipt(n)) else { continue };
            let message = &self.checker.messages[n];
            let session = message.session;
            if message.order.is_none() || message.ran_out || self.clients[session].has_ended {
                continue;
            }
            let receipt = self.redis.store.at(&config, clock).receipt(&self.names[session], *id);
            let has_arrived = message.received > 0 || self.checker.resuming.is_forged(session, n);
            let is_right = match &receipt {
                Receipt::Delivered { .. } => has_arrived,
                Receipt::Discarded { reason: DiscardReason::Collapsed, .. } => message.is_replaced,
                Receipt::Discarded { .. } => message.discarded.is_some(),
                _ => false,
            };
            if !is_right {
                self.checker.fail("receipts", session, format!("the receipt of #{n} says {receipt:?}"));
            }
        }
    }
}

/// Returns whether the producer of a message asks for a receipt.
pub(crate) fn has_receipt(n: usize) -> bool {
    n.is_multiple_of(3)
}
