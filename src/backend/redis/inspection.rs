//! Inspection of Redis: plain reads, over the link that all pushes share.
//!
//! *Harmless*. `SCAN` in small steps, and never `KEYS`. No read extends, cuts or tracks anything: a life that the clock
//! made too long is shown as its owner gave it, and stays as it is.
//!
//! *One session, several keys*. A list of sessions comes from one scan over stored sessions, queues, leases and dead
//! letters. A session is listed for the first of its keys in the order of [`SessionKeyKind`]. So no memory is needed to
//! list it once, and pages may be read by different processes.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use self::answers::Answers;
use super::RedisBackend;
use super::dead_letters::settings;
use super::link::{Command, Request, is_timeout};
use super::lua::PURGE_QUEUE;
use super::outcomes::decode;
use super::scan::{NoPosition, Position, SCANNED};
use super::tail::{from_the_tail, oldest};
use crate::backend::inspection::{FOUND_MAX, SERVERS_MAX};
use crate::backend::{Inspection, Mark, Peeked, SameId, ServerRecord, SessionDetails, SessionFacts};
use crate::envelope::Timestamp;
use crate::failure::{QueueError, QueueErrorKind};
use crate::keys::{Keys, SessionKey, SessionKeyKind};
use crate::notification::NotificationId;
use crate::outcome::{DiscardReason, Receipt};
use crate::session_id::SessionId;

mod answers;

/// Number of steps of a scan for one page. A page ends after them, also where it has no session.
const STEPS: usize = 100;

/// Largest number of steps of a search for an id.
const SEARCH_STEPS: usize = 1000;

/// Number of sessions per pipeline.
const PIPELINE: usize = 100;

/// Number of messages per read of a queue.
const PIECE: usize = 100;

impl RedisBackend {
    /// Adds the reads whose answers [`Answers::facts`] takes.
    fn add_facts(&self, request: &mut Request, session: &SessionId) {
        let (keys, stored) = (self.keys.of(session), self.keys.session(session));
        for (command, key) in [
            ("EXISTS", &stored),
            ("STRLEN", &stored),
            ("LLEN", &keys.queue),
            ("GET", &keys.lease),
            ("PTTL", &keys.lease),
        ] {
            request.add(read(command, key));
        }
        request.add(read("LLEN", &keys.dead));
    }

    /// Sends reads.
    async fn answers(&self, doing: &'static str, request: &Request) -> Result<Answers, QueueError> {
        let answers = self.link.send(request).await.map_err(|error| self.failed(doing, error))?;
        Ok(Answers::new(answers))
    }
}

fn read(command: &str, key: &str) -> Command {
    Command::read(redis::cmd(command).arg(key).take())
}

#[async_trait]
impl Inspection for RedisBackend {
    async fn list_sessions(
        &self,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<SessionFacts>, Option<String>), QueueError> {
        const DOING: &str = "listing sessions";
        let mut position = Some(cursor.map_or(Ok(Position::default()), str::parse).map_err(|NoPosition| {
            let why = "a cursor of this queue is two numbers; take the one that the page before returned";
            self.failed(DOING, QueueErrorKind::Refused(why.to_owned()))
        })?);
        let servers = self.servers_of_keys(DOING).await?;
        let (pattern, count) = (self.keys.all_of_sessions(), limit.clamp(10, SCANNED));
        let mut listed = Vec::new();
        for _ in 0..STEPS {
            let keys = self.scan(DOING, &servers, &mut position, &pattern, count).await?;
            let mut found: BTreeMap<SessionId, Vec<SessionKeyKind>> = BTreeMap::new();
            for (session, kind) in keys.iter().filter_map(|key| self.keys.session_key(key)) {
                if kind <= SessionKeyKind::DeadLetters {
                    found.entry(session).or_default().push(kind);
                }
            }
            let sessions: Vec<SessionId> = found.keys().cloned().collect();
            for facts in self.facts(&sessions).await? {
                let first = answers::first_kind(&facts);
                // Another step lists the session for the first of its keys.
                if first.is_some_and(|first| found[&facts.session].iter().any(|kind| *kind <= first)) {
                    listed.push(facts);
                }
            }
            if position.is_none() || listed.len() >= limit {
                break;
            }
        }
        Ok((listed, position.map(|position| position.to_string())))
    }

    async fn facts(&self, sessions: &[SessionId]) -> Result<Vec<SessionFacts>, QueueError> {
        let mut all = Vec::with_capacity(sessions.len());
        for some in sessions.chunks(PIPELINE) {
            let mut request = Request::new();
            some.iter().for_each(|session| self.add_facts(&mut request, session));
            let mut answers = self.answers("inspecting sessions", &request).await?;
            for session in some {
                all.push(answers.facts(session).map_err(|error| self.failed("inspecting sessions", error))?);
            }
        }
        Ok(all)
    }

    async fn details(&self, session: &SessionId) -> Result<SessionDetails, QueueError> {
        const DOING: &str = "inspecting a session";
        let keys = self.keys.of(session);
        let mut request = Request::new();
        request.add(Command::read(redis::cmd("TIME")));
        self.add_facts(&mut request, session);
        let usage = redis::cmd("MEMORY").arg("USAGE").arg(&keys.queue).arg("SAMPLES").arg(0).take();
        request.add(Command::read(usage));
        for position in [-1, 0] {
            request.add(Command::read(redis::cmd("LINDEX").arg(&keys.queue).arg(position).take()));
        }
        request.add(read("PTTL", &keys.queue)).add(read("PTTL", &self.keys.session(session)));
        request.add(read("HLEN", &keys.questions));
        request.add(Command::read(redis::cmd("LINDEX").arg(&keys.dead).arg(0).take()));
        let mut answers = self.answers(DOING, &request).await?;
        let mut details = || -> Result<SessionDetails, QueueErrorKind> {
            let now = answers.time()?;
            let facts = answers.facts(session)?;
            let mut details = SessionDetails {
                now,
                // A server that refuses `MEMORY` leaves the size unknown.
                bytes: answers.optional().unwrap_or_default(),
                oldest: answers.next::<Option<_>>("queue")?.flatten(),
                newest: answers.next::<Option<_>>("queue")?.flatten(),
                queue_rest: answers.rest()?,
                record_rest: answers.rest()?,
                open_questions: answers.next("open questions")?.unwrap_or_default(),
                newest_letter: answers.next::<Option<Vec<u8>>>("dead letters")?.flatten().map(decode),
                facts,
            };
            for wrong in answers.wrong_types() {
                if !details.facts.wrong_types.contains(&wrong) {
                    details.facts.wrong_types.push(wrong);
                }
            }
            Ok(details)
        };
        details().map_err(|error| self.failed(DOING, error))
    }

    async fn peek(&self, session: &SessionId, limit: usize, bytes: usize) -> Result<Peeked, QueueError> {
        const DOING: &str = "peeking into a queue";
        let queue = self.keys.queue(session);
        let line = self.link.for_large_answers();
        let (mut peeked, mut size, mut timeouts) =
            (Peeked { messages: Vec::new(), has_more: false, now: Timestamp(0) }, 0, 0);
        loop {
            let before = peeked.messages.len();
            // One more than wanted shows that there are more. The first read is small: its messages may be large.
            let most = if before == 0 { 10 } else { PIECE }.min(line.limit().messages());
            let count = most.min(limit + 1 - before);
            let mut request = Request::of(Command::read(redis::cmd("TIME")));
            request.add(Command::read(oldest(&queue, before, count)));
            let answers = match line.send(&request).await {
                Ok(answers) => answers,
                // Fewer messages at once, and then more time: the line has learned from the timeout.
                Err(error) if is_timeout(&error) && !line.limit().is_longest() && timeouts < 6 => {
                    timeouts += 1;
                    continue;
                }
                Err(error) => return Err(self.failed(DOING, error)),
            };
            let mut answers = Answers::new(answers);
            let now = answers.time().map_err(|error| self.failed(DOING, error))?;
            let mut piece: Vec<Vec<u8>> = answers.required().map_err(|error| self.failed(DOING, error))?;
            piece.reverse();
            peeked.now = now;
            if let Some(last) = peeked.messages.last() {
                // The owner has removed messages since the last read. The messages read so far stood together then.
                if piece.is_empty() || piece.remove(0) != *last {
                    peeked.has_more = !piece.is_empty();
                    return Ok(peeked);
                }
            }
            let is_last = piece.len() < count;
            for message in piece {
                let is_enough = peeked.messages.len() >= limit || (size + message.len() > bytes && size > 0);
                if is_enough {
                    peeked.has_more = true;
                    return Ok(peeked);
                }
                size += message.len();
                peeked.messages.push(message);
            }
            if is_last {
                return Ok(peeked);
            }
        }
    }

    async fn purge_queue(
        &self,
        session: &SessionId,
        count: usize,
        newest: &Mark,
        receipts: &[NotificationId],
    ) -> Result<bool, QueueError> {
        // Position 0 from the tail would be that of the newest message.
        if count == 0 {
            return Ok(false);
        }
        let keys = self.keys.of(session);
        let receipts = receipts.iter().map(|id| keys.receipt(*id));
        let all: Vec<String> = [keys.queue.clone()].into_iter().chain(receipts).collect();
        let mut call = Command::begin(&PURGE_QUEUE, &all);
        call.arg(from_the_tail(count)).arg(from_the_tail(count + 1)).arg(newest.length).arg(newest.last());
        let [.., receipt_life] = settings(&self.config);
        call.arg(DiscardReason::Purged.to_wire()).arg(receipt_life);
        let removed: i64 = self.query("purging a queue", call).await?;
        Ok(removed == 1)
    }

    async fn servers(&self) -> Result<Vec<ServerRecord>, QueueError> {
        const DOING: &str = "listing servers";
        let mut range = redis::cmd("ZRANGE");
        // The newest first: where too many are listed, those whose time is over are left out.
        range.arg(self.keys.servers()).arg(0).arg(SERVERS_MAX - 1).arg("REV");
        let members: Vec<Vec<u8>> = self.query(DOING, Command::read(range)).await?;
        let members = members.iter().filter_map(|member| std::str::from_utf8(member).ok());
        let members: Vec<&str> = members.filter(|member| member.len() == 12).collect();
        let mut records = Vec::new();
        for some in members.chunks(PIPELINE) {
            let mut request = Request::new();
            for member in some {
                let key = self.keys.server(member);
                let range = redis::cmd("GETRANGE").arg(&key).arg(0).arg(ServerRecord::READ_MAX).take();
                request.add(Command::read(range)).add(read("PTTL", &key));
            }
            let mut answers = self.answers(DOING, &request).await?;
            for _ in some {
                // A record that cannot be read is another program's, or of a later version.
                let (text, rest): (Option<Vec<u8>>, Option<i64>) = (answers.optional(), answers.optional());
                let rest = Duration::from_millis(rest.and_then(|rest| rest.try_into().ok()).unwrap_or(0));
                records.extend(text.and_then(|text| ServerRecord::decode(&text, rest)));
            }
        }
        records.sort_by_key(|record| record.id);
        Ok(records)
    }

    async fn find_id(&self, session: &SessionId) -> Result<SameId, QueueError> {
        const DOING: &str = "looking for a session id";
        let (pattern, own) = (Keys::all_with_id(session), self.keys.prefix());
        let (mut same, mut receipts) = (SameId { is_partial: true, ..SameId::default() }, Vec::new());
        let (servers, mut position) = (self.servers_of_keys(DOING).await?, Some(Position::default()));
        for _ in 0..SEARCH_STEPS {
            let keys = self.scan(DOING, &servers, &mut position, &pattern, SCANNED).await?;
            for found in keys.iter().filter_map(|key| SessionKey::read(&self.keys, key)) {
                let is_own = found.prefix == own && found.session == *session;
                match found.kind {
                    SessionKeyKind::Receipt(id) if is_own && receipts.len() < FOUND_MAX => receipts.push(id),
                    SessionKeyKind::Receipt(_) => {}
                    _ => same.add(found, own, session),
                }
            }
            if position.is_none() {
                same.is_partial = false;
                break;
            }
        }
        receipts.sort_unstable();
        receipts.dedup();
        let keys = self.keys.of(session);
        let mut request = Request::of(Command::read(redis::cmd("TIME")));
        for id in &receipts {
            request.add(read("GET", &keys.receipt(*id)));
        }
        let mut answers = self.answers(DOING, &request).await?;
        let now = answers.time().map_err(|error| self.failed(DOING, error))?;
        same.receipts = receipts.iter().filter_map(|_| read_receipt(answers.optional()?, now)).collect();
        Ok(same)
    }
}

/// Reads a receipt, as it is where no owner settles it.
fn read_receipt(value: Value, now: Timestamp) -> Option<Receipt> {
    let Value::BulkString(text) = value else { return None };
    Receipt::from_wire(&text).map(|receipt| receipt.at(now, false))
}
