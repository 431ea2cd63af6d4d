//! Examination of a Redis server for operators: reads facts, which [`crate::examination`] judges.
//!
//! A server that refuses `INFO` or `CONFIG` leaves properties unknown. No refusal ends the examination. Nothing is
//! changed, and no key of a session is read.

use std::collections::HashMap;
use std::time::Instant;

use redis::Value;

use super::RedisBackend;
use super::link::{Command, Link, Pushes};
use super::lua::{NO_ARGUMENTS, RIGHTS};
use super::rights::{Call, calls};
use crate::examination::{Check, Denied, Facts};
use crate::failure::{QueueError, QueueErrorKind};
use crate::timestamp::Timestamp;

/// Number of round trips that are measured.
const TRIPS: usize = 11;

/// Settings that the judgements need. `CONFIG GET` takes several names from Redis 7.0 on only.
const SETTINGS: [&str; 6] =
    ["maxmemory-policy", "appendfsync", "save", "min-replicas-to-write", "timeout", "tracking-table-max-keys"];

impl RedisBackend {
    /// Examines the server, or each master of a cluster. Of the checks of a property the worst is returned.
    ///
    /// # Errors
    /// A broken connection. A refusal is a fact, and no error.
    pub(super) async fn examine_server(&self) -> Result<Vec<Check>, QueueError> {
        let failed = |error| self.failed("examining the server", error);
        let mut worst: Vec<Check> = Vec::new();
        for link in self.link.to_each_server().await.map_err(failed)? {
            for check in self.facts(&link).await.map_err(failed)?.judge() {
                match worst.iter_mut().find(|known| known.name == check.name) {
                    Some(known) if known.verdict >= check.verdict => {}
                    Some(known) => *known = check,
                    None => worst.push(check),
                }
            }
        }
        Ok(worst)
    }

    /// Reads the facts of the server of a link.
    async fn facts(&self, link: &Link) -> Result<Facts, QueueErrorKind> {
        let mut facts = Facts { is_cluster_url: self.deployment.is_cluster(), ..Facts::default() };
        let mut fastest = None;
        for _ in 0..TRIPS {
            let (sent, host) = (Instant::now(), Timestamp::of_this_host());
            let (seconds, micros): (i64, i64) = link.query(redis::cmd("TIME")).await?;
            let trip = sent.elapsed();
            facts.trips.push(trip);
            // The quickest trip leaves the least doubt about the moment at which the server read its clock.
            if fastest.is_none_or(|fastest| trip < fastest) {
                fastest = Some(trip);
                facts.clock_ahead = seconds * 1_000_000 + micros - host.plus(trip / 2).0;
            }
        }
        facts.info =
            allowed(link.query::<String>(redis::cmd("INFO").arg("everything")).await)?.map(|text| fields(&text));
        facts.settings = settings(link).await?;
        // Over the common link, which finds the node of the key.
        facts.write_refused =
            refusal(self.link.query::<Value>(redis::cmd("PEXPIRE").arg(self.keys.probe()).arg(1)).await)?;
        // A connection of its own, as tracking would change what the shared one is sent.
        let other = Link::shared(&self.deployment, &self.config, Pushes::Nothing);
        facts.tracking_refused = refusal(other.query::<Value>(redis::cmd("CLIENT").arg(&["TRACKING", "ON"])).await)?;
        facts.user = allowed(link.query(redis::cmd("ACL").arg("WHOAMI")).await)?;
        facts.denied = self.denied(link).await?;
        Ok(facts)
    }

    /// Returns the commands that the user may not call; `None` where the server cannot be asked.
    async fn denied(&self, link: &Link) -> Result<Option<Denied>, QueueErrorKind> {
        let Some((mut worker, server)) = calls(&self.keys) else { return Ok(None) };
        if self.deployment.is_cluster() {
            worker.extend(["SLOTS", "INFO"].map(|what| Call(vec!["CLUSTER".to_owned(), what.to_owned()])));
        }
        let all: Vec<&Call> = worker.iter().chain(&server).collect();
        let mut ask = Command::begin(&RIGHTS, NO_ARGUMENTS);
        for Call(words) in &all {
            ask.arg(words.len()).arg(words);
        }
        let Some(Some(denied)) = allowed(link.query::<Option<Vec<usize>>>(ask).await)? else { return Ok(None) };
        let mut sorted = Denied::default();
        for number in denied {
            let Some(call) = number.checked_sub(1).and_then(|at| all.get(at)) else { continue };
            let list = if number <= worker.len() { &mut sorted.worker } else { &mut sorted.server };
            list.push(call.name());
        }
        Ok(Some(sorted))
    }
}

/// Reads the settings that the judgements need.
async fn settings(link: &Link) -> Result<Option<HashMap<String, String>>, QueueErrorKind> {
    let mut all = None;
    for name in SETTINGS {
        let read = link.query::<HashMap<String, String>>(redis::cmd("CONFIG").arg(&["GET", name])).await;
        if let Some(read) = allowed(read)? {
            all.get_or_insert_with(HashMap::new).extend(read);
        }
    }
    Ok(all)
}

/// Returns the answer, or `None` where the server refused.
fn allowed<T>(answer: Result<T, QueueErrorKind>) -> Result<Option<T>, QueueErrorKind> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(QueueErrorKind::Refused(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Returns the text of the refusal; `None` where the server did not refuse.
fn refusal<T>(answer: Result<T, QueueErrorKind>) -> Result<Option<String>, QueueErrorKind> {
    match answer {
        Ok(_) => Ok(None),
        Err(QueueErrorKind::Refused(why)) => Ok(Some(why)),
        Err(error) => Err(error),
    }
}

/// Reads the lines `name:value` of `INFO`.
fn fields(text: &str) -> HashMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
