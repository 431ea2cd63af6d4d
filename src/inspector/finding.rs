//! [`Finding`]: one answer to the question why a session gets nothing.

use serde::Serialize;

/// Reason why a session gets nothing, or a fact about its delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// Kind of the finding, for programs.
    pub code: FindingCode,
    /// Weight of the finding.
    pub severity: Severity,
    /// Finding as a sentence. The text has neither a whole session id nor a user's name.
    pub text: String,
    /// Next step for the operator.
    pub advice: String,
}

impl Finding {
    pub(super) fn new(code: FindingCode, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { code, severity: code.severity(), text: text.into(), advice: advice.into() }
    }
}

/// Weight of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Severity {
    /// Nothing is wrong.
    Info,
    /// Something may be wrong, or mends itself.
    Warning,
    /// Nothing is delivered until somebody acts.
    Error,
}

/// Kind of a finding. The order is the order in which [`Inspector::explain`](crate::Inspector::explain) returns
/// findings: the first explains most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingCode {
    /// A key of the session holds a type that is not this crate's, so that every delivery fails.
    WrongType,
    /// The session has ended. Nothing more is delivered to it.
    Ended,
    /// The owner's renewal is overdue: its process is dead, stuck, or cut off from Redis.
    LeaseNotRenewed,
    /// The client is back, and its server has no free place for a subscriber.
    WaitsForPlace,
    /// The owner pauses after a failure, and then tries again.
    OwnerBacksOff,
    /// Another session with the same id exists under another user. One of both ids is wrong.
    WrongPrincipal,
    /// FastMCP servers hold the sessions. They take without a lease, and remember no sessions.
    FastMcpServer,
    /// A notification left the queue without an outcome: another program took it, or the queue was deleted.
    TakenWithoutLease,
    /// A session with this id exists under another prefix.
    OtherPrefix,
    /// No server and no session store knows the session.
    UnknownSession,
    /// The session is known, and no server owns its queue: its client has no open stream.
    ClientAway,
    /// The oldest message cannot be decoded. The owner discards it.
    Undecodable,
    /// Attempts to deliver the oldest message have failed.
    AttemptsFail,
    /// The oldest message has expired.
    OldestExpired,
    /// The queue is full, so that pushes are refused.
    QueueFull,
    /// A server stands by for the session, because another owns the queue.
    OwnerStandsBy,
    /// The newest notification with a known outcome was discarded.
    Discarded,
    /// Messages are queued, and a server that owns the queue is delivering them.
    Delivering,
    /// The queue is empty, and the newest receipt says that the notification was delivered.
    AllDelivered,
    /// The queue is empty, and no receipt or dead letter says why.
    QueueEmpty,
    /// The server of this session has noted an error before, and works again.
    EarlierError,
    /// Not all keys of Redis were looked at, as there are too many. A finding may be missing.
    Partial,
}

impl FindingCode {
    fn severity(self) -> Severity {
        match self {
            Self::WrongType
            | Self::Ended
            | Self::WaitsForPlace
            | Self::WrongPrincipal
            | Self::TakenWithoutLease
            | Self::OtherPrefix
            | Self::UnknownSession
            | Self::QueueFull => Severity::Error,
            Self::LeaseNotRenewed
            | Self::OwnerBacksOff
            | Self::Undecodable
            | Self::AttemptsFail
            | Self::FastMcpServer
            | Self::ClientAway
            | Self::OldestExpired
            | Self::OwnerStandsBy
            | Self::Discarded
            | Self::EarlierError => Severity::Warning,
            Self::Delivering | Self::AllDelivered | Self::QueueEmpty | Self::Partial => Severity::Info,
        }
    }
}
