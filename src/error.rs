//! Every error of the crate. Each says what was wrong and, where a caller can do something, what.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use thiserror::Error;

use crate::notification::Notification;
use crate::principal::Principal;
use crate::session_id::SessionId;

/// A boxed cause, so that no foreign error type stands in a public signature.
pub type Cause = Box<dyn StdError + Send + Sync + 'static>;

/// Rejection of a string that is no session id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidSessionId {
    /// It has no characters.
    #[error("a session id must have 1 to {max} characters, and this one is empty", max = SessionId::MAX_LEN)]
    Empty,
    /// It has more than [`SessionId::MAX_LEN`] characters.
    #[error("a session id must have 1 to {max} characters, and this one has {length}", max = SessionId::MAX_LEN)]
    TooLong {
        /// How many it has.
        length: usize,
    },
    /// It has a character outside visible ASCII.
    #[error(
        "a session id may contain visible ASCII characters (0x21 to 0x7E) only, and this one has {character:?} at {position}"
    )]
    Character {
        /// The first such character.
        character: char,
        /// Where it stands, counted in characters from 0.
        position: usize,
    },
    /// The principal before the colon is none.
    #[error(transparent)]
    Principal(#[from] InvalidPrincipal),
    /// The text is not as `Display` of [`SessionId`] writes a session id.
    #[error(
        "a session id must be percent-encoded outside A-Za-z0-9._~-, as Display writes it; \
         the value of the header Mcp-Session-Id is read by SessionId::new"
    )]
    NotEncoded,
}

/// A string cannot name a principal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidPrincipal {
    /// It has no characters.
    #[error("a principal must have 1 to {max} bytes, and this one is empty", max = Principal::MAX_LEN)]
    Empty,
    /// It has more than [`Principal::MAX_LEN`] bytes.
    #[error("a principal must have 1 to {max} bytes, and this one has {length}", max = Principal::MAX_LEN)]
    TooLong {
        /// How many it has.
        length: usize,
    },
    /// It has a control character.
    #[error("a principal must have no control characters, and this one has {character:?} at {position}")]
    Character {
        /// The first such character.
        character: char,
        /// Where it stands, counted in characters from 0.
        position: usize,
    },
}

/// What was given is no MCP notification.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidNotification {
    /// The method is not one of a notification.
    #[error(
        "the method of a notification must begin with \"notifications/\" and name one, and this one is {:?}",
        shown(method)
    )]
    Method {
        /// What was given.
        method: String,
    },
    /// `params` is neither an object nor absent.
    #[error("the params of a notification must be a JSON object, and these are {found}")]
    Params {
        /// Which kind of JSON was given.
        found: &'static str,
    },
    /// `_meta` is neither an object nor absent.
    #[error("the _meta of a notification must be a JSON object, and this one is {found}")]
    Meta {
        /// Which kind of JSON was given.
        found: &'static str,
    },
    /// The text given for `params` or `_meta` is no JSON.
    #[error("the {field} of a notification must be a JSON object, and the text given is none: {why}")]
    Json {
        /// Name of the field, `params` or `_meta`.
        field: &'static str,
        /// Reason, with its place in the text.
        why: String,
    },
    /// A number that JSON cannot hold.
    #[error("{field} must be a finite number")]
    NotFinite {
        /// Which field.
        field: &'static str,
    },
    /// The time to live is out of range.
    #[error("the time to live of a notification must be 1 ms to 365 days, and this one is {given:?}")]
    TimeToLive {
        /// What was given.
        given: Duration,
    },
}

/// The beginning of a text that may be of any length.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}

/// What was given is no question that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum InvalidQuestion {
    /// The id or the scope of a task cannot be used.
    #[error(
        "the {what} of a task must have 1 to {max} bytes and no control characters, and this one has {length} bytes",
        max = crate::question::TaskKey::MAX_LEN
    )]
    Task {
        /// `id` or `scope`.
        what: &'static str,
        /// How long it is.
        length: usize,
    },
    /// The schema is none that MCP allows for a form.
    #[error("the requested schema must be of an object with primitive properties, and {why}")]
    Schema {
        /// What is wrong with it.
        why: String,
    },
    /// The time to wait for an answer is out of range.
    #[error("the timeout of a question must be 1 ms to 365 days, and this one is {given:?}")]
    Timeout {
        /// What was given.
        given: Duration,
    },
}

/// A question could not be asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ElicitError {
    /// It is none that can be asked.
    #[error(transparent)]
    Invalid(#[from] InvalidQuestion),
    /// The notification that carries it was refused.
    #[error(transparent)]
    Push(#[from] PushError),
    /// The queue failed.
    #[error(transparent)]
    Backend(#[from] QueueError),
}

/// A session could not ask its client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AskError {
    /// It never can: the client lacks the capability or the mode, or refused. The worker is told at once.
    #[error("{0}")]
    Impossible(String),
    /// Not now: the client went away before it answered. It is asked again when it is back.
    #[error("the client is away: {0}")]
    NotReady(String),
}

/// A setting, or a combination of settings, is not possible.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} is {value}, but {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// The name of the setting.
    pub field: &'static str,
    /// What it was set to.
    pub value: String,
    /// What is allowed.
    pub rule: String,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, value: impl ToString, rule: impl ToString) -> Self {
        Self { field, value: value.to_string(), rule: rule.to_string() }
    }
}

/// A notification was not, or perhaps not, queued. It comes back to the caller in here.
#[derive(Debug)]
#[non_exhaustive]
pub struct PushError {
    /// For whom it was.
    pub session: SessionId,
    /// The notification. It carries its id now: pushing it again repeats the same notification, which the subscriber
    /// recognises, and does not make a second one.
    pub notification: Box<Notification>,
    /// Why.
    pub reason: PushRefusal,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pushing to session {:?}: {}", self.session, self.reason)
    }
}

impl StdError for PushError {
    /// The cause of the reason: the reason itself stands in the text already.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.reason.source()
    }
}

/// Why a notification was not queued.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PushRefusal {
    /// It is larger than [`Config::message_max_bytes`](crate::Config::message_max_bytes). Not queued.
    #[error("the message has {bytes} bytes, and at most {limit} are allowed")]
    TooLarge {
        /// Its size on the wire.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The queue of the session has reached one of its bounds. Not queued.
    #[error("the queue is full: it may hold {0}")]
    QueueFull(QueueLimit),
    /// The session is held by a FastMCP server ([`Config::fastmcp_servers`](crate::Config::fastmcp_servers)), which would
    /// drop it. Not queued.
    #[error(
        "a FastMCP server takes notifications/tasks/status with taskId, status, createdAt, lastUpdatedAt and ttl only, and {why}"
    )]
    NotForFastMcp {
        /// What is not so.
        why: String,
    },
    /// Its params or its `_meta` are nested deeper than this: it could not be read from the queue. Not queued.
    #[error("the message is nested deeper than {limit} levels")]
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// The `taskId` of its task status is longer than [`TaskKey::MAX_LEN`](crate::TaskKey::MAX_LEN). Not queued.
    #[error("the taskId has {bytes} bytes, and at most {limit} are allowed")]
    TaskIdTooLong {
        /// Length of the id, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// An earlier notification of the same call to the same session was refused, and order comes first. Not queued.
    #[error("an earlier notification to the same session was refused")]
    AfterRefused,
    /// The queue could not be reached. Not queued.
    #[error("the queue cannot be reached")]
    Unreachable(#[source] Cause),
    /// The connection broke or the answer took too long: it may or may not have been queued.
    #[error("no answer from the queue: the notification may have been queued")]
    Uncertain(#[source] Cause),
    /// Redis refused (out of memory, wrong type, no permission, a read-only replica). Not queued.
    #[error("the queue refused: {0}")]
    Refused(String),
}

impl PushRefusal {
    /// Whether the notification may be in the queue all the same.
    pub fn may_have_been_queued(&self) -> bool {
        matches!(self, Self::Uncertain(_))
    }
}

/// Which bound a queue has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueLimit {
    /// [`Config::queue_max_messages`](crate::Config::queue_max_messages).
    Messages(usize),
    /// [`Config::queue_max_bytes`](crate::Config::queue_max_bytes).
    Bytes(usize),
}

impl fmt::Display for QueueLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages(limit) => write!(f, "{limit} messages"),
            Self::Bytes(limit) => write!(f, "{limit} bytes"),
        }
    }
}

/// An operation on the queue failed.
#[derive(Debug)]
#[non_exhaustive]
pub struct QueueError {
    /// What was tried, with a short prefix of the session id where there is one.
    pub operation: String,
    /// What went wrong.
    pub kind: QueueErrorKind,
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.kind)
    }
}

impl StdError for QueueError {
    /// The cause of the kind: the kind itself stands in the text already.
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.kind.source()
    }
}

impl QueueError {
    pub(crate) fn new(operation: impl Into<String>, kind: QueueErrorKind) -> Self {
        Self { operation: operation.into(), kind }
    }
}

/// What went wrong in a [`QueueError`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum QueueErrorKind {
    /// No connection could be made.
    #[error("the queue cannot be reached")]
    Unreachable(#[source] Cause),
    /// The connection broke, or no answer came in time.
    #[error("the connection to the queue broke")]
    Broken(#[source] Cause),
    /// Redis answered with an error.
    #[error("the queue refused: {0}")]
    Refused(String),
}

/// [`Courier::start`](crate::Courier::start) failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL cannot be used.
    #[error("the queue's URL: {0}")]
    Url(ConfigError),
    /// The queue did not answer, or refused.
    #[error(transparent)]
    Backend(#[from] QueueError),
}

/// [`EnsureSubscriber`](crate::actors::EnsureSubscriber) was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnsureError {
    /// Every subscriber has an arbiter of its own, and there are as many as
    /// [`Config::dedicated_limit`](crate::Config::dedicated_limit) allows.
    #[error("{limit} subscribers run, and dedicated_limit allows no more in this process")]
    LimitReached {
        /// The limit.
        limit: usize,
    },
    /// The process can have no further thread or descriptor for it; the text is the system's.
    #[error("no arbiter can be started for it: {0}")]
    NoArbiter(String),
    /// The supervisor is shutting down and starts nothing new.
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// The supervisor is gone.
    #[error("the supervisor is gone")]
    Gone,
}

/// A session did not take a notification. The variant says what to do next; the subscriber does it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandOverError {
    /// The session is over. What is queued stays queued; the subscriber stops.
    #[error("the session is over")]
    Closed,
    /// The session cannot take anything now. What is queued stays queued and is offered again when
    /// [`Presence`](crate::session::Presence) says that the session is ready. This is no failed attempt.
    #[error("the session is not ready: {0}")]
    NotReady(String),
    /// This attempt failed, and another may succeed. It counts against
    /// [`Config::max_attempts`](crate::Config::max_attempts).
    #[error("the attempt failed: {0}")]
    Transient(String),
    /// The session will never take this notification: it is discarded at once, and the next one follows.
    #[error("the session rejected it: {0}")]
    Rejected(String),
}
