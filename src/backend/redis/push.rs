//! Arguments and answers of the scripts that queue notifications of one session: the push, and the redrive of a dead
//! letter.
//!
//! *Order within a call*. The script queues the messages of one session in their order, and stops at the first that
//! exceeds a bound. Nothing behind that message is queued, or it would overtake
//! (`after_a_refusal_nothing_more_of_a_call_is_queued_however_long_it_is`).
//!
//! *Times*. The script puts the server's time (`at`) before each message; `ttl` travels in the message as an integer.
//! No script computes dates: formatting them in Lua cost most of a push. The texts for people come from the pusher's
//! estimate of the server's clock.

use std::time::Duration;

use redis::{RedisWrite, ToRedisArgs, Value};

use super::link::Command;
use super::reply::{self, BadReply};
use crate::backend::{COLLAPSE_BYTES, COLLAPSE_KEYS, QueueLimit, Queued, Redrove};
use crate::config::Config;
use crate::envelope::{Draft, Times, Timestamp};
use crate::notification::KeyHash;
use crate::session_id::SessionStatus;

mod grouped;
mod rounds;

/// Largest number of bytes of notifications in one script call, so that the call does not block Redis for long. The
/// same bound holds for all calls that travel together. It is smaller where the line to Redis is narrow.
pub(super) const CALL_BYTES: usize = 1024 * 1024;

/// Largest number of notifications in one script call. Smaller where the line to Redis is narrow.
pub(super) const CALL_MESSAGES: usize = 100;

/// Divisor of the grace in a queue's life. A life may be shorter than needed by that part of the grace, so that not
/// every push writes the expiry.
const SLACK: u64 = 60;

/// Answer of a script that pushes.
#[derive(Debug)]
pub(super) struct Answer {
    /// Outcomes of the first messages of the call: of all messages, or of those before the one that a bound stopped.
    pub(super) done: Vec<Queued>,
    /// Bound that stopped the rest of the call.
    pub(super) stopped: Option<QueueLimit>,
    /// Set where the queue had a lease.
    pub(super) owned: bool,
    /// Time of the push by the server's clock.
    pub(super) now: Timestamp,
}

/// Arguments of a push or a redrive: the settings, the data of receipts, and the messages.
pub(super) struct Arguments<'a, D> {
    pub(super) config: &'a Config,
    /// Notifications to queue, at least one.
    pub(super) drafts: D,
    /// Time of the push by the clock that people read.
    pub(super) sent: Timestamp,
}

impl<'a, D: Iterator<Item = &'a Draft> + Clone> ToRedisArgs for Arguments<'a, D> {
    fn write_redis_args<W: RedisWrite + ?Sized>(&self, out: &mut W) {
        let Self { config, sent, .. } = self;
        let (most, most_bytes, grace) = (config.queue_max_messages(), config.queue_max_bytes(), config.expiry_grace());
        let small = most_bytes / config.message_max_bytes();
        most.min(small).write_redis_args(out);
        out.write_arg_fmt(format_args!("{most} {most_bytes} {small} {}", millis(grace)));
        let longest = self.longest();
        let life = millis(longest) + millis(grace);
        life.write_redis_args(out);
        (life - millis(grace) / SLACK).write_redis_args(out);
        for (draft, number) in self.drafts.clone().zip(1_usize..).filter(|(draft, _)| draft.receipt.is_some()) {
            number.write_redis_args(out);
            out.write_arg_fmt(draft.time_to_live.as_micros());
            (millis(draft.time_to_live) + millis(grace) + millis(config.receipt_life())).write_redis_args(out);
        }
        let mut times = Times::new(*sent, longest);
        for draft in self.drafts.clone() {
            if !times.are_of(draft) {
                times = Times::new(*sent, draft.time_to_live);
            }
            out.write_arg_fmt(format_args!("{}{}", times.text(), draft.body));
        }
    }
}

impl<'a, D: Iterator<Item = &'a Draft> + Clone> Arguments<'a, D> {
    /// Returns whether a message has a key that the script must look up.
    pub(super) fn are_keyed(&self) -> bool {
        self.drafts.clone().any(Draft::is_keyed)
    }

    /// Adds the keys of the messages, with the settings for them, as `push_keyed` takes these.
    pub(super) fn add_keys_to(&self, command: &mut Command) {
        for draft in self.drafts.clone() {
            command.arg(draft.id.to_string());
            for key in [draft.deduplication_key, draft.collapse_key] {
                command.arg(key.map(KeyHash::as_bytes).as_ref().map_or(&[][..], |hash| hash));
            }
        }
        command.arg(self.drafts.clone().count());
        command.arg(self.config.deduplication_window().as_micros().to_string());
        command.arg(self.config.deduplication_keys());
        command.arg(millis(self.config.receipt_life())).arg(COLLAPSE_KEYS).arg(COLLAPSE_BYTES);
    }

    fn longest(&self) -> Duration {
        self.drafts.clone().map(|draft| draft.time_to_live).max().unwrap_or_default()
    }

    /// Returns the longest usual rest of a lease's life, in ms. A longer rest exceeds the life that this process gives
    /// to leases, or needs the queue to outlive its messages.
    pub(super) fn usual_lease(&self) -> u64 {
        millis(self.config.lease().min(self.longest()))
    }
}

/// Returns a time in whole milliseconds, rounded up so that nothing ends too early.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(u64::MAX)
}

/// Reads the answer of `push` to a call with `pushed` messages.
pub(super) fn answer(config: &Config, pushed: usize, value: Value) -> Result<Answer, BadReply> {
    let mut parts = reply::list(value)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let (length, owned, now) =
        (reply::number::<usize>(next())?, reply::number::<i64>(next())?, reply::decimal(next())?);
    let (count, stopped) = match next() {
        Value::Nil => (pushed, None),
        count => (reply::number(count)?, limit(config, next())?),
    };
    let before = length.saturating_sub(count);
    let session = status(owned);
    let queued = |n| Queued { waiting: before + n, session, duplicate_of: None, collapsed: false };
    let done = (1..=count).map(queued).collect();
    Ok(Answer { done, stopped, owned: owned != 0, now: Timestamp(now) })
}

/// Reads the answer of `push_keyed`.
pub(super) fn keyed_answer(config: &Config, value: Value) -> Result<Answer, BadReply> {
    let mut parts = reply::list(value)?.into_iter();
    let mut next = || parts.next().unwrap_or(Value::Nil);
    let (owned, now, stopped) = (reply::number::<i64>(next())?, reply::decimal(next())?, limit(config, next())?);
    let mut done = Vec::with_capacity(parts.len() / 3);
    while let (Some(waiting), Some(earlier), Some(removed)) = (parts.next(), parts.next(), parts.next()) {
        let collapsed = reply::number::<i64>(removed)? != 0;
        let (waiting, duplicate_of) = (reply::number(waiting)?, reply::id(earlier)?);
        done.push(Queued { waiting, session: status(owned), duplicate_of, collapsed });
    }
    Ok(Answer { done, stopped, owned: owned != 0, now: Timestamp(now) })
}

/// Returns the status of a session as a push finds it: a session without an owner is looked up later.
fn status(owned: i64) -> SessionStatus {
    if owned != 0 { SessionStatus::Owned } else { SessionStatus::NotRead }
}

/// Reads the answer to a redrive.
pub(super) fn redrove(config: &Config, value: Value) -> Result<Redrove, BadReply> {
    let [count, stopped] = reply::array(value)?;
    Ok(match (reply::number::<i64>(count)?, limit(config, stopped)?) {
        (1, _) => Redrove::Done,
        (0, stopped) => Redrove::Full(stopped.unwrap_or(QueueLimit::Messages(config.queue_max_messages()))),
        _ => Redrove::Changed,
    })
}

/// Reads the bound that stopped a push, if a bound did.
fn limit(config: &Config, stopped: Value) -> Result<Option<QueueLimit>, BadReply> {
    Ok(match reply::bytes(stopped)?.as_slice() {
        b"messages" => Some(QueueLimit::Messages(config.queue_max_messages())),
        b"bytes" => Some(QueueLimit::Bytes(config.queue_max_bytes())),
        _ => None,
    })
}
