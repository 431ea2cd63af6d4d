//! [`Inspector::explain`]: why a session gets nothing.
//!
//! *Two parts*. [`Inspector::explain`] gathers the evidence, and `findings` judges it without any I/O.

use std::time::Duration;

use super::{Finding, FindingCode, Inspector, Owner, SessionReport};
use crate::backend::{SameId, ServerRecord, SessionFacts, SessionRecord, SessionTrouble, TroubleState};
use crate::config::Config;
use crate::failure::QueueError;
use crate::outcome::Receipt;
use crate::session_id::SessionId;

/// Largest number of other sessions with the same id whose queues are read.
const OTHERS: usize = 10;

impl Inspector {
    /// Returns the reasons why a session gets nothing, the one that explains most first. At least one is returned, also
    /// where nothing is wrong.
    ///
    /// The search for other sessions of this id goes through the names of all keys in small steps (`SCAN`), at most a
    /// million. So this method is for an operator and not for a loop. The states of subscribers come from the records
    /// of their servers and are up to a heartbeat old.
    ///
    /// # Errors
    /// [`QueueError`] where the queue failed.
    ///
    /// # Cancellation
    /// Dropping the future has no effect.
    pub async fn explain(&self, session: &SessionId) -> Result<Vec<Finding>, QueueError> {
        let details = self.queue.details(session).await?;
        let servers = self.queue.servers().await?;
        let report = self.report(session, details, &servers);
        let same = self.queue.find_id(session).await?;
        let own = |(prefix, other): &(String, SessionId)| (prefix == self.config.prefix()).then(|| other.clone());
        let others: Vec<SessionId> = same.others.iter().filter_map(own).take(OTHERS).collect();
        let others = self.queue.facts(&others).await?;
        let evidence =
            Evidence { config: &self.config, session, report: &report, servers: &servers, same: &same, others };
        Ok(evidence.findings())
    }
}

/// Everything that is known about a session and its surroundings.
struct Evidence<'a> {
    config: &'a Config,
    session: &'a SessionId,
    report: &'a SessionReport,
    servers: &'a [ServerRecord],
    same: &'a SameId,
    /// Other sessions of the same id under the same prefix.
    others: Vec<SessionFacts>,
}

impl Evidence<'_> {
    fn findings(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        found.extend(self.wrong_types());
        found.extend(self.troubles());
        found.extend(self.owner());
        found.extend(self.oldest());
        found.extend(self.elsewhere());
        found.extend(self.outcomes());
        found.extend(self.standing(&found));
        if self.same.is_partial {
            found.push(Finding::new(
                FindingCode::Partial,
                "Redis has more keys than were looked at, so sessions of this id under other users may be missing",
                "name the user of the session, where it has one",
            ));
        }
        found.sort_by_key(|finding| finding.code);
        found
    }

    /// Returns the servers that list this session, with their entries.
    fn entries(&self) -> impl Iterator<Item = (&ServerRecord, &SessionTrouble)> {
        self.servers.iter().flat_map(|server| {
            server.troubles.iter().filter(|trouble| trouble.is_of(self.session)).map(move |trouble| (server, trouble))
        })
    }

    fn wrong_types(&self) -> Option<Finding> {
        let wrong = &self.report.wrong_types;
        (!wrong.is_empty()).then(|| {
            let text =
                format!("another program has stored another type under keys of this session: {}", wrong.join(", "));
            Finding::new(FindingCode::WrongType, text, "delete these keys; nothing is delivered before")
        })
    }

    /// Returns what the servers say about their subscribers of this session.
    fn troubles(&self) -> Vec<Finding> {
        let finding = |(server, trouble): (&ServerRecord, &SessionTrouble)| {
            let error = trouble.error.as_deref().unwrap_or("none was noted");
            let (code, text, advice) = match trouble.state {
                TroubleState::WaitsForPlace => (
                    FindingCode::WaitsForPlace,
                    format!("the client is back, and {} has no free place for its subscriber: {error}", place(server)),
                    "raise dedicated_limit or shared_limit, or add a server",
                ),
                TroubleState::BackingOff => (
                    FindingCode::OwnerBacksOff,
                    format!("the subscriber at {} pauses after a failure; last error: {error}", place(server)),
                    "mend the cause that the error names; the subscriber tries again by itself",
                ),
                TroubleState::StandingBy => (
                    FindingCode::OwnerStandsBy,
                    format!(
                        "the subscriber at {} stands by, as another server has taken the session over",
                        place(server)
                    ),
                    "nothing, where the client uses the other server; else look for two clients with one session id",
                ),
                TroubleState::Past => (
                    FindingCode::EarlierError,
                    format!("the subscriber at {} works; its last error was: {error}", place(server)),
                    "nothing, unless the error returns",
                ),
            };
            Finding::new(code, text, advice)
        };
        self.entries().map(finding).collect()
    }

    /// Returns what the lease says about the owner.
    fn owner(&self) -> Option<Finding> {
        let owner = self.report.summary.owner.as_ref().filter(|owner| owner.overdue)?;
        let text = format!(
            "{} owns the queue and has not renewed its lease for {}: the process is dead, stuck, or cut off from Redis",
            owner_place(owner),
            shown(owner.lease_life.saturating_sub(owner.lease_rest)),
        );
        let advice = format!(
            "look at that process; another server takes over when its client reconnects, or in {} when the lease ends",
            shown(owner.lease_rest)
        );
        Some(Finding::new(FindingCode::LeaseNotRenewed, text, advice))
    }

    /// Returns what the oldest message says.
    fn oldest(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Some(full) = self.report.full {
            let text = format!("the queue is full: it may hold {full}. Pushes are refused");
            let advice = "find out why nothing is delivered, or purge the queue; then workers can push again";
            found.push(Finding::new(FindingCode::QueueFull, text, advice));
        }
        let Some(oldest) = &self.report.oldest else { return found };
        let is_owned = self.report.summary.owner.is_some();
        if let Some(fault) = &oldest.undecodable {
            let text = format!("the oldest message cannot be decoded: {fault}");
            let advice = "an owner discards it and goes on; find the program that pushes such messages";
            found.push(Finding::new(FindingCode::Undecodable, text, advice));
        }
        if oldest.attempts > 0 {
            let error = oldest.last_error.as_deref().unwrap_or("none was noted");
            let of = self.config.max_attempts();
            let text =
                format!("{} of {of} attempts to deliver the oldest message have failed: {error}", oldest.attempts);
            let advice = "mend the cause that the error names; after the last attempt the message is discarded";
            found.push(Finding::new(FindingCode::AttemptsFail, text, advice));
        }
        if oldest.is_expired() {
            let age = oldest.age.map_or_else(|| "an unknown time".to_owned(), shown);
            let text = format!("the oldest message has waited for {age} and has expired");
            let advice = if is_owned {
                "its owner discards it"
            } else {
                "it is discarded when the client is back; give notifications a longer time to live, if they must arrive"
            };
            found.push(Finding::new(FindingCode::OldestExpired, text, advice));
        }
        found
    }

    /// Returns what other sessions with this id say.
    fn elsewhere(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let summary = &self.report.summary;
        let is_in_use = |facts: &SessionFacts| facts.lease.is_some() || facts.record == SessionRecord::Known;
        let is_unknown_here = summary.owner.is_none() && !summary.known && !summary.ended;
        for other in &self.others {
            // Either the client is over there and the messages are here, or the other way about.
            let is_client_there = is_unknown_here && is_in_use(other);
            let are_messages_there = other.depth > 0 && !is_in_use(other) && !is_unknown_here && summary.depth == 0;
            if !is_client_there && !are_messages_there {
                continue;
            }
            let (there, here) = (user(&other.session), user(self.session));
            let text = if is_client_there {
                format!(
                    "the client's session of this id is bound to {there}, and this one to {here}: \
                     {} messages wait here in vain",
                    summary.depth
                )
            } else {
                format!(
                    "{} messages of this id wait for a session bound to {there}, and the client's is bound to {here}",
                    other.depth
                )
            };
            let advice =
                "the worker must name the session by the whole form, which SessionId's Display writes with the user";
            found.push(Finding::new(FindingCode::WrongPrincipal, text, advice));
        }
        if is_unknown_here && let Some((prefix, _)) = self.same.others.iter().find(|(p, _)| p != self.config.prefix()) {
            let text = format!(
                "keys of a session of this id are under the prefix {prefix:?}, and this one is {:?}",
                self.config.prefix()
            );
            let advice = "give workers, servers and this inspector the same prefix";
            found.push(Finding::new(FindingCode::OtherPrefix, text, advice));
        }
        found
    }

    /// Returns what receipts and dead letters say about earlier notifications.
    fn outcomes(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let newest = self.same.receipts.iter().filter_map(|receipt| match receipt {
            Receipt::Delivered { at } => Some((*at, None)),
            Receipt::Discarded { reason, at } => Some((*at, Some(reason))),
            _ => None,
        });
        let newest = newest.max_by_key(|(at, _)| *at);
        let letter = self.report.last_discard_at.zip(self.report.last_discard.as_ref());
        let discarded = match (newest, letter) {
            (Some((at, _)), Some((later, reason))) if later >= at => Some(reason),
            (Some((_, reason)), _) => reason,
            (None, letter) => letter.map(|(_, reason)| reason),
        };
        let is_empty = self.report.summary.depth == 0;
        if let Some(reason) = discarded {
            let text = format!("the newest notification with a known outcome was discarded: {reason}");
            let advice = "read its dead letter, if servers keep them, and redrive it once the cause is mended";
            found.push(Finding::new(FindingCode::Discarded, text, advice));
        } else if is_empty && newest.is_some() {
            let text =
                "the queue is empty, and the newest receipt says that its notification was delivered and confirmed";
            let advice = "look at the client: it got the notification and may not show it";
            found.push(Finding::new(FindingCode::AllDelivered, text, advice));
        }
        let vanished = self.same.receipts.iter().any(|receipt| matches!(receipt, Receipt::Queued { .. }));
        if is_empty && vanished && self.report.summary.owner.is_none() {
            let text = "a notification with a receipt has left the queue without an outcome, and nobody owns the queue";
            let advice = "look for a FastMCP server or another program that takes from this queue, or deletes it";
            found.push(Finding::new(FindingCode::TakenWithoutLease, text, advice));
        }
        found
    }

    /// Returns the standing of the session, where nothing that was `found` explains the silence.
    fn standing(&self, found: &[Finding]) -> Vec<Finding> {
        use FindingCode::{ClientAway, Delivering, Ended, FastMcpServer, QueueEmpty, UnknownSession};
        let (summary, mut standing) = (&self.report.summary, Vec::new());
        let waiting = match summary.depth {
            0 => "no message waits".to_owned(),
            1 => "1 message waits".to_owned(),
            depth => format!("{depth} messages wait"),
        };
        if summary.ended {
            let text = format!("the session has ended, so nothing more is delivered to it; {waiting}");
            standing.push(Finding::new(Ended, text, "push to the session that the client has begun since"));
        } else if let Some(owner) = summary.owner.as_ref().filter(|owner| !owner.overdue) {
            if summary.depth > 0 {
                let text = format!(
                    "{} owns the queue and renews its lease; {waiting} for delivery or confirmation",
                    owner_place(owner)
                );
                standing.push(Finding::new(
                    Delivering,
                    text,
                    "ask again: the depth and the id of the oldest should change",
                ));
            }
        } else if summary.owner.is_none() && self.config.fastmcp_servers() {
            let text = format!("FastMCP servers hold the sessions of this prefix, which have no leases; {waiting}");
            let advice = "look into the log of the FastMCP server, which alone knows its sessions";
            standing.push(Finding::new(FastMcpServer, text, advice));
        } else if summary.owner.is_none() && summary.known {
            let last_use = self.report.forgotten_in.map(|rest| self.config.session_time_to_live().saturating_sub(rest));
            let since =
                last_use.map_or_else(String::new, |since| format!(", which was last used {} ago", shown(since)));
            let text =
                format!("no server owns the queue of the session{since}: its client has no open stream; {waiting}");
            let advice =
                "see whether the client runs and keeps its stream open (GET); queued notifications wait for it";
            standing.push(Finding::new(ClientAway, text, advice));
        } else if summary.owner.is_none() {
            let text = format!("no server owns the queue, and no session store knows the session; {waiting}");
            let advice = "compare the id with the client's Mcp-Session-Id; a session is forgotten session_time_to_live \
                          after its last use, and a fleet without a session store remembers none";
            standing.push(Finding::new(UnknownSession, text, advice));
        }
        let explains = [FindingCode::AllDelivered, FindingCode::Discarded, FindingCode::TakenWithoutLease];
        let is_explained = found.iter().any(|finding| explains.contains(&finding.code));
        if summary.depth == 0 && !is_explained {
            let text =
                "the queue is empty: nothing was pushed, or all was delivered or has expired; no receipt says which";
            let advice = "look at the worker: see the id that it pushes to, and push with a receipt to see the outcome";
            standing.push(Finding::new(QueueEmpty, text, advice));
        }
        standing
    }
}

/// Returns a server as operators look for it.
fn place(server: &ServerRecord) -> String {
    format!("server {} (process {} on {})", server.id, server.pid, server.host)
}

/// Returns an owner as operators look for it.
fn owner_place(owner: &Owner) -> String {
    match (owner.server, owner.pid, &owner.host) {
        (Some(server), Some(pid), Some(host)) => format!("server {server} (process {pid} on {host})"),
        (Some(server), ..) => format!("server {server}, which writes no record any more,"),
        (None, ..) => "a server without a record".to_owned(),
    }
}

/// Returns the kind of user to whom a session is bound. The name of a user is personal, and not shown.
fn user(session: &SessionId) -> &'static str {
    if session.principal().is_some() { "a user" } else { "nobody" }
}

/// Returns a length of time for people.
fn shown(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
