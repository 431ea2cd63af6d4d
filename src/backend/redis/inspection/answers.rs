//! Answers to the reads of an inspection.

use std::time::Duration;

use redis::{FromRedisValue, Value};
use uuid::Uuid;

use crate::backend::redis::link::{Answer, read};
use crate::backend::{LeaseFacts, ServerId, SessionFacts, SessionRecord};
use crate::envelope::Timestamp;
use crate::failure::QueueErrorKind;
use crate::keys::SessionKeyKind;
use crate::session_id::SessionId;

/// Answers to reads, in their order. A key that holds another type is noted, and does not hide the others.
pub(super) struct Answers {
    answers: std::vec::IntoIter<Answer>,
    wrong_types: Vec<&'static str>,
}

impl Answers {
    pub(super) fn new(answers: Vec<Answer>) -> Self {
        Self { answers: answers.into_iter(), wrong_types: Vec::new() }
    }

    /// Reads the next answer. Returns `None` where the key of this use holds another type.
    pub(super) fn next<T: FromRedisValue>(&mut self, of: &'static str) -> Result<Option<T>, QueueErrorKind> {
        match self.required() {
            Ok(answer) => Ok(Some(answer)),
            Err(QueueErrorKind::Refused(why)) if why.starts_with("WRONGTYPE") => {
                self.wrong_types.push(of);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the next answer, which must be of this type.
    pub(super) fn required<T: FromRedisValue>(&mut self) -> Result<T, QueueErrorKind> {
        self.answers.next().unwrap_or(Ok(Value::Nil)).and_then(read)
    }

    /// Reads the next answer; `None` where it is an error or of another type, or where there is none.
    pub(super) fn optional<T: FromRedisValue>(&mut self) -> Option<T> {
        self.answers.next()?.and_then(read).ok()
    }

    /// Reads the answer to `TIME`.
    pub(super) fn time(&mut self) -> Result<Timestamp, QueueErrorKind> {
        let (seconds, micros): (i64, i64) = self.required()?;
        Ok(Timestamp(seconds.saturating_mul(1_000_000).saturating_add(micros)))
    }

    /// Reads the rest of a key's life; `None` where the key is not there, or has no end.
    pub(super) fn rest(&mut self) -> Result<Option<Duration>, QueueErrorKind> {
        let rest: i64 = self.required()?;
        Ok(u64::try_from(rest).ok().map(Duration::from_millis))
    }

    /// Returns the uses of the keys that held another type since the last call, each once.
    pub(super) fn wrong_types(&mut self) -> Vec<&'static str> {
        let mut wrong = std::mem::take(&mut self.wrong_types);
        wrong.dedup();
        wrong
    }

    /// Reads the facts about a session from the answers to `add_facts`.
    pub(super) fn facts(&mut self, session: &SessionId) -> Result<SessionFacts, QueueErrorKind> {
        let exists: i64 = self.required()?;
        let length: Option<i64> = self.next("stored session")?;
        let record = match (exists, length) {
            (0, _) => SessionRecord::Unknown,
            // The mark of a session that has ended is empty.
            (_, Some(0)) => SessionRecord::Ended,
            _ => SessionRecord::Known,
        };
        let depth: Option<usize> = self.next("queue")?;
        let lease: Option<Option<Vec<u8>>> = self.next("lease")?;
        let rest = self.rest()?;
        let dead_letters: Option<usize> = self.next("dead letters")?;
        Ok(SessionFacts {
            session: session.clone(),
            record,
            depth: depth.unwrap_or_default(),
            lease: lease.flatten().map(|lease| lease_facts(&lease, rest)),
            dead_letters: dead_letters.unwrap_or_default(),
            wrong_types: self.wrong_types(),
        })
    }
}

/// Reads the value of a lease: the owner's token, and the life in ms that its owner gives.
fn lease_facts(lease: &[u8], rest: Option<Duration>) -> LeaseFacts {
    let text = std::str::from_utf8(lease).unwrap_or_default();
    let (token, life) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.unwrap_or_default();
    let life = life.parse().map_or(rest, Duration::from_millis);
    // A longer rest shows that the clock of Redis's host was set back.
    LeaseFacts { server: Uuid::try_parse(token).ok().and_then(ServerId::of_token), rest: rest.min(life), life }
}

/// Returns the first of the keys that a session has, in the order in which a list prefers them.
pub(super) fn first_kind(facts: &SessionFacts) -> Option<SessionKeyKind> {
    let has = |use_: &str| facts.wrong_types.contains(&use_);
    if facts.record != SessionRecord::Unknown {
        Some(SessionKeyKind::Stored)
    } else if facts.depth > 0 || has("queue") {
        Some(SessionKeyKind::Queue)
    } else if facts.lease.is_some() || has("lease") {
        Some(SessionKeyKind::Lease)
    } else if facts.dead_letters > 0 || has("dead letters") {
        Some(SessionKeyKind::DeadLetters)
    } else {
        None
    }
}
