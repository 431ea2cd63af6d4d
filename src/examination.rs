//! [`Check`]: judgement of one property of a Redis server, as [`Inspector::examine`](crate::Inspector::examine) returns
//! it. The judgements are pure: facts go in, checks come out.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

mod judge;

/// Judgement of one property of the server behind a queue: the property, the verdict, the fact and the advice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Check {
    /// Name of the property, such as `eviction` or `clock`. The names stay the same between versions of the crate.
    pub name: &'static str,
    /// Verdict on the property.
    pub verdict: Verdict,
    /// Fact that was found, in words.
    pub found: String,
    /// Way to mend the property; `None` where nothing is to be mended.
    pub advice: Option<String>,
}

/// Verdict of a [`Check`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Nothing is wrong.
    Good,
    /// The server did not let the property be read, as many hosted servers refuse `CONFIG` and `INFO`.
    Unknown,
    /// Deliveries work. They are slower than they could be, or notifications can be lost in a case that the check names.
    Warning,
    /// Notifications can be lost or refused, or deliveries do not work.
    Wrong,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        })
    }
}

impl Check {
    pub(crate) fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, found: found.into(), advice: None }
    }

    fn unknown(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Unknown, found: found.into(), advice: Some(advice.into()) }
    }

    fn warning(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    fn wrong(name: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Wrong, found: found.into(), advice: Some(advice.into()) }
    }
}

/// Facts about a Redis server, as it tells them.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Fields of `INFO`; `None` where the server refuses the command.
    pub(crate) info: Option<HashMap<String, String>>,
    /// Settings of `CONFIG GET`; `None` where the server refuses the command.
    pub(crate) settings: Option<HashMap<String, String>>,
    /// Round trips of one command each, in the order in which they were made.
    pub(crate) trips: Vec<Duration>,
    /// Time by which the server's clock is ahead of this host's, in microseconds. Half of a round trip is unknown.
    pub(crate) clock_ahead: i64,
    /// Refusal of a write that changes nothing; `None` where the write was done.
    pub(crate) write_refused: Option<String>,
    /// Refusal of client tracking; `None` where the server tracks.
    pub(crate) tracking_refused: Option<String>,
    /// Name of the user as whom the connection is authenticated; `None` where the server does not say.
    pub(crate) user: Option<String>,
    /// Commands that the user may not call; `None` where the server does not say, as before Redis 7.0.
    pub(crate) denied: Option<Denied>,
    /// Set where the connection knows the nodes of a cluster.
    pub(crate) is_cluster_url: bool,
}

/// Commands that a user may not call.
#[derive(Debug, Default)]
pub(crate) struct Denied {
    /// Commands that a worker needs.
    pub(crate) worker: Vec<String>,
    /// Commands that only a server needs.
    pub(crate) server: Vec<String>,
}

impl Facts {
    /// Judges all facts. Returns one check for each property, in the order of their names in the documentation.
    pub(crate) fn judge(&self) -> Vec<Check> {
        judge::all(self)
    }
}
