//! Outcomes of notifications in Redis: a string for each receipt, a list of dead letters for each session.
//!
//! *Dead letters* are written by the step that removes the message (`acknowledge_outcomes.lua`), so none is lost or
//! kept twice. `record` serves deliveries at most once only: their messages have left the queue
//! before.
//!
//! *Receipts* are strings: `queued`, `delivered` or `discarded`, with a time. `delivered` never changes again. A wait
//! for a receipt ends at a change of its key, or when the notification's time is over: it is `Expired` where no owner
//! holds the queue then.
//!
//! *Redrive*. A letter is named by its position and by its mark. Where another process has redriven or trimmed it
//! meanwhile, the script answers "changed" and does nothing (`two_who_redrive_at_once_lose_and_double_nothing`).

use std::collections::BTreeSet;
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::RedisBackend;
use super::dead_letters::settings;
use super::link::{Answer, Command, Request, is_timeout};
use super::lua::{NO_ARGUMENTS, PURGE, READ_RECEIPT, REDRIVE, TRIM_LETTERS};
use super::push;
use super::reply::{self, BadReply};
use super::scan::{Position, SCANNED};
use crate::backend::{Mark, Outcomes, Redrove, StoredLetter};
use crate::envelope::{Draft, Timestamp};
use crate::failure::QueueError;
use crate::json;
use crate::keys::QueueKeys;
use crate::notification::NotificationId;
use crate::outcome::{DiscardReason, Receipt};
use crate::session_id::SessionId;

/// Number of dead letters per read. Each may be as large as the largest message.
const PIECE: usize = 10;

/// Shortest pause between two reads of a receipt that Redis announces no change of.
const LOOK: Duration = Duration::from_secs(1);

impl RedisBackend {
    /// Returns the keys that hold unexpired letters. A key outlives its letters where the newest one was redriven.
    async fn with_letters(&self, keys: Vec<String>) -> Result<Vec<String>, QueueError> {
        let [_, life, ..] = settings(&self.config);
        let mut request = Request::new();
        for key in &keys {
            request.add(Command::call(&TRIM_LETTERS, &[key], &[&life]));
            request.add(redis::cmd("EXISTS").arg(key));
        }
        if keys.is_empty() {
            return Ok(keys);
        }
        let answers = self.link.send(&request).await.map_err(|error| self.failed("looking for dead letters", error))?;
        let is_gone = |answers: &[Answer]| matches!(answers, [_, Ok(Value::Int(0))]);
        Ok(keys
            .into_iter()
            .zip(answers.chunks(2))
            .filter(|(_, answers)| !is_gone(answers))
            .map(|(key, _)| key)
            .collect())
    }

    /// Reads dead letters in pieces, the oldest first. After a late answer a piece is read again, smaller and with more
    /// time, at most six times.
    async fn letters(
        &self,
        session: &SessionId,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<StoredLetter>, Timestamp), QueueError> {
        const DOING: &str = "reading dead letters";
        let dead = self.keys.of(session).dead;
        // The second setting is the life of a letter.
        let [_, life, ..] = settings(&self.config);
        let now = self.call(DOING, &TRIM_LETTERS, std::slice::from_ref(&dead), &[life]).await?;
        let now = Timestamp(reply::number(now).map_err(|e| self.failed(DOING, e))?);
        // A list in Redis has no more entries.
        let skip = skip.min(u32::MAX as usize);
        let mut letters = Vec::new();
        let line = self.link.for_large_answers();
        let mut timeouts = 0;
        while letters.len() < limit {
            let piece = PIECE.min(line.limit().messages());
            let (first, wanted) = (skip + letters.len(), piece.min(limit - letters.len()));
            let mut range = redis::cmd("LRANGE");
            range.arg(&dead).arg(format!("-{}", first + wanted)).arg(format!("-{}", first + 1));
            let piece: Vec<Vec<u8>> = match line.query(range).await {
                Ok(piece) => piece,
                // Fewer letters at once, and then more time: the line has learned from the timeout.
                Err(error) if is_timeout(&error) && !line.limit().is_longest() && timeouts < 6 => {
                    timeouts += 1;
                    continue;
                }
                Err(error) => return Err(self.failed(DOING, error)),
            };
            let got = piece.len();
            letters.extend(piece.into_iter().rev().map(decode));
            if got < wanted {
                break;
            }
        }
        Ok((letters, now))
    }
}

/// Reads a dead letter in the form in which the scripts keep it.
pub(super) fn decode(kept: Vec<u8>) -> StoredLetter {
    /// First line of a dead letter, before the message itself.
    #[derive(serde::Deserialize)]
    struct Header {
        at: i64,
        reason: DiscardReason,
    }
    let mark = Mark::of(&kept);
    let end = kept.iter().position(|byte| *byte == b'\n').unwrap_or(kept.len());
    match serde_json::from_slice::<Header>(&kept[..end]) {
        Ok(Header { at, reason }) => {
            StoredLetter { at: Timestamp(at), reason, raw: kept.get(end + 1..).unwrap_or_default().to_vec(), mark }
        }
        // Another program wrote this entry. It is shown as it is, so that an operator can see and purge it.
        Err(error) => {
            let why = json::fault(&error);
            let reason = DiscardReason::Undecodable(format!("the header of the dead letter cannot be read: {why}"));
            StoredLetter { at: Timestamp(0), reason, raw: kept, mark }
        }
    }
}

#[async_trait]
impl Outcomes for RedisBackend {
    async fn receipt(&self, session: &SessionId, id: NotificationId) -> Result<(Receipt, Timestamp), QueueError> {
        const DOING: &str = "reading a receipt";

        let keys = self.keys.of(session);
        let keys = [keys.receipt(id), keys.lease, keys.queue];
        let answer = self.call(DOING, &READ_RECEIPT, &keys, NO_ARGUMENTS).await?;
        receipt(answer).map_err(|e| self.failed(DOING, e))
    }

    async fn until_settled(&self, session: &SessionId, id: NotificationId) -> Receipt {
        let receipt = self.keys.of(session).receipt(id);
        let touch = redis::cmd("GET").arg(&receipt).take();
        let is_due = |told: &Value| !matches!(told, Value::BulkString(told) if told.starts_with(b"queued"));
        // Registered before the first read, so that no change after that read is missed.
        let waiting = self.key_watcher.register(receipt, touch, is_due);
        loop {
            let pause = match self.receipt(session, id).await {
                Ok((Receipt::Queued { expires_at }, now)) => {
                    expires_at.duration_since(now.to_system()).unwrap_or_default().max(LOOK)
                }
                Ok((settled, _)) => return settled,
                Err(error) => {
                    tracing::debug!(?session, %error, "reading a receipt failed; trying again");
                    LOOK
                }
            };
            if tokio::time::timeout(pause, waiting.until_due()).await.is_ok() {
                waiting.touch_soon();
            }
        }
    }

    async fn dead_letters(
        &self,
        session: &SessionId,
        skip: usize,
        limit: usize,
    ) -> Result<(Vec<StoredLetter>, Timestamp), QueueError> {
        self.letters(session, skip, limit).await
    }

    async fn redrive(
        &self,
        session: &SessionId,
        skip: usize,
        letter: &Mark,
        draft: &Draft,
    ) -> Result<Redrove, QueueError> {
        const DOING: &str = "redriving a dead letter";

        let keys = self.keys.of(session);
        let receipt = draft.receipt.map(|id| keys.receipt(id));
        let QueueKeys { queue, dead, .. } = keys;
        let keys: Vec<String> = [queue, dead].into_iter().chain(receipt).collect();
        let sent = self.clock.at(Timestamp::of_this_host());
        let arguments = push::Arguments { config: &self.config, drafts: std::iter::once(draft), sent };
        let arguments = (arguments, skip, letter.length, letter.last());
        let answer = self.call(DOING, &REDRIVE, &keys, &[arguments]).await?;
        push::redrove(&self.config, answer).map_err(|e| self.failed(DOING, e))
    }

    async fn purge(&self, session: &SessionId) -> Result<usize, QueueError> {
        let dead = self.keys.of(session).dead;
        self.call("purging dead letters", &PURGE, &[dead], NO_ARGUMENTS).await
    }

    async fn sessions_with_dead_letters(&self) -> Result<Vec<SessionId>, QueueError> {
        const DOING: &str = "looking for dead letters";
        let (servers, pattern) = (self.servers_of_keys(DOING).await?, self.keys.all_dead());
        let (mut position, mut sessions) = (Some(Position::default()), BTreeSet::new());
        while position.is_some() {
            let keys = self.scan(DOING, &servers, &mut position, &pattern, SCANNED).await?;
            sessions.extend(self.with_letters(keys).await?.iter().filter_map(|key| self.keys.session_of_dead(key)));
        }
        Ok(sessions.into_iter().collect())
    }
}

/// Reads a receipt, and the time at which it was read.
fn receipt(value: Value) -> Result<(Receipt, Timestamp), BadReply> {
    let [now, told, is_owned] = reply::array(value)?;
    let (now, is_owned) = (Timestamp(reply::number(now)?), reply::number::<i64>(is_owned)? == 1);
    let receipt = match told {
        Value::Nil => None,
        told => Receipt::from_wire(&reply::bytes(told)?),
    };
    Ok((receipt.map_or(Receipt::Unknown, |receipt| receipt.at(now, is_owned)), now))
}
