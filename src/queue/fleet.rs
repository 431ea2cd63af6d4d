//! The fleet port: what the processes of a fleet remember of sessions, and tell each other.

use std::fmt;

use tokio::sync::mpsc;
use uuid::Uuid;

use super::BoxFuture;
use crate::error::QueueError;
use crate::session_id::SessionId;

/// What every backend does so that a session outlives the process that holds it. Contract clauses 14 and 15.
pub trait Fleet {
    /// Remembers what a session began with, for [`Config::session_time_to_live`](crate::Config::session_time_to_live).
    /// Whether it could: a session that has ended is not remembered again.
    fn remember<'a>(&'a self, session: &'a SessionId, state: &'a str) -> BoxFuture<'a, Result<bool, QueueError>>;

    /// What a session began with, if it is remembered; its time begins anew.
    fn recall<'a>(&'a self, session: &'a SessionId) -> BoxFuture<'a, Result<Option<String>, QueueError>>;

    /// Sessions are still in use: their time begins anew. What is known of each, in the order given.
    fn keep<'a>(&'a self, sessions: &'a [SessionId]) -> BoxFuture<'a, Result<Vec<Remembered>, QueueError>>;

    /// A session has ended, for all. All other processes are told so.
    fn forget<'a>(&'a self, session: &'a SessionId, by: ProcessId) -> BoxFuture<'a, Result<(), QueueError>>;

    /// Tells another process that a client has answered one of its pings.
    fn confirmed<'a>(
        &'a self,
        process: ProcessId,
        session: &'a SessionId,
        ping: u64,
    ) -> BoxFuture<'a, Result<(), QueueError>>;

    /// What others tell this process from now on, for as long as anybody listens. While a connection is lost, so is what
    /// would come over it: it saves time, and nothing may depend on it alone.
    fn listen(&self, process: ProcessId) -> mpsc::UnboundedReceiver<News>;
}

/// What is known of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remembered {
    /// What it began with.
    Known,
    /// Nothing: its time has passed, or the queue lost it.
    Unknown,
    /// That it has ended.
    Ended,
}

/// What one process tells others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A session has ended, as this process knows.
    Ended(SessionId, ProcessId),
    /// A client has answered a ping of yours.
    Confirmed(SessionId, u64),
    /// Of the backend itself, and by nobody: there may have been news that were lost, and the backend may have lost what
    /// it knew.
    Again,
}

/// One process of a fleet, as the others address it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId(Uuid);

impl ProcessId {
    /// An id that no process has had.
    #[allow(clippy::new_without_default)] // a default that differs each time would surprise
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// What it was written as.
    pub fn parse(text: &str) -> Option<Self> {
        Uuid::try_parse(text).ok().map(Self)
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

impl News {
    /// As it goes through Redis.
    pub(crate) fn encode(&self) -> String {
        match self {
            Self::Ended(session, by) => format!("ended {session} {by}"),
            Self::Confirmed(session, ping) => format!("confirmed {session} {ping}"),
            // Never sent, and read by nobody.
            Self::Again => "again".to_owned(),
        }
    }

    /// The other way; `None` for what is no news.
    pub(crate) fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (what, session) = (words.next()?, words.next()?.parse().ok()?);
        match (what, words.next(), words.next()) {
            ("ended", Some(by), None) => Some(Self::Ended(session, ProcessId::parse(by)?)),
            ("confirmed", Some(ping), None) => Some(Self::Confirmed(session, ping.parse().ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::principal::Principal;

    proptest! {
        #[test]
        fn no_text_makes_the_reader_of_news_panic(text in ".*|(ended|confirmed) [a-z%:]{1,9} [0-9a-f-]{0,40}( .*)?") {
            if let Some(news) = News::decode(&text) {
                prop_assert_eq!(News::decode(&news.encode()), Some(news));
            }
        }
    }

    #[test]
    fn news_are_what_they_were() {
        let session = SessionId::new("a b".replace(' ', ":")).unwrap().bound_to(Principal::new("x y").unwrap());
        for news in [News::Ended(session.clone(), ProcessId::new()), News::Confirmed(session, 7)] {
            assert_eq!(News::decode(&news.encode()), Some(news));
        }
        for text in ["", "ended", "ended a b", "confirmed a", "confirmed a -1", "confirmed a 1 2", "more a"] {
            assert_eq!(News::decode(text), None, "{text}");
        }
        let process = ProcessId::new();
        assert_eq!(ProcessId::parse(&process.to_string()), Some(process));
    }
}
