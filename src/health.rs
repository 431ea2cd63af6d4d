//! [`HealthReport`]: answer to the probes of an orchestrator, and [`Room`]: the part of a process that may be full.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

/// Health of a server process, from [`Courier::check`](crate::Courier::check).
///
/// `Display` writes one line for a log. `Serialize` writes an object with `live`, `ready`, and `checks`: for each part
/// its name in `part`, and in `problem` a text or null.
///
/// The texts name addresses of this installation. Serve them to operators, and not to the public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    checks: Vec<HealthCheck>,
}

/// Result of the check of one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HealthCheck {
    /// Part that was checked.
    pub part: HealthPart,
    /// Reason why the part is not well; `None` where it is.
    pub problem: Option<String>,
}

/// Part of a server process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthPart {
    /// The [`SupervisorActor`](crate::SupervisorActor) answers in time. Counts for liveness.
    Supervisor,
    /// The threads that many subscribers share answer in time. Counts for liveness.
    Arbiters,
    /// The queue's server answers in time, and accepts a write. Counts for readiness.
    Queue,
    /// The process has room for one more session. Counts for readiness.
    Room,
    /// No shutdown has begun. Counts for readiness.
    Shutdown,
}

impl HealthPart {
    /// Returns whether a restart of the process mends the part. Such a part counts for liveness.
    pub fn is_of_liveness(self) -> bool {
        matches!(self, Self::Supervisor | Self::Arbiters)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::Arbiters => "arbiters",
            Self::Queue => "queue",
            Self::Room => "room",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for HealthPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl HealthReport {
    pub(crate) fn new(checks: impl IntoIterator<Item = (HealthPart, Option<String>)>) -> Self {
        Self { checks: checks.into_iter().map(|(part, problem)| HealthCheck { part, problem }).collect() }
    }

    /// Returns whether the process works: its supervisor and its shared threads answer. A process that is not live
    /// should be restarted. Redis has no part in it, because a restart of the server mends no Redis.
    pub fn is_live(&self) -> bool {
        self.checks.iter().all(|check| check.problem.is_none() || !check.part.is_of_liveness())
    }

    /// Returns whether the process should get new sessions: it is live, the queue accepts writes, there is room, and no
    /// shutdown has begun.
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.problem.is_none())
    }

    /// Returns the checks, one for each part.
    pub fn checks(&self) -> &[HealthCheck] {
        &self.checks
    }

    /// Returns the reason why a part is not well, if it is not.
    pub fn problem(&self, part: HealthPart) -> Option<&str> {
        self.checks.iter().find(|check| check.part == part)?.problem.as_deref()
    }
}

impl fmt::Display for HealthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.is_live(), self.is_ready()) {
            (_, true) => "live and ready",
            (true, false) => "live, not ready",
            (false, _) => "not live",
        })?;
        for HealthCheck { part, problem } in &self.checks {
            if let Some(problem) = problem {
                write!(f, "; {part}: {problem}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for HealthReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut report = serializer.serialize_struct("HealthReport", 3)?;
        report.serialize_field("live", &self.is_live())?;
        report.serialize_field("ready", &self.is_ready())?;
        report.serialize_field("checks", &self.checks)?;
        report.end()
    }
}

/// Part of a process that holds sessions, up to a limit.
#[cfg(feature = "rmcp")]
pub(crate) trait Room: Send + Sync {
    /// Returns the reason why the part takes no further session, if it takes none.
    fn shortage(&self) -> Option<String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(problem: Option<HealthPart>) -> HealthReport {
        let parts =
            [HealthPart::Supervisor, HealthPart::Arbiters, HealthPart::Queue, HealthPart::Room, HealthPart::Shutdown];
        HealthReport::new(parts.map(|part| (part, problem.filter(|ill| *ill == part).map(|_| "broken".to_owned()))))
    }

    #[test]
    fn what_a_restart_mends_ends_liveness_and_everything_ends_readiness() {
        let all = report(None);
        assert!(all.is_live() && all.is_ready());
        assert_eq!(all.to_string(), "live and ready");
        for check in all.checks() {
            let ill = report(Some(check.part));
            assert_eq!(ill.is_live(), !check.part.is_of_liveness(), "{ill}");
            assert!(!ill.is_ready(), "{ill}");
            assert_eq!(ill.problem(check.part), Some("broken"));
        }
        assert_eq!(report(Some(HealthPart::Queue)).to_string(), "live, not ready; queue: broken");
        assert_eq!(report(Some(HealthPart::Arbiters)).to_string(), "not live; arbiters: broken");
    }

    #[test]
    fn a_report_is_an_object_that_names_each_part() {
        let json = serde_json::to_value(report(Some(HealthPart::Room))).unwrap();
        assert_eq!((&json["live"], &json["ready"]), (&true.into(), &false.into()));
        assert_eq!(json["checks"][3], serde_json::json!({"part": "room", "problem": "broken"}));
        assert_eq!(json["checks"][0], serde_json::json!({"part": "supervisor", "problem": null}));
        for (check, ill) in report(None).checks().iter().zip(json["checks"].as_array().unwrap()) {
            assert_eq!(ill["part"], check.part.to_string());
        }
    }
}
