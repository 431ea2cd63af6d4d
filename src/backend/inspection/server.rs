//! [`ServerRecord`]: what a server process says about itself, once a heartbeat.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

#[cfg(feature = "server")]
use crate::envelope::shortened_to;
use crate::session_id::SessionId;
use crate::timestamp::serial;

/// Number of a server process, which its leases contain. Twelve hexadecimal digits as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(u64);

impl ServerId {
    /// Number of bits of the number.
    const BITS: u32 = 48;

    /// Makes a number that no process has had, as far as 48 random bits can tell.
    #[cfg(feature = "server")]
    pub(crate) fn new() -> Self {
        let (high, _) = Uuid::new_v4().as_u64_pair();
        Self(high >> (64 - Self::BITS))
    }

    /// Makes a token that no owner has had: this number, and 74 random bits.
    #[cfg(feature = "server")]
    pub(crate) fn token(self) -> Uuid {
        let mut bytes = *Uuid::new_v4().as_bytes();
        bytes[..6].copy_from_slice(&self.0.to_be_bytes()[2..]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Returns the number in a token; `None` for a token that has none, as those of earlier versions.
    pub(crate) fn of_token(token: Uuid) -> Option<Self> {
        (token.get_version_num() == 8).then(|| Self(token.as_u64_pair().0 >> (64 - Self::BITS)))
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

impl FromStr for ServerId {
    type Err = std::num::ParseIntError;

    /// Reads the text that `Display` writes.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(|number| Self(number & ((1 << Self::BITS) - 1)))
    }
}

impl Serialize for ServerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ServerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Record of a server process. Each process writes its record once a [heartbeat](crate::Config::heartbeat), so the
/// content is up to a heartbeat old. The record of a process that died is gone after two heartbeats.
///
/// A process that runs several [`Courier`](crate::Courier)s has a record of each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerRecord {
    /// Number of the process in the fleet.
    pub id: ServerId,
    /// Name of the host; empty where the process cannot read it.
    pub host: String,
    /// Number of the process on its host.
    pub pid: u32,
    /// Version of this crate.
    pub version: String,
    /// Time at which the process connected to the queue, by its host's clock.
    #[serde(with = "serial::moment")]
    pub started: SystemTime,
    /// Time between two records, in seconds as JSON.
    #[serde(with = "serial::seconds", rename = "heartbeat_seconds")]
    pub heartbeat: Duration,
    /// Age of the record at its reading, in seconds as JSON.
    #[serde(with = "serial::seconds", rename = "age_seconds", default)]
    pub age: Duration,
    /// Number of subscribers by their states.
    pub subscribers: SubscriberCounts,
    /// Number of notifications that were delivered and confirmed since `started`. Zero from servers that do not count.
    #[serde(default)]
    pub delivered: u64,
    /// Number of notifications that were discarded since `started`, for any reason. Zero from servers that do not count.
    #[serde(default)]
    pub discarded: u64,
    /// Sessions in trouble, the worst and newest first: at most [`ServerRecord::TROUBLES_MAX`].
    pub troubles: Vec<SessionTrouble>,
}

/// Number of subscribers of one process, by their states. The states are those of
/// [`SubscriberState`](crate::SubscriberState).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct SubscriberCounts {
    /// Subscribers that open a connection, or claim their lease.
    pub connecting: usize,
    /// Subscribers that read, acknowledge or renew.
    pub reading: usize,
    /// Subscribers whose queues are empty.
    pub waiting: usize,
    /// Subscribers that deliver, or await a confirmation.
    pub delivering: usize,
    /// Subscribers that write a failed attempt.
    pub rewriting: usize,
    /// Subscribers that pause after a failure.
    pub backing_off: usize,
    /// Subscribers whose sessions another process has taken over.
    pub standing_by: usize,
    /// Subscribers whose clients have no open stream.
    pub parked: usize,
    /// Subscribers that end.
    pub stopping: usize,
}

impl SubscriberCounts {
    /// Returns the number of all subscribers.
    pub fn total(&self) -> usize {
        let Self { connecting, reading, waiting, delivering, rewriting, backing_off, standing_by, parked, stopping } =
            self;
        connecting + reading + waiting + delivering + rewriting + backing_off + standing_by + parked + stopping
    }
}

/// Session whose subscriber is in trouble, in the record of its process. The record does not contain the session's id,
/// which is a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SessionTrouble {
    /// First characters of the session's id, as its `Debug` shows them.
    pub session: String,
    /// Hash of the session's id and principal, which recognises the session for those who know both.
    pub digest: String,
    /// Kind of the trouble.
    pub state: TroubleState,
    /// Newest error, cut to [`ServerRecord::ERROR_MAX`] bytes; `None` where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Time of the newest error, by the clock of the process's host.
    #[serde(with = "serial::optional_moment", default, skip_serializing_if = "Option::is_none")]
    pub at: Option<SystemTime>,
}

/// Kind of a session's trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TroubleState {
    /// The client is back, and the process has no free place for its subscriber
    /// ([`Config::dedicated_limit`](crate::Config::dedicated_limit),
    /// [`Config::shared_limit`](crate::Config::shared_limit)).
    WaitsForPlace,
    /// The subscriber pauses after a failure, and then tries again.
    BackingOff,
    /// Another process has taken the session over, and the subscriber here stands by.
    StandingBy,
    /// The subscriber works again after the error.
    #[serde(other)]
    Past,
}

impl SessionTrouble {
    /// Makes the entry of a session.
    #[cfg(feature = "server")]
    pub(crate) fn new(session: &SessionId, state: TroubleState, error: Option<(String, SystemTime)>) -> Self {
        let (error, at) = error.unzip();
        let error = error.map(|error: String| shortened_to(ServerRecord::ERROR_MAX, &error).to_owned());
        Self { session: format!("{session:?}"), digest: Self::digest_of(session), state, error, at }
    }

    /// Returns the hash by which an entry names a session.
    fn digest_of(session: &SessionId) -> String {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, session.to_string().as_bytes()).as_simple().to_string()
    }

    /// Returns whether the entry is about this session.
    pub fn is_of(&self, session: &SessionId) -> bool {
        self.digest == Self::digest_of(session)
    }
}

impl ServerRecord {
    /// Largest number of sessions that one record lists.
    pub const TROUBLES_MAX: usize = 12;

    /// Largest number of bytes of an error in a record.
    pub const ERROR_MAX: usize = 160;

    /// Makes the record of this process, as it is now.
    #[cfg(feature = "server")]
    pub(crate) fn new(
        id: ServerId,
        started: SystemTime,
        heartbeat: Duration,
        subscribers: SubscriberCounts,
        troubles: Vec<SessionTrouble>,
    ) -> Self {
        Self {
            id,
            host: host(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            heartbeat,
            age: Duration::ZERO,
            subscribers,
            delivered: 0,
            discarded: 0,
            troubles,
        }
    }

    /// Largest number of bytes that a reader takes for a record. A larger record is of another program.
    pub(crate) const READ_MAX: usize = 64 * 1024;

    /// Returns the record as it is kept.
    #[cfg(feature = "server")]
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Nothing in a record is something that JSON cannot hold.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a record that was written so long ago; `None` for anything else.
    pub(crate) fn decode(text: &[u8], rest: Duration) -> Option<Self> {
        let record: Self = serde_json::from_slice(text).ok()?;
        let age = record.life().saturating_sub(rest);
        Some(Self { age, ..record })
    }

    /// Returns the time for which a record is kept.
    pub(crate) fn life(&self) -> Duration {
        self.heartbeat.saturating_mul(2)
    }
}

/// Returns the name of this host as Linux says it, or else the environment: at most 255 bytes, and empty where neither
/// does.
#[cfg(feature = "server")]
fn host() -> String {
    let of_linux = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = of_linux.or_else(|| ["HOSTNAME", "COMPUTERNAME"].iter().find_map(|name| std::env::var(name).ok()));
    shortened_to(255, host.unwrap_or_default().trim()).to_owned()
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::*;
    use crate::principal::Principal;

    #[test]
    fn a_token_names_its_server_and_tokens_of_earlier_versions_name_none() {
        let server = ServerId::new();
        let tokens = [server.token(), server.token()];
        assert_ne!(tokens[0], tokens[1]);
        for token in tokens {
            assert_eq!(ServerId::of_token(token), Some(server));
            assert_eq!(Uuid::try_parse(&token.as_simple().to_string()), Ok(token));
        }
        assert_eq!(server.to_string().parse(), Ok(server));
        assert_eq!(server.to_string().len(), 12);
        assert_eq!(ServerId::of_token(Uuid::now_v7()), None);
    }

    #[test]
    fn a_record_is_bounded_and_names_no_session() {
        let session = SessionId::new("0123456789".repeat(25)).unwrap();
        let session = session.bound_to(Principal::new("alice".repeat(100)).unwrap());
        let trouble = || {
            let error = ("é".repeat(10_000), SystemTime::UNIX_EPOCH);
            SessionTrouble::new(&session, TroubleState::BackingOff, Some(error))
        };
        let troubles: Vec<_> = (0..ServerRecord::TROUBLES_MAX).map(|_| trouble()).collect();
        let counts = SubscriberCounts { backing_off: 12, ..SubscriberCounts::default() };
        let heartbeat = Duration::from_secs(30);
        let record = ServerRecord::new(ServerId::new(), SystemTime::UNIX_EPOCH, heartbeat, counts, troubles);
        let text = record.encode();
        assert!(text.len() < 6 * 1024, "{}", text.len());
        let shown = String::from_utf8_lossy(&text);
        assert!(!shown.contains("0123456789") && !shown.contains("alice"), "{shown}");
        let age = Duration::from_secs(10);
        let read = ServerRecord::decode(&text, record.life() - age).unwrap();
        assert_eq!(read, ServerRecord { age, ..record });
        assert!(read.troubles[0].is_of(&session) && !read.troubles[0].is_of(&SessionId::new("s").unwrap()));
    }

    #[test]
    fn a_record_of_a_later_version_is_read_and_any_other_text_is_not() {
        let record = ServerRecord::new(
            ServerId::new(),
            SystemTime::UNIX_EPOCH,
            Duration::from_secs(1),
            SubscriberCounts::default(),
            vec![SessionTrouble::new(&SessionId::new("s").unwrap(), TroubleState::Past, None)],
        );
        let text = String::from_utf8(record.encode()).unwrap();
        let later = text.replace("\"past\"", "\"on_fire\"").replacen('{', "{\"more\":[1],", 1);
        assert_ne!(later, text);
        assert_eq!(ServerRecord::decode(later.as_bytes(), record.life()).unwrap(), record);
        for text in ["", "{}", "null", &text[..text.len() - 1]] {
            assert_eq!(ServerRecord::decode(text.as_bytes(), Duration::ZERO), None, "{text}");
        }
    }
}
