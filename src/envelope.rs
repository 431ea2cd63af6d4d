//! [`Envelope`]: a notification as it lies in the queue, in FastMCP's JSON with ours besides.
//!
//! ```json
//! {"ttl": 300000000, "enqueued_at": "2026-11-23T10:00:00.000000+00:00", "expires_at": "…",
//!  "notification": {"method": "…", "params": {…}, "_meta": {…}}, "attempt": 0,
//!  "traceparent": "…", "receipt": true, "id": "…", "at": 1795428000000000}
//! ```
//!
//! `at` is the time of the push by the queue's own clock, `ttl` the time to live, both in µs: the message expires at their sum.
//! `enqueued_at` and `expires_at` are of the pusher's clock, for people to read. Messages without `at` and `ttl`, which are
//! FastMCP's and those of this crate before it wrote them, expire by `expires_at`, or the default time after `enqueued_at`.
//!
//! Values stay the text that their producer wrote: a number that passes through here is never read.
//!
//! `id` and `at` stand last, so that the last bytes of two messages differ, also of two copies of one notification: the
//! acknowledgement compares them.

use std::borrow::Cow;
use std::ops::Deref;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::json::{self, Fields};
use crate::notification::{
    ID_KEY, InvalidNotification, NotificationId, TASK_STATUS, check_method, time_to_live_is_possible,
};
use crate::question::{Question, RELATED_TASK};

mod draft;
mod drafted;
mod message_id;
mod outbound;
mod wire;

pub use self::draft::Draft;
pub(crate) use self::draft::Times;
use self::drafted::Drafted;
pub use self::message_id::{InvalidMessageId, MessageId};
use self::outbound::Content;
pub use self::outbound::Outbound;
use self::wire::{Wire, fields_of};
pub use crate::timestamp::Timestamp;

/// A notification as it came out of the queue.
#[derive(Debug, Clone)]
pub struct Envelope {
    outbound: Outbound,
    /// When it was queued, where that is known.
    pub enqueued_at: Option<Timestamp>,
    /// When it becomes worthless, where that is known.
    pub expires_at: Option<Timestamp>,
    /// What the last failed attempt said.
    pub last_error: Option<String>,
    /// The question that it brings, if it says that a task needs input.
    pub question: Option<Box<Question>>,
    /// Whether its producer asked for a receipt.
    pub receipt: bool,
    /// Id of the task whose status the notification tells, and whether that status is its last.
    task_status: Option<Box<(String, bool)>>,
    /// Whether the queue stamped the times. Otherwise they are of the producer's clock.
    is_stamped: bool,
    /// Whether the message carries no id, so that its equals derive the same.
    has_derived_id: bool,
}

/// A message in the queue is none of ours nor of FastMCP's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// It is no JSON object of that form.
    #[error("not an envelope: {0}")]
    Json(String),
    /// What is in it is no notification.
    #[error(transparent)]
    Notification(#[from] InvalidNotification),
}

impl Envelope {
    /// Reads a message of the queue `queue`, whose name goes into the id of one that has none.
    ///
    /// # Errors
    /// [`Undecodable`] says what is wrong with it.
    pub fn decode(queue: &str, raw: Vec<u8>, default_time_to_live: Duration) -> Result<Self, Undecodable> {
        Self::decode_or_give_back(queue, raw, default_time_to_live).map_err(|(why, _)| why)
    }

    /// The same; the message comes back where it says nothing.
    pub(crate) fn decode_or_give_back(
        queue: &str,
        raw: Vec<u8>,
        default_time_to_live: Duration,
    ) -> Result<Self, (Undecodable, Vec<u8>)> {
        let raw = match String::from_utf8(raw) {
            Ok(raw) => raw,
            Err(error) => {
                let why = format!("it is no UTF-8 from byte {} on", error.utf8_error().valid_up_to());
                return Err((Undecodable::Json(why), error.into_bytes()));
            }
        };
        match Drafted::read(&raw) {
            Some(drafted) => Ok(Self::of_drafted(drafted, raw)),
            None => Self::read_any(queue, raw, default_time_to_live).map_err(|(why, raw)| (why, raw.into_bytes())),
        }
    }

    fn of_drafted(drafted: Drafted, raw: String) -> Self {
        let Drafted { parts, queued_at, time_to_live, receipt, id } = drafted;
        let id = NotificationId(id);
        Self {
            outbound: Outbound {
                id,
                attempt: 0,
                message_id: MessageId::of(id, queued_at),
                opened: 0,
                raw,
                content: Content::Queued(parts),
            },
            enqueued_at: Some(queued_at),
            expires_at: Some(queued_at.plus(time_to_live)),
            last_error: None,
            question: None,
            receipt,
            task_status: None,
            is_stamped: true,
            has_derived_id: false,
        }
    }

    fn read_any(queue: &str, raw: String, default_time_to_live: Duration) -> Result<Self, (Undecodable, String)> {
        match Self::read_wire(queue, &raw, default_time_to_live) {
            Ok(envelope) => Ok(Self { outbound: Outbound { raw, ..envelope.outbound }, ..envelope }),
            Err(why) => Err((why, raw)),
        }
    }

    /// Reads a message of any form. What is read has all of it but its text.
    fn read_wire(queue: &str, raw: &str, default_time_to_live: Duration) -> Result<Self, Undecodable> {
        let wire = Wire::read(raw)?;
        check_method(&wire.method)?;
        let (id, has_derived_id) = match wire.id.as_deref().map(Uuid::parse_str) {
            Some(Ok(id)) => (NotificationId(id), false),
            _ => (derived_id(queue, &wire), true),
        };
        let Wire { method, mut params, meta: outer, .. } = wire;
        let (enqueued_at, stamped) = match wire.stamp {
            Some((at, time_to_live)) => (Some(at), Some(at.plus(time_to_live))),
            None => [&wire.enqueued_at, &wire.expires_at].map(|at| at.as_deref().and_then(Timestamp::parse)).into(),
        };
        // Equal messages share a derived id, and only their owner tells them apart.
        let message_id = wire.stamp.filter(|_| !has_derived_id).and_then(|(at, _)| MessageId::of(id, at));
        let expires_at = stamped.or_else(|| enqueued_at.map(|at| at.plus(default_time_to_live)));
        let task_status = (method == TASK_STATUS).then(|| task_status(&params)).flatten();
        // Anything but an object says nothing.
        let inner = params.remove("_meta");
        let mut meta = inner.and_then(|inner| Fields::of(inner).ok()).unwrap_or_default();
        meta.extend(outer);
        let (question, related) =
            meta.get(RELATED_TASK).map(|related| without_internal(&method, related, enqueued_at)).unwrap_or_default();
        match &related {
            Some(related) => meta.set(RELATED_TASK, related),
            None => drop(meta.remove(RELATED_TASK)),
        }
        let params = delivered(params, meta, id, wire.traceparent.as_deref(), raw.len());
        Ok(Self {
            outbound: Outbound {
                id,
                attempt: wire.attempt,
                message_id,
                opened: 0,
                raw: String::new(),
                content: Content::Composed { method: method.into_owned(), params },
            },
            enqueued_at,
            expires_at,
            last_error: wire.last_error.map(Cow::into_owned),
            question: question.map(Box::new),
            receipt: wire.receipt,
            task_status: task_status.map(Box::new),
            is_stamped: stamped.is_some(),
            has_derived_id,
        })
    }

    /// Returns the notification as the client gets it.
    pub(crate) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Notes for which opening of the client's stream it is delivered.
    pub(crate) fn set_opened(&mut self, opened: u64) {
        self.outbound.opened = opened;
    }

    /// Counts one more failed attempt. What lies in the queue stays as it is.
    pub(crate) fn count_attempt(&mut self) {
        self.outbound.attempt = self.attempt.saturating_add(1);
    }

    /// Whether it must not be delivered any more.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Whether the queue stamped its times. Otherwise they are of its producer's clock.
    pub(crate) fn is_stamped(&self) -> bool {
        self.is_stamped
    }

    /// Whether it carries no id, so that its equals derive the same.
    pub(crate) fn has_derived_id(&self) -> bool {
        self.has_derived_id
    }

    /// Gives it another id, also in the params that the client gets. What lies in the queue stays as it is.
    pub(crate) fn set_id(&mut self, id: NotificationId) {
        if let Content::Composed { params, .. } = &mut self.outbound.content {
            let Ok(mut fields) = Fields::of(params) else { return };
            let meta = fields.remove("_meta").and_then(|meta| Fields::of(meta).ok()).unwrap_or_default();
            let length = params.len();
            *params = delivered(fields, meta, id, None, length);
        }
        self.outbound.id = id;
    }

    /// Corrects the time at which it was queued, and what follows from that time. What lies in the queue stays as it is.
    pub(crate) fn set_enqueued_at(&mut self, at: Timestamp, time_to_live: Duration) {
        if let (Some(question), Some(said)) = (&mut self.question, self.enqueued_at) {
            question.queued_at(said, at);
        }
        self.enqueued_at = Some(at);
        self.expires_at = Some(at.plus(time_to_live));
    }

    /// The task whose status it tells, and whether that is its end.
    pub(crate) fn task_status(&self) -> Option<(&str, bool)> {
        self.task_status.as_deref().map(|(id, is_terminal)| (id.as_str(), *is_terminal))
    }

    /// The notification as it is queued anew: the same id and the same time to live from then on, no attempt made. What we
    /// do not know in it stays. `None` where it was read from something that is no JSON object.
    pub(crate) fn again(&self, default_time_to_live: Duration) -> Option<Draft> {
        let mut fields = fields_of(&self.raw).ok()?;
        let notification = fields.remove("notification")?;
        for anew in ["attempt", "enqueued_at", "expires_at", "ttl", "at", "last_error", "id"] {
            fields.remove(anew);
        }
        let mut body = format!(",\"notification\":{notification},\"attempt\":0");
        fields.append_to(&mut body);
        let time_to_live = match (self.enqueued_at, self.expires_at) {
            (Some(from), Some(to)) if time_to_live_is_possible(to.since(from)) => to.since(from),
            _ => default_time_to_live,
        };
        Some(Draft::ending(body, self.id, time_to_live, self.receipt))
    }

    /// As it lay in the queue.
    pub(crate) fn raw(&self) -> &[u8] {
        self.raw.as_bytes()
    }

    /// The message as it must stand in the queue after one more failed attempt. What we do not know in it stays.
    pub fn after_failure(&self, error: &str) -> Vec<u8> {
        // It was decoded from this, so it can be read; were it not, the queue keeps it as it is.
        let Ok(mut fields) = fields_of(&self.raw) else { return self.raw().to_vec() };
        let attempt = self.attempt.saturating_add(1).to_string();
        let (last_error, id) = (json::quoted(shortened(error)), json::quoted(&self.id.to_string()));
        fields.set("attempt", &attempt);
        fields.set("last_error", &last_error);
        let at = fields.get("at").map(ToOwned::to_owned);
        for last in ["id", "at"] {
            fields.remove(last);
        }
        // Last: an acknowledgement tells messages apart by their last bytes.
        fields.set("id", &id);
        if let Some(at) = &at {
            fields.set("at", at);
        }
        fields.to_text().into_bytes()
    }
}

/// An envelope is read as the notification in it.
impl Deref for Envelope {
    type Target = Outbound;

    fn deref(&self) -> &Outbound {
        &self.outbound
    }
}

/// Reads the task and its status, and tells whether that is its last.
fn task_status(params: &Fields<'_>) -> Option<(String, bool)> {
    let text = |name: &str| params.get(name).and_then(json::string);
    let is_terminal = matches!(text("status")?.as_ref(), "completed" | "failed" | "cancelled");
    Some((text("taskId")?.into_owned(), is_terminal))
}

/// Reads the question in a related task, and returns what of that task the client is to see.
fn without_internal(method: &str, related: &str, enqueued_at: Option<Timestamp>) -> (Option<Question>, Option<String>) {
    let question = serde_json::from_str::<Value>(related).ok();
    let question = question.and_then(|related| Question::from_related_task(&related, enqueued_at));
    match Fields::of(related) {
        Ok(mut related) if method != TASK_STATUS => {
            related.remove("task_scope");
            related.remove("elicitation");
            (question, Some(related.to_text()))
        }
        // MCP: a task's status should not say besides whose it is. And what is no object says nothing.
        _ => (question, None),
    }
}

/// Writes params as the client gets them, with `_meta` in them.
fn delivered(
    params: Fields<'_>,
    meta: Fields<'_>,
    id: NotificationId,
    traceparent: Option<&str>,
    about: usize,
) -> String {
    let (id, traceparent) = (json::quoted(&id.to_string()), traceparent.map(json::quoted));
    let mut meta = meta;
    if let Some(traceparent) = &traceparent
        && meta.get("traceparent").is_none()
    {
        meta.set("traceparent", traceparent);
    }
    meta.remove(ID_KEY);
    meta.set(ID_KEY, &id);
    let meta = meta.to_text();
    let mut params = params;
    params.set("_meta", &meta);
    let mut text = String::with_capacity(about);
    params.write(&mut text);
    match json::on_one_line(&text) {
        Cow::Owned(line) => line,
        Cow::Borrowed(_) => text,
    }
}

/// An error's text goes back into the queue with the message, so it must not grow it without bound.
pub(crate) fn shortened(error: &str) -> &str {
    const MAX: usize = 512;
    let end = (0..=MAX.min(error.len())).rev().find(|&i| error.is_char_boundary(i));
    &error[..end.unwrap_or(0)]
}

/// The id of a message that carries none, the same at every reading: attempts and errors are left out of it.
fn derived_id(queue: &str, Wire { id, enqueued_at, content, .. }: &Wire<'_>) -> NotificationId {
    // As a list, so that no two lists of parts read alike.
    let name = serde_json::json!([queue, id, enqueued_at, content]).to_string();
    NotificationId::derived(name.as_bytes())
}

#[cfg(test)]
mod tests;
