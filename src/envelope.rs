//! [`Envelope`]: a notification as it lies in the queue, in FastMCP's JSON with ours besides.
//!
//! ```json
//! {"notification": {"method": "…", "params": {…}, "_meta": {…}}, "attempt": 0,
//!  "enqueued_at": "2026-11-23T10:00:00.000000+00:00", "expires_at": "…", "traceparent": "…", "receipt": true, "id": "…"}
//! ```
//!
//! `id` stands last, so that the last bytes of two messages differ: the acknowledgement compares them.

use std::time::Duration;

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::error::InvalidNotification;
use crate::notification::{NotificationId, check_method, time_to_live_is_possible};
use crate::question::{Question, RELATED_TASK};

mod draft;
mod timestamp;
mod wire;

pub use self::draft::Draft;
pub use self::timestamp::Timestamp;
use self::wire::{Wire, fields_of};

/// A notification as it came out of the queue.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// Its id for its whole life.
    pub id: NotificationId,
    /// Its method.
    pub method: String,
    /// Its params, without `_meta`.
    pub params: Map<String, Value>,
    /// `params._meta` and the envelope's `_meta`, which wins.
    pub meta: Map<String, Value>,
    /// How many attempts have failed.
    pub attempt: u32,
    /// When it was queued, where that is known.
    pub enqueued_at: Option<Timestamp>,
    /// When it becomes worthless, where that is known.
    pub expires_at: Option<Timestamp>,
    /// What the last failed attempt said.
    pub last_error: Option<String>,
    /// The W3C trace context of its push.
    pub traceparent: Option<String>,
    /// The question that it brings, if it says that a task needs input.
    pub question: Option<Question>,
    /// Whether its producer asked for a receipt.
    pub receipt: bool,
    raw: Vec<u8>,
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
        match Self::read(queue, &raw, default_time_to_live) {
            Ok(envelope) => Ok(Self { raw, ..envelope }),
            Err(why) => Err((why, raw)),
        }
    }

    fn read(queue: &str, raw: &[u8], default_time_to_live: Duration) -> Result<Self, Undecodable> {
        let wire = Wire::read(raw)?;
        check_method(&wire.method)?;
        let id = match wire.id.as_deref().map(Uuid::parse_str) {
            Some(Ok(id)) => NotificationId(id),
            _ => derived_id(queue, &wire),
        };
        let Wire { method, mut params, meta: outer, .. } = wire;
        let mut meta = match params.shift_remove("_meta") {
            Some(Value::Object(meta)) => meta,
            _ => Map::new(),
        };
        meta.extend(outer);
        let enqueued_at = wire.enqueued_at.as_deref().and_then(Timestamp::parse);
        let expires_at = wire
            .expires_at
            .as_deref()
            .and_then(Timestamp::parse)
            .or_else(|| enqueued_at.map(|at| at.plus(default_time_to_live)));
        let question = take_internal(&method, &mut meta, enqueued_at);
        Ok(Self {
            id,
            method,
            params,
            meta,
            attempt: wire.attempt,
            enqueued_at,
            expires_at,
            last_error: wire.last_error,
            traceparent: wire.traceparent,
            question,
            receipt: wire.receipt,
            raw: Vec::new(),
        })
    }

    /// Whether it must not be delivered any more.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// The task whose status it tells, and whether that is its end.
    pub(crate) fn task_status(&self) -> Option<(&str, bool)> {
        if self.method != "notifications/tasks/status" {
            return None;
        }
        let text = |key: &str| self.params.get(key).and_then(Value::as_str);
        let is_terminal = matches!(text("status")?, "completed" | "failed" | "cancelled");
        Some((text("taskId")?, is_terminal))
    }

    /// The notification as it is queued anew: the same id and the same time to live from then on, no attempt made. What we
    /// do not know in it stays. `None` where it was read from something that is no JSON object.
    pub(crate) fn again(&self, default_time_to_live: Duration) -> Option<Draft> {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(&self.raw) else { return None };
        let notification = fields.shift_remove("notification")?;
        for anew in ["attempt", "enqueued_at", "expires_at", "last_error", "id"] {
            fields.shift_remove(anew);
        }
        let rest: String = fields.iter().map(|(name, value)| format!("{}:{value},", json!(name))).collect();
        let time_to_live = match (self.enqueued_at, self.expires_at) {
            (Some(from), Some(to)) if time_to_live_is_possible(to.since(from)) => to.since(from),
            _ => default_time_to_live,
        };
        Some(Draft {
            head: format!("{{\"notification\":{notification},\"attempt\":0,\"enqueued_at\":\""),
            tail: format!("\",{rest}\"id\":\"{}\"}}", self.id),
            time_to_live,
            receipt: self.receipt.then_some(self.id),
        })
    }

    /// As it lay in the queue.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The message as it must stand in the queue after one more failed attempt. What we do not know in it stays.
    pub fn after_failure(&self, error: &str) -> Vec<u8> {
        // It was decoded from this, so it can be read; were it not, the queue keeps it as it is.
        let Ok(mut fields) = fields_of(&self.raw) else { return self.raw.clone() };
        fields.insert("attempt".to_owned(), json!(self.attempt.saturating_add(1)));
        fields.insert("last_error".to_owned(), json!(shortened(error)));
        fields.shift_remove("id");
        fields.insert("id".to_owned(), json!(self.id.to_string()));
        Value::Object(fields).to_string().into_bytes()
    }
}

/// Takes out of `_meta` what is the relay's and not the client's, and reads the question in it.
fn take_internal(method: &str, meta: &mut Map<String, Value>, enqueued_at: Option<Timestamp>) -> Option<Question> {
    let related = meta.get_mut(RELATED_TASK)?;
    let question = Question::from_related_task(related, enqueued_at);
    match related.as_object_mut() {
        Some(related) if method != "notifications/tasks/status" => {
            related.shift_remove("task_scope");
            related.shift_remove("elicitation");
        }
        // MCP: a task's status should not say besides whose it is. And what is no object says nothing.
        _ => drop(meta.shift_remove(RELATED_TASK)),
    }
    question
}

/// An error's text goes back into the queue with the message, so it must not grow it without bound.
pub(crate) fn shortened(error: &str) -> &str {
    const MAX: usize = 512;
    let end = (0..=MAX.min(error.len())).rev().find(|&i| error.is_char_boundary(i));
    &error[..end.unwrap_or(0)]
}

/// The id of a message that carries none, the same at every reading: attempts and errors are left out of it.
fn derived_id(queue: &str, Wire { id, enqueued_at, content, .. }: &Wire) -> NotificationId {
    let name = json!([queue, id, enqueued_at, content]).to_string();
    NotificationId(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()))
}

fn is_uuid(id: &str) -> bool {
    Uuid::parse_str(id).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::notification::Notification;

    const TTL: Duration = Duration::from_secs(300);

    fn decode(text: &str) -> Result<Envelope, Undecodable> {
        Envelope::decode("q", text.as_bytes().to_vec(), TTL)
    }

    const FASTMCP: &str = r#"{"notification": {"method": "notifications/tasks/status", "params": {"taskId": "t"},
        "_meta": {"k": 1}}, "attempt": 1, "enqueued_at": "1970-01-01T00:00:00.5+00:00", "last_error": "x", "more": [1]}"#;

    #[test]
    fn what_fastmcp_wrote_is_read() {
        let read = decode(FASTMCP).unwrap();
        assert_eq!((read.attempt, read.last_error.as_deref()), (1, Some("x")));
        assert_eq!(read.meta["k"], json!(1));
        assert_eq!(read.expires_at, Some(read.enqueued_at.unwrap().plus(TTL)));
    }

    #[test]
    fn a_derived_id_survives_failures_and_unknown_fields_are_kept() {
        let first = decode(FASTMCP).unwrap();
        let second = Envelope::decode("q", first.after_failure("y"), TTL).unwrap();
        assert_eq!(first.id, second.id);
        assert_eq!((second.attempt, second.last_error.as_deref()), (2, Some("y")));
        let fields: Value = serde_json::from_slice(&second.raw).unwrap();
        assert_eq!(fields["more"], json!([1]));
        // FastMCP's own retry rewrites attempt and last_error: still the same notification.
        let requeued = FASTMCP.replace("\"attempt\": 1", "\"attempt\": 2").replace("\"x\"", "\"z\"");
        assert_eq!(decode(&requeued).unwrap().id, first.id);
        assert_ne!(Envelope::decode("other", FASTMCP.into(), TTL).unwrap().id, first.id);
    }

    #[test]
    fn what_the_relay_needs_never_reaches_the_client() {
        let related = json!({"taskId": "t", "status": "input_required", "task_scope": "client|sub",
            "elicitation": {"requestId": "r", "message": "Sure?", "requestedSchema": {"type": "object"}}});
        let wire = |method: &str| {
            json!({"notification": {"method": method, "params": {}, "_meta": {RELATED_TASK: related, "k": 1}},
                "enqueued_at": "1970-01-01T00:00:00.5+00:00"})
        };
        let status = decode(&wire("notifications/tasks/status").to_string()).unwrap();
        assert_eq!(Value::from(status.meta), json!({"k": 1}));
        let question = status.question.unwrap();
        assert_eq!((question.request_id.as_str(), question.task.scope()), ("r", Some("client|sub")));
        let other = decode(&wire("notifications/progress").to_string()).unwrap();
        assert_eq!(other.meta[RELATED_TASK], json!({"taskId": "t", "status": "input_required"}));
        assert!(!Value::from(other.meta).to_string().contains("client|sub"));
    }

    #[test]
    fn what_is_no_envelope_says_so() {
        for text in [
            "",
            "nonsense",
            "[]",
            "{}",
            r#"{"notification": 1}"#,
            r#"{"notification": {"params": [1]}}"#,
            r#"{"notification": {}, "attempt": -1}"#,
        ] {
            assert!(matches!(decode(text), Err(Undecodable::Json(_))), "{text}");
        }
        assert!(matches!(decode(r#"{"notification": {"method": "tools/call"}}"#), Err(Undecodable::Notification(_))));
    }

    #[test]
    fn the_id_ends_a_message_also_after_a_failure() {
        let id = NotificationId(Uuid::now_v7());
        let notification = Notification::new("notifications/x").unwrap().with_traceparent("00-\"-01");
        let fresh = Draft::new(&notification, id, TTL).stamp(Timestamp(0));
        let failed = Envelope::decode("q", fresh.clone(), TTL).unwrap().after_failure("e");
        for raw in [fresh, failed] {
            assert!(String::from_utf8(raw).unwrap().ends_with(&format!("\"id\":\"{id}\"}}")));
        }
    }

    #[test]
    fn what_is_queued_anew_is_the_same_notification_from_the_beginning() {
        let id = NotificationId(Uuid::now_v7());
        let ours = Notification::new("notifications/x").unwrap().with_traceparent("t").with_receipt();
        let ours = ours.with_time_to_live(Duration::from_secs(7)).unwrap();
        let raw = Draft::new(&ours, id, TTL).stamp(Timestamp(0));
        let failed = Envelope::decode("q", raw, TTL).unwrap().after_failure("e");
        for (raw, life) in [(failed, 7), (FASTMCP.into(), 300)] {
            let before = Envelope::decode("q", raw, TTL).unwrap();
            let draft = before.again(TTL).unwrap();
            let again = Envelope::decode("q", draft.stamp(Timestamp(1_000_000_000)), TTL).unwrap();
            assert_eq!((again.id, &again.params, &again.meta), (before.id, &before.params, &before.meta));
            assert_eq!((again.attempt, &again.last_error, again.receipt), (0, &None, before.receipt));
            assert_eq!(again.expires_at, Some(Timestamp(1_000_000_000).plus(Duration::from_secs(life))));
            assert_eq!(again.traceparent, before.traceparent);
            let (old, new) = [&before, &again].map(|e| serde_json::from_slice::<Value>(&e.raw).unwrap()).into();
            assert_eq!(old["more"], new["more"]);
            assert!(again.raw.ends_with(format!("\"id\":\"{}\"}}", before.id).as_bytes()));
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((".*", inner), 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_drafted_is_decoded(
            params in prop::collection::vec(("[^_].*", json_value()), 0..4),
            at in 0..4_000_000_000_000_000_i64,
            ttl_ms in 1..100_000_000_u64,
        ) {
            let params: Map<String, Value> = params.into_iter().collect();
            let notification = Notification::new("notifications/x").unwrap()
                .with_params(Value::Object(params.clone())).unwrap()
                .with_meta(json!({"m": 1})).unwrap()
                .with_time_to_live(Duration::from_millis(ttl_ms)).unwrap();
            let id = NotificationId(Uuid::now_v7());
            let draft = Draft::new(&notification, id, TTL);
            let raw = draft.stamp(Timestamp(at));
            prop_assert_eq!(raw.len(), draft.size());
            let read = Envelope::decode("q", raw, TTL).unwrap();
            prop_assert_eq!(read.id, id);
            prop_assert_eq!(read.params, params);
            prop_assert_eq!(read.enqueued_at, Some(Timestamp(at)));
            prop_assert_eq!(read.expires_at, Some(Timestamp(at).plus(Duration::from_millis(ttl_ms))));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(raw in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Envelope::decode("q", raw, TTL);
        }

        #[test]
        fn failing_keeps_everything_but_the_attempt(value in json_value(), error in ".*") {
            let raw = json!({"notification": {"method": "notifications/x", "params": {"v": value}}, "kept": value});
            let first = decode(&raw.to_string()).unwrap();
            let second = Envelope::decode("q", first.after_failure(&error), TTL).unwrap();
            prop_assert_eq!(second.attempt, 1);
            prop_assert_eq!(&first.params, &second.params);
            prop_assert_eq!(first.id, second.id);
            let fields: Value = serde_json::from_slice(&second.raw).unwrap();
            prop_assert_eq!(&fields["kept"], &value);
        }
    }
}
