//! Receipts: the recorded outcomes of notifications.

use std::collections::HashMap;

use super::list::List;
use super::{Change, Moment};
use crate::backend::{Mark, MessageOutcome, StoredLetter};
use crate::envelope::Timestamp;
use crate::notification::NotificationId;
use crate::outcome::Receipt;
use crate::session_id::SessionId;

/// Receipts of all queues, each with the end of its time.
#[derive(Debug, Clone, Default)]
pub(super) struct Receipts {
    told: HashMap<(SessionId, NotificationId), (Receipt, Timestamp)>,
    /// Number of receipts after the last removal of those whose time is over.
    tidied: usize,
}

impl Moment<'_> {
    /// Writes a receipt. A receipt that says `Delivered` is never overwritten.
    pub(super) fn set_receipt(&mut self, session: &SessionId, id: NotificationId, receipt: Receipt, until: Timestamp) {
        let Receipts { told, tidied } = &mut self.store.receipts;
        // The removal costs each receipt a bounded number of checks, however many receipts there are.
        if told.len() > 2 * *tidied + 64 {
            told.retain(|_, (_, until)| *until > self.now);
            *tidied = told.len();
        }
        let key = (session.clone(), id);
        let is_final =
            |(receipt, until): &(Receipt, Timestamp)| *until > self.now && matches!(receipt, Receipt::Delivered { .. });
        if !told.get(&key).is_some_and(is_final) {
            told.insert(key, (receipt, until));
            self.store.changes.push(Change::Receipt(session.clone(), id));
        }
    }

    /// Records the outcome of a message that has already left its queue: its receipt, and its dead letter.
    pub fn record(&mut self, session: &SessionId, outcome: &MessageOutcome, raw: &[u8]) {
        self.with_list(session, |moment, list| moment.settle(session, list, outcome, raw.to_vec()));
    }

    /// Records the outcome of a message of this list, as [`record`](Self::record) does.
    pub(super) fn settle(&mut self, session: &SessionId, list: &mut List, outcome: &MessageOutcome, raw: Vec<u8>) {
        let at = self.now;
        let reason = outcome.discarded.as_ref().map(|reason| reason.bounded());
        if let Some(id) = outcome.receipt {
            let receipt = match &reason {
                None => Receipt::Delivered { at: at.to_system() },
                Some(reason) => Receipt::Discarded { reason: reason.clone(), at: at.to_system() },
            };
            self.set_receipt(session, id, receipt, at.plus(self.config.receipt_life()));
        }
        if let (Some(reason), true) = (reason, self.config.dead_letters() > 0) {
            let mark = Mark::of(&raw);
            list.letters.keep(self.config, StoredLetter { at, reason, raw, mark });
        }
    }

    /// Returns a session's receipts in the order of their ids, as they are where no owner settles them.
    pub(super) fn receipts_of(&self, session: &SessionId) -> Vec<Receipt> {
        let told = self.store.receipts.told.iter();
        let mut live: Vec<_> = told.filter(|((of, _), (_, until))| of == session && *until > self.now).collect();
        live.sort_unstable_by_key(|((_, id), _)| *id);
        live.into_iter().map(|(_, (receipt, _))| receipt.clone().at(self.now, false)).collect()
    }

    /// Returns a receipt.
    pub fn receipt(&mut self, session: &SessionId, id: NotificationId) -> Receipt {
        let has_owner = self.with_list(session, |moment, list| {
            list.bound_lease(moment.now);
            list.lease.is_some() && !list.messages.is_empty()
        });
        match self.store.receipts.told.get(&(session.clone(), id)) {
            Some((receipt, until)) if *until > self.now => receipt.clone().at(self.now, has_owner),
            _ => Receipt::Unknown,
        }
    }
}
