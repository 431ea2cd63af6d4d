//! Operations on what is remembered of sessions.

use std::collections::HashMap;

use super::Moment;
use crate::backend::Remembered;
use crate::envelope::Timestamp;
use crate::session_id::{SessionId, SessionStatus};

/// Remembered sessions: params of `initialize` (`None` after the end), and the time at which each is forgotten.
pub(super) type Sessions = HashMap<SessionId, (Option<String>, Timestamp)>;

impl Moment<'_> {
    /// Removes what has run out, and returns the rest with the end of a time that begins now.
    fn sessions(&mut self) -> (&mut Sessions, Timestamp) {
        self.store.sessions.retain(|_, (_, until)| *until > self.now);
        (&mut self.store.sessions, self.now.plus(self.config.session_time_to_live()))
    }

    /// Returns the status of a session without a lease.
    pub(super) fn status_of_unowned(&mut self, session: &SessionId) -> SessionStatus {
        if self.config.fastmcp_servers() {
            return SessionStatus::NotRead;
        }
        match self.sessions().0.get(session) {
            Some((Some(_), _)) => SessionStatus::Known,
            _ => SessionStatus::Unknown,
        }
    }

    /// Remembers what a session began with, unless the session has ended. Returns whether it is remembered.
    pub fn remember(&mut self, session: &SessionId, state: &str) -> bool {
        let (sessions, until) = self.sessions();
        let has_ended = matches!(sessions.get(session), Some((None, _)));
        if !has_ended {
            sessions.insert(session.clone(), (Some(state.to_owned()), until));
        }
        !has_ended
    }

    /// Returns what a session began with. The time of that knowledge begins anew.
    pub fn recall(&mut self, session: &SessionId) -> Option<String> {
        let (sessions, new_until) = self.sessions();
        let (state, until) = sessions.get_mut(session)?;
        *until = new_until;
        state.clone()
    }

    /// Begins the time of sessions anew. Returns what is known of each, in the order given.
    pub fn keep(&mut self, all: &[SessionId]) -> Vec<Remembered> {
        let (sessions, new_until) = self.sessions();
        for session in all {
            if let Some((_, until)) = sessions.get_mut(session) {
                *until = new_until;
            }
        }
        self.look_up(all)
    }

    /// Returns what is known of each session, in the order given.
    pub fn look_up(&mut self, all: &[SessionId]) -> Vec<Remembered> {
        let (sessions, _) = self.sessions();
        let known = |session| match sessions.get(session) {
            None => Remembered::Unknown,
            Some((None, _)) => Remembered::Ended,
            Some((Some(_), _)) => Remembered::Known,
        };
        all.iter().map(known).collect()
    }

    /// Ends a session. Returns whether the session has ended: not where neither the store nor the caller knows it.
    pub fn forget(&mut self, session: &SessionId, is_known: bool) -> bool {
        let (sessions, until) = self.sessions();
        let has_ended = is_known || sessions.contains_key(session);
        if has_ended {
            sessions.insert(session.clone(), (None, until));
        }
        has_ended
    }
}
