//! The fleet port: what the processes of a fleet remember of sessions, and tell each other.

use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

pub use self::channel::NewsReceiver;
pub(crate) use self::channel::{NewsSender, news_channel};
use crate::failure::QueueError;
use crate::principal::Principal;
use crate::session_id::SessionId;

mod channel;

/// What every backend does so that a session outlives the process that holds it. Contract clauses 14 and 15.
#[async_trait]
pub trait Fleet {
    /// Remembers what a session began with, for [`Config::session_time_to_live`](crate::Config::session_time_to_live).
    /// Returns whether the session is remembered: one that has ended is not remembered again.
    async fn remember(&self, session: &SessionId, state: &str) -> Result<bool, QueueError>;

    /// Returns what a session began with, if the backend remembers the session; its time begins anew.
    async fn recall(&self, session: &SessionId) -> Result<Option<String>, QueueError>;

    /// Begins the time of sessions that are in use anew. Returns what is known of each, in the order given.
    async fn keep(&self, sessions: &[SessionId]) -> Result<Vec<Remembered>, QueueError>;

    /// Returns what is known of each session, in the order given. Changes nothing.
    async fn look_up(&self, sessions: &[SessionId]) -> Result<Vec<Remembered>, QueueError>;

    /// Returns whether something is known of every one of these sessions. Much cheaper than [`look_up`](Self::look_up).
    async fn knows_all(&self, sessions: &[SessionId]) -> Result<bool, QueueError>;

    /// Ends a session for all, and tells all other processes. Nothing happens to a session that neither the backend nor
    /// the caller knows: it is not remembered as an ended one. Returns whether the session has ended.
    async fn forget(&self, session: &SessionId, by: ProcessId, is_known: bool) -> Result<bool, QueueError>;

    /// Tells another process that a client has answered one of its pings, by the nonce of that ping.
    async fn confirmed(&self, process: ProcessId, session: &SessionId, ping: u128) -> Result<(), QueueError>;

    /// Returns whether more than one process listens to the news of the fleet.
    async fn has_others(&self) -> Result<bool, QueueError>;

    /// Listens to what others tell this process from now on, until the receiver is dropped. News are lost while a
    /// connection is, and anybody who may publish can forge them: they save time, and nothing may depend on them alone.
    fn listen(&self, process: ProcessId) -> NewsReceiver;
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
    /// A client has answered the ping with this nonce.
    Confirmed(SessionId, u128),
    /// News may have been lost, and the backend may have lost what it knew: look everything up again. Nobody sends this;
    /// a receiver adds it after a lost connection and where more news came than it can hold.
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

    /// Largest number of bytes that [`encode`](Self::encode) makes: a word, an id in which each byte of the principal and of
    /// the session id takes three, and the id of a process or a number.
    pub(crate) const MAX_LEN: usize = 3 * (Principal::MAX_LEN + SessionId::MAX_LEN) + 64;

    /// Reads what [`encode`](Self::encode) made; `None` for anything else.
    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        // Before anything is read: whoever may publish can send messages of any size.
        if text.len() > Self::MAX_LEN {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
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
            if let Some(news) = News::decode(text.as_bytes()) {
                prop_assert_eq!(News::decode(news.encode().as_bytes()), Some(news));
            }
        }
    }

    #[test]
    fn news_are_what_they_were() {
        let session = SessionId::new("a b".replace(' ', ":")).unwrap().bound_to(Principal::new("x y").unwrap());
        for news in [News::Ended(session.clone(), ProcessId::new()), News::Confirmed(session, 7)] {
            assert_eq!(News::decode(news.encode().as_bytes()), Some(news));
        }
        for text in [
            "",
            "ended",
            "ended a b",
            "confirmed a",
            "confirmed a -1",
            "confirmed a 340282366920938463463374607431768211456",
            "confirmed a 1 2",
            "more a",
        ] {
            assert_eq!(News::decode(text.as_bytes()), None, "{text}");
        }
        let longest = SessionId::new(":".repeat(SessionId::MAX_LEN)).unwrap();
        let longest = longest.bound_to(Principal::new(":".repeat(Principal::MAX_LEN)).unwrap());
        for news in [News::Ended(longest.clone(), ProcessId::new()), News::Confirmed(longest, u128::MAX)] {
            assert!(news.encode().len() <= News::MAX_LEN);
            assert_eq!(News::decode(news.encode().as_bytes()), Some(news));
        }
        let process = ProcessId::new();
        assert_eq!(ProcessId::parse(&process.to_string()), Some(process));
    }
}
