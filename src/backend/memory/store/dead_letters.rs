//! Operations on dead letters: the kept copies of discarded notifications.

use super::Moment;
use crate::backend::{Mark, Redrove, StoredLetter};
use crate::envelope::Draft;
use crate::session_id::SessionId;

impl Moment<'_> {
    /// Returns dead letters of a session, the oldest first: `limit` at most, after the `skip` oldest.
    pub fn dead_letters(&mut self, session: &SessionId, skip: usize, limit: usize) -> Vec<StoredLetter> {
        self.with_list(session, |_, list| {
            list.letters.all.iter().skip(skip).take(limit).map(|(letter, _)| letter.clone()).collect()
        })
    }

    /// Queues `draft` and removes the letter from which it is made, if that letter still stands behind `skip` older
    /// ones.
    pub fn redrive(&mut self, session: &SessionId, skip: usize, letter: &Mark, draft: &Draft) -> Redrove {
        self.with_list(session, |moment, list| {
            if list.letters.all.get(skip).is_none_or(|(there, _)| there.mark != *letter) {
                return Redrove::Changed;
            }
            match moment.push_into(session, list, draft) {
                Err(limit) => Redrove::Full(limit),
                Ok(()) => {
                    list.letters.remove(skip);
                    Redrove::Done
                }
            }
        })
    }

    /// Deletes the dead letters of a session. Returns their number.
    pub fn purge(&mut self, session: &SessionId) -> usize {
        self.with_list(session, |_, list| std::mem::take(&mut list.letters).all.len())
    }

    /// Returns the sessions that have dead letters, in order.
    pub fn sessions_with_dead_letters(&mut self) -> Vec<SessionId> {
        let mut sessions: Vec<SessionId> = self.store.lists.keys().cloned().collect();
        sessions.retain(|session| self.with_list(session, |_, list| !list.letters.all.is_empty()));
        sessions.sort_unstable();
        sessions
    }
}
