//! Fleet port: sessions that a fleet remembers, and news that its processes send each other.

use std::fmt;

use async_trait::async_trait;
use uuid::Uuid;

pub use self::channel::NewsReceiver;
pub(crate) use self::channel::{NewsSender, news_channel};
use super::SessionRecord;
use crate::failure::QueueError;
use crate::principal::Principal;
use crate::session_id::SessionId;

mod channel;

/// Operations by which a session outlives the process that holds it. Every backend has them: contract clauses 14 and
/// 15.
#[async_trait]
pub trait Fleet {
    /// Remembers the state with which a session began, for
    /// [`Config::session_time_to_live`](crate::Config::session_time_to_live). Returns whether the session is
    /// remembered: an ended session is not remembered again.
    async fn store_session(&self, session: &SessionId, state: &str) -> Result<bool, QueueError>;

    /// Returns the state with which a session began, if the backend remembers the session. Its time to live begins
    /// anew.
    async fn load_session(&self, session: &SessionId) -> Result<Option<String>, QueueError>;

    /// Begins the time to live of sessions that are in use anew. Returns the knowledge about each, in the order given.
    async fn refresh_sessions(&self, sessions: &[SessionId]) -> Result<Vec<SessionRecord>, QueueError>;

    /// Returns the knowledge about each session, in the order given. Changes nothing.
    async fn look_up_sessions(&self, sessions: &[SessionId]) -> Result<Vec<SessionRecord>, QueueError>;

    /// Returns whether the backend knows of every one of these sessions. Much cheaper than
    /// [`look_up_sessions`](Self::look_up_sessions).
    async fn knows_all(&self, sessions: &[SessionId]) -> Result<bool, QueueError>;

    /// Ends a session for all, and announces the end to all other processes. Returns whether the session has ended.
    /// Does nothing to a session that neither the backend nor the caller knows, and does not remember such a session as
    /// ended.
    async fn end_session(&self, session: &SessionId, by: ProcessId, is_known: bool) -> Result<bool, QueueError>;

    /// Announces to another process that a client has answered one of its pings. The nonce names the ping.
    async fn announce_confirmation(
        &self,
        process: ProcessId,
        session: &SessionId,
        ping: u128,
    ) -> Result<(), QueueError>;

    /// Returns whether more than one process listens to the news of the fleet.
    async fn has_others(&self) -> Result<bool, QueueError>;

    /// Listens to the news for this process from now on, until the receiver is dropped.
    ///
    /// News are lost while a connection is lost, and anyone who may publish can forge them. They save time, and nothing
    /// may depend on them alone.
    fn listen(&self, process: ProcessId) -> NewsReceiver;
}

/// Message from one process to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// This session has ended, as this process announces.
    Ended(SessionId, ProcessId),
    /// A client has answered the ping with this nonce.
    Confirmed(SessionId, u128),
    /// News may have been lost, and the backend may have lost its knowledge: look everything up again. Nobody sends
    /// this value. A receiver adds it after a lost connection, and where more news came than the receiver can hold.
    Missed,
}

/// Identity of one process of a fleet, by which the others address it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProcessId(Uuid);

impl ProcessId {
    /// Makes an id that no process has had.
    #[allow(clippy::new_without_default)] // a default that differs each time would surprise
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Reads an id from the text that `Display` wrote; `None` where the text is no id.
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
    /// Returns the text of the news as it goes through Redis.
    pub(crate) fn encode(&self) -> String {
        match self {
            Self::Ended(session, by) => format!("ended {session} {by}"),
            Self::Confirmed(session, ping) => format!("confirmed {session} {ping}"),
            // This news is never sent, so no receiver reads it.
            Self::Missed => "again".to_owned(),
        }
    }

    /// Largest number of bytes that [`encode`](Self::encode) makes. Escaped, each byte of the principal and of the
    /// session id takes three. A word, and the id of a process or a number, stand beside them.
    pub(crate) const MAX_LEN: usize = 3 * (Principal::MAX_LEN + SessionId::MAX_LEN) + 64;

    /// Reads what [`encode`](Self::encode) made; `None` for anything else.
    pub(crate) fn decode(text: &[u8]) -> Option<Self> {
        // The length is checked before anything is read: anyone who may publish can send messages of any size.
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
