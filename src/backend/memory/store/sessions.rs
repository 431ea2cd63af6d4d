//! Operations on the sessions that the store remembers.

use std::collections::HashMap;

use super::Moment;
#[cfg(feature = "rmcp")]
use crate::backend::SessionRecord;
use crate::envelope::Timestamp;
use crate::session_id::{SessionId, SessionStatus};

/// Remembered sessions: params of `initialize` (`None` after the end), and the time at which each is forgotten.
pub(super) type Sessions = HashMap<SessionId, (Option<String>, Timestamp)>;

impl Moment<'_> {
    /// Removes expired sessions. Returns the others, and the end of a time to live that begins now.
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
}

/// Operations of the session store of the adapter to rmcp.
#[cfg(feature = "rmcp")]
impl Moment<'_> {
    /// Remembers the state with which a session began, unless the session has ended. Returns whether the session is
    /// remembered.
    pub fn store_session(&mut self, session: &SessionId, state: &str) -> bool {
        let (sessions, until) = self.sessions();
        let has_ended = matches!(sessions.get(session), Some((None, _)));
        if !has_ended {
            sessions.insert(session.clone(), (Some(state.to_owned()), until));
        }
        !has_ended
    }

    /// Returns the state with which a session began. Its time to live begins anew.
    pub fn load_session(&mut self, session: &SessionId) -> Option<String> {
        let (sessions, new_until) = self.sessions();
        let (state, until) = sessions.get_mut(session)?;
        *until = new_until;
        state.clone()
    }

    /// Begins the time to live of sessions anew. Returns the knowledge about each, in the order given.
    pub fn refresh_sessions(&mut self, all: &[SessionId]) -> Vec<SessionRecord> {
        let (sessions, new_until) = self.sessions();
        for session in all {
            if let Some((_, until)) = sessions.get_mut(session) {
                *until = new_until;
            }
        }
        self.look_up_sessions(all)
    }

    /// Returns the knowledge about each session, in the order given.
    pub fn look_up_sessions(&mut self, all: &[SessionId]) -> Vec<SessionRecord> {
        let (sessions, _) = self.sessions();
        let known = |session| match sessions.get(session) {
            None => SessionRecord::Unknown,
            Some((None, _)) => SessionRecord::Ended,
            Some((Some(_), _)) => SessionRecord::Known,
        };
        all.iter().map(known).collect()
    }

    /// Ends a session. Returns whether the session has ended: `false` where neither the store nor the caller knows the
    /// session.
    pub fn end_session(&mut self, session: &SessionId, is_known: bool) -> bool {
        let (sessions, until) = self.sessions();
        let has_ended = is_known || sessions.contains_key(session);
        if has_ended {
            sessions.insert(session.clone(), (None, until));
        }
        has_ended
    }
}
