//! Messages of the pushers: ours, FastMCP's, and garbage. Each holds its number.

use std::time::Duration;

use fastrand::Rng;
use mcp_courier::testing::envelope::{Draft, Envelope, Timestamp};
use mcp_courier::{Notification, NotificationId};
use serde_json::json;

use super::receipts::has_receipt;

/// Kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ordinary,
    /// The session rejects it.
    Rejected,
    /// Every attempt to deliver it fails.
    Failing,
    /// The status of a task, and whether it is its last.
    Status {
        task: u8,
        is_terminal: bool,
    },
    /// It replaces an older one with its key, while nobody owns the session.
    Collapsing {
        key: u8,
    },
    /// FastMCP's: neither an id nor the time of the queue's clock.
    FastMcp,
    /// No envelope.
    Garbage,
}

/// Message on its way to the queue.
#[derive(Debug, Clone)]
pub(crate) enum Letter {
    /// Ours.
    Draft {
        draft: Draft,
        /// The same as it is pushed again, which replaces nothing.
        again: Box<Draft>,
        id: NotificationId,
        time_to_live: Duration,
    },
    Raw(Vec<u8>),
}

impl Letter {
    /// Returns the message as it is pushed again under its id.
    pub(crate) fn again(self) -> Self {
        match self {
            Self::Draft { again, id, time_to_live, .. } => {
                Self::Draft { draft: (*again).clone(), again, id, time_to_live }
            }
            raw => raw,
        }
    }
}

impl Kind {
    /// Returns the collapse key, if messages of this kind have one.
    pub(crate) fn key(self) -> Option<u8> {
        if let Self::Collapsing { key } = self { Some(key) } else { None }
    }

    pub(crate) fn draw(rng: &mut Rng, is_foreign: bool) -> Self {
        match rng.usize(..100) {
            0..3 => Self::Rejected,
            3..6 => Self::Failing,
            6..14 => Self::Status { task: rng.u8(..6), is_terminal: rng.usize(..4) == 0 },
            14..24 if is_foreign => Self::FastMcp,
            24..26 if is_foreign => Self::Garbage,
            26..46 => Self::Collapsing { key: rng.u8(..2) },
            _ => Self::Ordinary,
        }
    }
}

/// Writes message number `n`. `now` is the producer's clock.
pub(crate) fn letter(n: usize, kind: Kind, time_to_live: Duration, now: Timestamp, rng: &mut Rng) -> Letter {
    let mut params = json!({"n": n, "text": "x".repeat(rng.usize(..200))});
    let mut method = "notifications/message".to_owned();
    match kind {
        Kind::Garbage => return Letter::Raw(format!("no envelope, \"n\":{n}!").into_bytes()),
        Kind::FastMcp => {
            let message = json!({"notification": {"method": method, "params": params}, "attempt": 0,
                "enqueued_at": now.to_string()});
            return Letter::Raw(message.to_string().into_bytes());
        }
        Kind::Status { task, is_terminal } => {
            method = "notifications/tasks/status".to_owned();
            params["taskId"] = format!("task-{task}").into();
            params["status"] = if is_terminal { "completed" } else { "working" }.into();
        }
        Kind::Ordinary | Kind::Rejected | Kind::Failing | Kind::Collapsing { .. } => {}
    }
    let notification = Notification::new(method).expect("a method").with_params(params).expect("an object");
    let notification = notification.with_time_to_live(time_to_live).expect("a time to live");
    let notification = if has_receipt(n) { notification.with_receipt() } else { notification };
    let id = any_id(n, rng);
    let again = Draft::new(&notification, id, time_to_live);
    let draft = match kind {
        Kind::Collapsing { key } => {
            let notification = notification.with_collapse_key(key.to_string()).expect("a key");
            Draft::new(&notification, id, time_to_live)
        }
        _ => again.clone(),
    };
    Letter::Draft { draft, again: Box::new(again), id, time_to_live }
}

/// Returns an id that the seed decides. Ids are in the order of their numbers, as those of one worker are.
pub(crate) fn any_id(n: usize, rng: &mut Rng) -> NotificationId {
    let (high, low) = ((n as u64) << 16 | rng.u64(..1 << 16), rng.u64(..));
    let id = format!(
        "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        low & 0xfff,
        low >> 52,
        low >> 16 & 0xffff_ffff_ffff
    );
    let message = json!({"notification": {"method": "notifications/x"}, "id": id}).to_string();
    Envelope::decode("any", message.into_bytes(), Duration::from_secs(1)).expect("an envelope").id
}

/// Message of a queue: the number of its notification, and the queue's time of its push, where the message contains
/// that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Queued {
    pub(crate) n: usize,
    pub(crate) at: Option<u64>,
}

impl Queued {
    /// Reads a message as it lies in a queue.
    pub(crate) fn of(raw: &[u8]) -> Self {
        let text = std::str::from_utf8(raw).unwrap_or_default();
        let at = text.rsplit_once(",\"at\":").and_then(|(_, at)| at.trim_end_matches('}').parse().ok());
        Self { n: number(raw), at }
    }
}

/// Returns the number that stands in a message, or in its params.
pub(crate) fn number(text: &[u8]) -> usize {
    const BEFORE: &[u8] = b"\"n\":";
    let at = text.windows(BEFORE.len()).position(|window| window == BEFORE).expect("a number") + BEFORE.len();
    text[at..].iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |n, digit| n * 10 + usize::from(digit - b'0'))
}
