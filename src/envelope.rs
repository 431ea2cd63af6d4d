//! [`Envelope`]: a message of the queue, which is a notification in FastMCP's JSON with additional fields of this
//! crate.
//!
//! ```json
//! {"ttl": 300000000, "enqueued_at": "2026-11-23T10:00:00.000000+00:00", "expires_at": "…",
//!  "notification": {"method": "…", "params": {…}, "_meta": {…}}, "attempt": 0,
//!  "traceparent": "…", "tracestate": "…", "baggage": "…", "receipt": true, "id": "…", "at": 1795428000000000}
//! ```
//!
//! *Times*. `at` is the time of the push by the queue's clock, and `ttl` the time to live, both in µs. The message
//! expires at their sum. `enqueued_at` and `expires_at` are of the pusher's clock. They are for people to read.
//! Messages of FastMCP, and of earlier versions of this crate, have neither `at` nor `ttl`. Such a message expires by
//! `expires_at`, or the default time after `enqueued_at`.
//!
//! *Trace context*. `traceparent`, `tracestate` and `baggage` stand beside the notification, so that a server reads them
//! without the notification's content. Each is optional, and a bad one is dropped.
//!
//! *Sealed messages* have the field `sealed` in place of `notification`, and `asks` where they bring a question: see
//! [`seal`](crate::seal).
//!
//! *Values*. Each value stays the text that its producer wrote. No number is converted, so none is rounded.
//!
//! *Order*. `id` and `at` are last, so that the last bytes of two messages differ. An acknowledgement compares these
//! bytes, and two copies of one notification have the same id.

use std::borrow::Cow;
use std::ops::Deref;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::json::{self, Fields};
use crate::notification::{ID_KEY, NotificationId, TASK_STATUS, check_method, time_to_live_is_possible};
use crate::question::{Question, RELATED_TASK};
use crate::seal::{self, Refused, SealingKeys};
use crate::trace_context::TraceContext;

mod draft;
mod drafted;
mod mark;
mod message_id;
mod outbound;
#[cfg(feature = "server")]
mod owned;
mod sealed;
mod undecodable;
mod wire;

pub use self::draft::Draft;
pub(crate) use self::draft::Times;
use self::drafted::Drafted;
pub use self::mark::Mark;
pub use self::message_id::{InvalidMessageId, MessageId};
use self::outbound::Content;
pub use self::outbound::Outbound;
#[cfg(feature = "server")]
use self::owned::Facts;
use self::sealed::Sealing;
pub use self::undecodable::Undecodable;
use self::wire::{Wire, fields_of, trace_context};
pub use crate::timestamp::Timestamp;

/// Notification that was read from a queue.
#[derive(Debug, Clone)]
pub struct Envelope {
    outbound: Outbound,
    /// Time at which the notification was queued; `None` where the message says no time.
    pub enqueued_at: Option<Timestamp>,
    /// Time at which the notification expires; `None` where the message says no time.
    pub expires_at: Option<Timestamp>,
    /// Text of the last failed attempt, if there was one.
    pub last_error: Option<String>,
    /// Question of a task that needs input, if the notification brings one.
    pub question: Option<Box<Question>>,
    /// Set where the producer asked for a receipt.
    pub receipt: bool,
    /// Stored form of the message, where that differs from the opened one, or where the message is refused. `None` for
    /// nearly all plain messages.
    sealing: Option<Box<Sealing>>,
    #[cfg(feature = "server")]
    facts: Facts,
}

impl Envelope {
    /// Reads a message of the queue `queue`. The name of the queue goes into the id of a message that carries none.
    /// `default_time_to_live` is for a message that names no expiry. A sealed message stays closed.
    ///
    /// # Errors
    /// [`Undecodable`] names the fault of the message.
    #[cfg(all(feature = "server", any(test, feature = "testing")))]
    pub fn decode(queue: &str, raw: Vec<u8>, default_time_to_live: Duration) -> Result<Self, Undecodable> {
        Self::decode_or_give_back(queue, raw, default_time_to_live, None).map_err(|(why, _)| why)
    }

    /// Reads a message as [`decode`](Self::decode) does, opens a sealed one, and returns its bytes with an error.
    ///
    /// A message that cannot be opened is no error: its id, its times and its question are known, and its owner
    /// discards it by [`refused`](Self::refused).
    pub(crate) fn decode_or_give_back(
        queue: &str,
        raw: Vec<u8>,
        default_time_to_live: Duration,
        keys: Option<&SealingKeys>,
    ) -> Result<Self, (Undecodable, Vec<u8>)> {
        let raw = match String::from_utf8(raw) {
            Ok(raw) => raw,
            Err(error) => {
                let why = format!("it is no UTF-8 from byte {} on", error.utf8_error().valid_up_to());
                return Err((Undecodable::Json(why), error.into_bytes()));
            }
        };
        let is_required = keys.is_some_and(SealingKeys::is_required);
        match Drafted::read(&raw) {
            Some(drafted) if !is_required => Ok(Self::of_drafted(drafted, raw)),
            _ => match sealed::read_any(queue, &raw, default_time_to_live, keys) {
                Ok((envelope, Some(sealing))) => Ok(envelope.with_sealing(sealing, raw)),
                Ok((envelope, None)) if is_required => Ok(envelope.with_plain_refused(raw)),
                Ok((envelope, None)) => Ok(envelope.with_text(raw)),
                Err(why) => Err((why, raw.into_bytes())),
            },
        }
    }

    /// Creates the envelope of a message in the form of a draft, of which nothing is copied.
    fn of_drafted(drafted: Drafted, raw: String) -> Self {
        let Drafted { parts, queued_at, time_to_live, trace_context, receipt, id } = drafted;
        let id = NotificationId(id);
        Self {
            outbound: Outbound {
                id,
                attempt: 0,
                message_id: MessageId::of(id, queued_at),
                generation: 0,
                trace_context,
                raw,
                content: Content::Queued(parts),
            },
            enqueued_at: Some(queued_at),
            expires_at: Some(queued_at.plus(time_to_live)),
            last_error: None,
            question: None,
            receipt,
            sealing: None,
            #[cfg(feature = "server")]
            facts: Facts { task_status: None, is_stamped: true, has_derived_id: false },
        }
    }

    /// Adds the text of a message that was read by [`of_wire`](Self::of_wire).
    fn with_text(self, raw: String) -> Self {
        Self { outbound: Outbound { raw, ..self.outbound }, ..self }
    }

    /// Creates the envelope of a message of any form. The returned envelope lacks the message's text, which the caller
    /// adds. `length` is the length of that text.
    fn of_wire(
        queue: &str,
        wire: Wire<'_>,
        length: usize,
        default_time_to_live: Duration,
    ) -> Result<Self, Undecodable> {
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
        // Equal messages share a derived id, and only their owner distinguishes them. So they get no message id.
        let message_id = wire.stamp.filter(|_| !has_derived_id).and_then(|(at, _)| MessageId::of(id, at));
        let expires_at = stamped.or_else(|| enqueued_at.map(|at| at.plus(default_time_to_live)));
        #[cfg(feature = "server")]
        let task_status = (method == TASK_STATUS).then(|| owned::task_status(&params)).flatten();
        // A `_meta` that is no object is ignored.
        let inner = params.remove("_meta");
        let mut meta = inner.and_then(|inner| Fields::of(inner).ok()).unwrap_or_default();
        meta.extend(outer);
        let (question, related) =
            meta.get(RELATED_TASK).map(|related| without_internal(&method, related, enqueued_at)).unwrap_or_default();
        match &related {
            Some(related) => meta.set(RELATED_TASK, related),
            None => drop(meta.remove(RELATED_TASK)),
        }
        let trace_context = wire.trace_context.or_else(|| trace_context(&meta)).map(Box::new);
        let question = question.map(|question| Box::new(Question { trace_context: trace_context.clone(), ..question }));
        let params = delivered(params, meta, id, trace_context.as_deref(), length);
        Ok(Self {
            outbound: Outbound {
                id,
                attempt: wire.attempt,
                message_id,
                generation: 0,
                trace_context,
                raw: String::new(),
                content: Content::Composed { method: method.into_owned(), params },
            },
            enqueued_at,
            expires_at,
            last_error: wire.last_error.map(Cow::into_owned),
            question,
            receipt: wire.receipt,
            sealing: None,
            #[cfg(feature = "server")]
            facts: Facts { task_status, is_stamped: stamped.is_some(), has_derived_id },
        })
    }

    /// Returns the text of the message in the queue.
    pub(crate) fn stored(&self) -> &str {
        self.sealing.as_ref().map_or(&self.raw, |sealing| &sealing.stored)
    }

    /// Reads the fields of the message in the queue.
    fn fields(&self) -> Result<Fields<'_>, Undecodable> {
        fields_of(self.stored())
    }

    /// Returns the reason for which the notification must not be used: it cannot be opened, or is plain and should be
    /// sealed.
    pub(crate) fn refused(&self) -> Option<&Refused> {
        self.sealing.as_ref()?.refused.as_ref()
    }

    /// Returns the notification as a new draft: the same id, the whole time to live, and no attempt counted. Unknown
    /// fields are kept. A sealed notification stays sealed under its key, also where it cannot be opened.
    ///
    /// Returns `None` where the message is not a JSON object.
    pub(crate) fn again(&self, default_time_to_live: Duration) -> Option<Draft> {
        let mut fields = self.fields().ok()?;
        let is_sealed = self.sealing.as_ref().is_some_and(|sealing| sealing.is_sealed());
        let name = if is_sealed { seal::FIELD } else { "notification" };
        let content = fields.remove(name)?;
        if is_sealed {
            fields.remove("notification");
        }
        for anew in ["attempt", "enqueued_at", "expires_at", "ttl", "at", "last_error", "id"] {
            fields.remove(anew);
        }
        let mut body = format!(",\"{name}\":{content}");
        body.push_str(",\"attempt\":0");
        fields.append_to(&mut body);
        let time_to_live = match (self.enqueued_at, self.expires_at) {
            (Some(from), Some(to)) if time_to_live_is_possible(to.since(from)) => to.since(from),
            _ => default_time_to_live,
        };
        Some(Draft::ending(body, self.id, time_to_live, self.receipt))
    }
}

/// Lets an envelope be used as the notification in it.
impl Deref for Envelope {
    type Target = Outbound;

    fn deref(&self) -> &Outbound {
        &self.outbound
    }
}

/// Reads the question in a related task. Also returns the part of the related task that the client gets, if any.
fn without_internal(method: &str, related: &str, enqueued_at: Option<Timestamp>) -> (Option<Question>, Option<String>) {
    let question = serde_json::from_str::<Value>(related).ok();
    let question = question.and_then(|related| Question::from_related_task(&related, enqueued_at));
    match Fields::of(related) {
        Ok(mut related) if method != TASK_STATUS => {
            related.remove("task_scope");
            related.remove("elicitation");
            (question, Some(related.to_text()))
        }
        // MCP: a task's status should not name its task in `_meta` too. A related task that is no object is dropped as
        // well.
        _ => (question, None),
    }
}

/// Returns the params in the form for the client, with `_meta` in them.
fn delivered(
    params: Fields<'_>,
    meta: Fields<'_>,
    id: NotificationId,
    trace_context: Option<&TraceContext>,
    about: usize,
) -> String {
    let id = json::quoted(&id.to_string());
    let parts = trace_context.into_iter().flat_map(|context| context.parts_beside(|name| meta.get(name).is_some()));
    let parts: Vec<_> = parts.map(|(name, text)| (name, json::quoted(text))).collect();
    let mut meta = meta;
    for (name, text) in &parts {
        meta.set(name, text);
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

/// Returns the id of a message that carries none. Attempts and errors do not enter the id, so each read returns the
/// same id.
fn derived_id(queue: &str, Wire { id, enqueued_at, content, .. }: &Wire<'_>) -> NotificationId {
    // The parts are joined as a JSON list, so that two different lists never give the same text.
    let name = serde_json::json!([queue, id, enqueued_at, content]).to_string();
    NotificationId::derived(name.as_bytes())
}

/// Returns the beginning of an error's text, at most 512 bytes. The text is written into the queue with its message,
/// which must not grow without bound.
pub(crate) fn shortened(error: &str) -> &str {
    shortened_to(512, error)
}

/// Returns the beginning of a text, at most `max` bytes.
pub(crate) fn shortened_to(max: usize, text: &str) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&i| text.is_char_boundary(i));
    &text[..end.unwrap_or(0)]
}

#[cfg(all(test, feature = "server"))]
mod tests;
