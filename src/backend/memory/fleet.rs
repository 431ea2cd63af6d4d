//! Sessions in the memory of one process.

use std::collections::HashMap;

use async_trait::async_trait;

use super::MemoryBackend;
use crate::backend::fleet::{Fleet, News, NewsReceiver, NewsSender, ProcessId, Remembered, news_channel};
use crate::envelope::Timestamp;
use crate::failure::QueueError;
use crate::lock::lock;
use crate::session_id::{SessionId, SessionStatus};

/// What is remembered, and who listens.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// What they began with, empty once they have ended; and until when that is known.
    states: HashMap<String, (String, Timestamp)>,
    listeners: Vec<(String, NewsSender)>,
}

impl MemoryBackend {
    /// Does something with what is remembered now, and until when it then is.
    fn with_sessions<T>(&self, act: impl FnOnce(&mut Sessions, Timestamp) -> T) -> T {
        let mut sessions = lock(&self.store.sessions);
        let now = self.store.now();
        sessions.states.retain(|_, (_, until)| *until > now);
        act(&mut sessions, now.plus(self.config.session_time_to_live()))
    }

    /// Reads the status of a session without a lease.
    pub(super) fn status_of_unowned(&self, session: &SessionId) -> SessionStatus {
        if self.config.fastmcp_servers() {
            return SessionStatus::NotRead;
        }
        self.with_sessions(|sessions, _| match sessions.states.get(&self.keys.session(session)) {
            Some((state, _)) if !state.is_empty() => SessionStatus::Known,
            _ => SessionStatus::Unknown,
        })
    }

    fn tell(sessions: &mut Sessions, channel: impl Fn(&str) -> bool, news: &News) {
        sessions.listeners.retain(|(theirs, sender)| {
            if channel(theirs) {
                sender.send(news.clone());
            }
            !sender.is_closed()
        });
    }
}

#[async_trait]
impl Fleet for MemoryBackend {
    async fn remember(&self, session: &SessionId, state: &str) -> Result<bool, QueueError> {
        Ok(self.with_sessions(|sessions, until| {
            let known = sessions.states.entry(self.keys.session(session)).or_insert_with(|| (state.to_owned(), until));
            let has_ended = known.0.is_empty();
            if !has_ended {
                *known = (state.to_owned(), until);
            }
            !has_ended
        }))
    }

    async fn recall(&self, session: &SessionId) -> Result<Option<String>, QueueError> {
        Ok(self.with_sessions(|sessions, new_until| {
            let (state, until) = sessions.states.get_mut(&self.keys.session(session))?;
            *until = new_until;
            Some(state.clone()).filter(|state| !state.is_empty())
        }))
    }

    async fn keep(&self, all: &[SessionId]) -> Result<Vec<Remembered>, QueueError> {
        Ok(self.with_sessions(|sessions, new_until| {
            let mut known = |session| match sessions.states.get_mut(&self.keys.session(session)) {
                None => Remembered::Unknown,
                Some((state, until)) => {
                    *until = new_until;
                    if state.is_empty() { Remembered::Ended } else { Remembered::Known }
                }
            };
            all.iter().map(&mut known).collect()
        }))
    }

    async fn look_up(&self, all: &[SessionId]) -> Result<Vec<Remembered>, QueueError> {
        Ok(self.with_sessions(|sessions, _| {
            let known = |session| match sessions.states.get(&self.keys.session(session)) {
                None => Remembered::Unknown,
                Some((state, _)) if state.is_empty() => Remembered::Ended,
                Some(_) => Remembered::Known,
            };
            all.iter().map(known).collect()
        }))
    }

    async fn knows_all(&self, all: &[SessionId]) -> Result<bool, QueueError> {
        Ok(self.with_sessions(|sessions, _| {
            all.iter().all(|session| sessions.states.contains_key(&self.keys.session(session)))
        }))
    }

    async fn forget(&self, session: &SessionId, by: ProcessId, is_known: bool) -> Result<bool, QueueError> {
        let all = format!("{}:", self.keys.news());
        Ok(self.with_sessions(|sessions, until| {
            let key = self.keys.session(session);
            let has_ended = is_known || sessions.states.contains_key(&key);
            if has_ended {
                sessions.states.insert(key, (String::new(), until));
                Self::tell(sessions, |theirs| theirs.starts_with(&all), &News::Ended(session.clone(), by));
            }
            has_ended
        }))
    }

    async fn confirmed(&self, process: ProcessId, session: &SessionId, ping: u128) -> Result<(), QueueError> {
        let channel = self.keys.news_for(process);
        let news = News::Confirmed(session.clone(), ping);
        self.with_sessions(|sessions, _| Self::tell(sessions, |theirs| theirs == channel, &news));
        Ok(())
    }

    fn listen(&self, process: ProcessId) -> NewsReceiver {
        let (sender, receiver) = news_channel();
        self.with_sessions(|sessions, _| sessions.listeners.push((self.keys.news_for(process), sender)));
        receiver
    }
}
