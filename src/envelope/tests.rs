use proptest::prelude::*;

use serde_json::{Map, json};

use super::*;
use crate::notification::Notification;

mod trace_context;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Returns a trace context that has each part, and a character that JSON escapes.
fn context() -> TraceContext {
    TraceContext::new(PARENT).unwrap().with_tracestate("a=\"x\\").unwrap().with_baggage("k=v").unwrap()
}

const TTL: Duration = Duration::from_secs(300);

fn decode(text: &str) -> Result<Envelope, Undecodable> {
    Envelope::decode("q", text.as_bytes().to_vec(), TTL)
}

fn params(envelope: &Envelope) -> Value {
    envelope.parse_params().unwrap()
}

const FASTMCP: &str = r#"{"notification": {"method": "notifications/tasks/status", "params": {"taskId": "t"},
    "_meta": {"k": 1}}, "attempt": 1, "enqueued_at": "1970-01-01T00:00:00.5+00:00", "last_error": "x", "more": [1]}"#;

#[test]
fn what_fastmcp_wrote_is_read() {
    let read = decode(FASTMCP).unwrap();
    assert_eq!((read.attempt, read.last_error.as_deref()), (1, Some("x")));
    assert_eq!(params(&read)["_meta"]["k"], json!(1));
    assert_eq!(read.expires_at, Some(read.enqueued_at.unwrap().plus(TTL)));
}

#[test]
fn a_derived_id_survives_failures_and_unknown_fields_are_kept() {
    let first = decode(FASTMCP).unwrap();
    let second = Envelope::decode("q", first.after_failure("y"), TTL).unwrap();
    assert_eq!(first.id, second.id);
    assert_eq!((second.attempt, second.last_error.as_deref()), (2, Some("y")));
    let fields: Value = serde_json::from_slice(second.raw()).unwrap();
    assert_eq!(fields["more"], json!([1]));
    // FastMCP's own retry rewrites `attempt` and `last_error`. The notification is still the same.
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
    let meta = json!({"k": 1, ID_KEY: status.id.to_string()});
    assert_eq!(params(&status)["_meta"], meta);
    let question = status.question.unwrap();
    assert_eq!((question.request_id.as_str(), question.task.scope()), ("r", Some("client|sub")));
    let other = decode(&wire("notifications/progress").to_string()).unwrap();
    assert_eq!(params(&other)["_meta"][RELATED_TASK], json!({"taskId": "t", "status": "input_required"}));
    assert!(!other.params().contains("client|sub"));
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
fn the_id_and_the_queues_time_end_a_message_also_after_a_failure() {
    let id = NotificationId(Uuid::now_v7());
    let notification = Notification::new("notifications/x").unwrap().with_trace_context(context());
    let fresh = Draft::new(&notification, id, TTL).stamp(Timestamp(7));
    let failed = Envelope::decode("q", fresh.clone(), TTL).unwrap().after_failure("e");
    for raw in [fresh, failed] {
        assert!(String::from_utf8(raw).unwrap().ends_with(&format!("\"id\":\"{id}\",\"at\":7}}")));
    }
}

#[test]
fn what_is_queued_anew_is_the_same_notification_from_the_beginning() {
    let id = NotificationId(Uuid::now_v7());
    let ours = Notification::new("notifications/x").unwrap().with_trace_context(context()).with_receipt();
    let ours = ours.with_time_to_live(Duration::from_secs(7)).unwrap();
    let raw = Draft::new(&ours, id, TTL).stamp(Timestamp(0));
    let failed = Envelope::decode("q", raw, TTL).unwrap().after_failure("e");
    for (raw, life) in [(failed, 7), (FASTMCP.into(), 300)] {
        let before = Envelope::decode("q", raw, TTL).unwrap();
        let draft = before.again(TTL).unwrap();
        let again = Envelope::decode("q", draft.stamp(Timestamp(1_000_000_000)), TTL).unwrap();
        assert_eq!((again.id, again.params()), (before.id, before.params()));
        assert_eq!(again.trace_context(), before.trace_context());
        assert_eq!((again.attempt, &again.last_error, again.receipt), (0, &None, before.receipt));
        assert_eq!(again.expires_at, Some(Timestamp(1_000_000_000).plus(Duration::from_secs(life))));
        let (old, new) = [&before, &again].map(|e| serde_json::from_slice::<Value>(e.raw()).unwrap()).into();
        assert_eq!((&old["more"], &old["traceparent"]), (&new["more"], &new["traceparent"]));
        assert!(again.raw().ends_with(format!("\"id\":\"{}\",\"at\":1000000000}}", before.id).as_bytes()));
    }
}

/// Returns a message in the form that this crate wrote before `at` and `ttl`. Both times were of the queue's clock
/// then.
fn in_the_previous_form(draft: &Draft, now: Timestamp) -> String {
    let expires_at = now.plus(draft.time_to_live);
    let body = draft.body.strip_suffix(",\"at\":").unwrap();
    format!("{{\"enqueued_at\":\"{now}\",\"expires_at\":\"{expires_at}\"{body}}}")
}

fn draft_for(time_to_live: Duration) -> Draft {
    let notification = Notification::new("notifications/x").unwrap().with_receipt().with_trace_context(context());
    Draft::new(&notification.with_time_to_live(time_to_live).unwrap(), NotificationId(Uuid::now_v7()), TTL)
}

#[test]
fn at_and_ttl_count_only_together_and_as_integers() {
    let read = |fields: &str| {
        let times = r#""enqueued_at": "1970-01-01T00:00:01+00:00", "expires_at": "1970-01-01T00:00:02+00:00""#;
        let read = decode(&format!(r#"{{"notification": {{}}, {times}{fields}}}"#)).unwrap();
        assert!(read.is_stamped());
        (read.enqueued_at.unwrap().0, read.expires_at.unwrap().0)
    };
    assert_eq!(read(r#", "at": 5000000, "ttl": 1000"#), (5_000_000, 5_001_000));
    for none_of_ours in [
        "",
        r#", "at": 5000000"#,
        r#", "ttl": 1000"#,
        r#", "at": "5000000", "ttl": 1000"#,
        r#", "at": 5e6, "ttl": 1000"#,
        r#", "at": 5000000, "ttl": 1000.0"#,
        r#", "at": -5000000, "ttl": 1000"#,
        r#", "at": 5000000, "ttl": -1"#,
        r#", "at": 5000000, "ttl": 0"#,
        r#", "at": 5000000, "ttl": 99999999999999999"#,
        r#", "at": 99999999999999999999, "ttl": 1000"#,
        r#", "at": null, "ttl": {}"#,
    ] {
        assert_eq!(read(none_of_ours), (1_000_000, 2_000_000), "{none_of_ours}");
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
            prop::collection::vec((".*", inner), 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
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
        prop_assert_eq!(draft.size() - raw.len(), 16 - at.to_string().len());
        let read = Envelope::decode("q", raw, TTL).unwrap();
        prop_assert_eq!(read.id, id);
        let mut read_params = super::tests::params(&read);
            let meta = read_params.as_object_mut().unwrap().shift_remove("_meta").unwrap();
            prop_assert_eq!(read_params, Value::Object(params));
            prop_assert_eq!(meta, json!({"m": 1, ID_KEY: id.to_string()}));
        prop_assert_eq!(read.enqueued_at, Some(Timestamp(at)));
        prop_assert_eq!(read.expires_at, Some(Timestamp(at).plus(Duration::from_millis(ttl_ms))));
    }

    #[test]
    fn the_queues_time_counts_and_not_the_pushers(
        sent in any::<i64>(), at in 0..i64::MAX / 2, ttl_us in 1_000..31_536_000_000_000_u64,
    ) {
        let time_to_live = Duration::from_micros(ttl_us);
        let draft = draft_for(time_to_live);
        let raw = format!("{}{}{at}}}", Times::new(Timestamp(sent), time_to_live).text(), draft.body);
        let mut read = Envelope::decode("q", raw.into_bytes(), TTL).unwrap();
        // Failed attempts keep both fields.
        for failure in 0..3 {
            prop_assert!(read.is_stamped());
            prop_assert_eq!(read.enqueued_at, Some(Timestamp(at)));
            prop_assert_eq!(read.expires_at, Some(Timestamp(at).plus(time_to_live)));
            let raw = read.after_failure(&failure.to_string());
            let fields: Value = serde_json::from_slice(&raw).unwrap();
            prop_assert_eq!((&fields["at"], &fields["ttl"]), (&json!(at), &json!(ttl_us)));
            read = Envelope::decode("q", raw, TTL).unwrap();
        }
        // A notification that is queued again gets its whole time to live, from then on.
        let again = read.again(TTL).unwrap();
        prop_assert_eq!(again.time_to_live, time_to_live);
        let again = String::from_utf8(again.stamp(Timestamp(sent.max(0)))).unwrap();
        prop_assert_eq!((again.matches("\"at\":").count(), again.matches("\"ttl\":").count()), (1, 1));
        let again = decode(&again).unwrap();
        prop_assert_eq!(again.expires_at, Some(Timestamp(sent.max(0)).plus(time_to_live)));
    }

    #[test]
    fn the_previous_form_reads_as_this_one_and_this_one_has_all_that_its_readers_need(
        at in 0..4_000_000_000_000_000_i64, ttl_us in 1_000..31_536_000_000_000_u64,
    ) {
        let (now, draft) = (Timestamp(at), draft_for(Duration::from_micros(ttl_us)));
        let (previous, this) = (in_the_previous_form(&draft, now), String::from_utf8(draft.stamp(now)).unwrap());
        let [old, new] = [&previous, &this].map(|text| decode(text).unwrap());
        prop_assert_eq!(old.params(), new.params());
        prop_assert_eq!((old.id, old.receipt), (new.id, new.receipt));
        prop_assert_eq!((old.enqueued_at, old.expires_at), (new.enqueued_at, new.expires_at));
        prop_assert!(old.is_stamped() && new.is_stamped());
        // Without the two new fields, the message equals the previous form byte for byte.
        let rest = this.replace(&format!("\"ttl\":{ttl_us},"), "").replace(&format!(",\"at\":{at}"), "");
        prop_assert_eq!(rest, previous);
        // A message of the previous form that is queued again has the new form.
        let again = old.again(TTL).unwrap().stamp(now);
        prop_assert_eq!(String::from_utf8(again).unwrap(), String::from_utf8(new.again(TTL).unwrap().stamp(now)).unwrap());
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
        prop_assert_eq!(first.params(), second.params());
        prop_assert_eq!(first.id, second.id);
        let fields: Value = serde_json::from_slice(second.raw()).unwrap();
        prop_assert_eq!(&fields["kept"], &value);
    }
}

/// Generates the JSON text of a value, with numbers of every form.
fn json_text() -> impl Strategy<Value = String> {
    let number = "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][-+]?[0-9]{1,4})?";
    let leaf = prop_oneof![
        4 => number,
        1 => prop::sample::select(vec!["null", "true", "\"\\u0000\\ud83d\\udca9\\/\"", "\"1e2\"", "-0", "1E400", "100.00"])
            .prop_map(str::to_owned),
        1 => ".{0,5}".prop_map(|text| json!(text).to_string()),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let field = (".{0,3}", inner.clone()).prop_map(|(name, value)| format!("{} : {value}", json!(name)));
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec(field, 0..4).prop_map(|fields| format!("{{{}}}", fields.join(","))),
        ]
    })
}

/// Returns the texts of an object's fields without the id, which differs between deliveries.
fn texts(object: &str) -> Vec<(String, String)> {
    let mut fields = Fields::of(object).unwrap();
    fields.remove("_meta");
    fields.remove(ID_KEY);
    fields.each().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

proptest! {
    #[test]
    fn each_value_is_delivered_as_the_text_that_was_pushed_by_any_way(
        values in prop::collection::vec(json_text(), 0..4), meta in json_text(),
    ) {
        let params: Vec<String> = values.iter().enumerate().map(|(n, value)| format!("\"f{n}\": {value}")).collect();
        let (params, meta) = (format!("{{{}}}", params.join(", ")), format!("{{\"m\": {meta}}}"));
        let notification = Notification::new("notifications/x").unwrap();
        let pushed = notification.clone().with_params_json(&params).unwrap().with_meta_json(&meta).unwrap();
        let related = pushed.clone().related_to("t");
        let draft = |notification| Draft::new(notification, NotificationId(Uuid::now_v7()), TTL).stamp(Timestamp(0));
        let within = format!("{{\"f\": 1, \"_meta\": {meta}}}");
        let ways = [
            draft(&pushed),
            draft(&related),
            format!("{{\"notification\":{{\"method\":\"notifications/x\",\"params\":{params},\"_meta\":{meta}}}}}").into_bytes(),
            format!("{{\"notification\" : {{\n\"method\": \"notifications/x\", \"params\": {params},\n\"_meta\": {meta}}}, \"more\": {params}}}").into_bytes(),
        ];
        for raw in ways {
            let first = Envelope::decode("q", raw, TTL).unwrap();
            let failed = Envelope::decode("q", first.after_failure("e"), TTL).unwrap();
            let again = Envelope::decode("q", failed.again(TTL).unwrap().stamp(Timestamp(1)), TTL).unwrap();
            for envelope in [first, failed, again] {
                let delivered = envelope.params();
                prop_assert_eq!(texts(&delivered), texts(&params));
                let arrived = Fields::of(Fields::of(&delivered).unwrap().get("_meta").unwrap()).unwrap();
                prop_assert_eq!(arrived.get("m"), Fields::of(&meta).unwrap().get("m"));
            }
        }
        let inner = notification.with_params_json(&within).unwrap();
        let inner = Envelope::decode("q", draft(&inner), TTL).unwrap();
        let params = inner.params();
        let arrived = Fields::of(Fields::of(&params).unwrap().get("_meta").unwrap()).unwrap();
        prop_assert_eq!(arrived.get("m"), Fields::of(&meta).unwrap().get("m"));
    }
}

/// Returns everything that an envelope says, with the fields of its params and of `_meta`.
fn meaning(envelope: &Envelope) -> impl PartialEq + std::fmt::Debug + use<> {
    let fields = |object: &str| -> Vec<_> {
        Fields::of(object).unwrap().each().map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    };
    let params = fields(&envelope.params());
    let meta = fields(&params.last().unwrap().1);
    let Envelope { enqueued_at, expires_at, receipt, facts: Facts { is_stamped, has_derived_id, .. }, .. } = envelope;
    let times = (*enqueued_at, *expires_at, *is_stamped);
    let said = (envelope.id, envelope.method().to_owned(), envelope.attempt, *receipt, *has_derived_id);
    (said, times, params[..params.len() - 1].to_vec(), meta, envelope.trace_context().cloned())
}

/// Makes trace contexts with and without each optional part.
fn contexts() -> impl Strategy<Value = TraceContext> {
    let part = |pattern| prop::option::of(prop::string::string_regex(pattern).unwrap());
    (part("[a-z]=[!-+]{1,4}"), part("[a-z]=[#-+]{0,4}")).prop_map(|(tracestate, baggage)| {
        let context = TraceContext::new(PARENT).unwrap().with_tracestate(tracestate.unwrap_or_default()).unwrap();
        context.with_baggage(baggage.unwrap_or_default()).unwrap()
    })
}

proptest! {
    #[test]
    fn what_is_read_as_drafted_is_read_alike_in_any_form(
        values in prop::collection::vec(json_text(), 0..4),
        context in prop::option::of(contexts()),
        receipt in any::<bool>(),
        at in 0..i64::MAX / 2,
        change in prop::option::of((any::<prop::sample::Index>(), 0..4_usize, prop::sample::select(vec![
            "", "}", "{", "\"", ",", "0", "\\", "\n", " ", "}}", "\"},", "\":{", ",\"_meta\":{\"k\":1}", "\"b\":{}", "\"receipt\":true,",
        ]))),
    ) {
        let params: Vec<String> = values.iter().enumerate().map(|(n, value)| format!("\"f{n}\": {value}")).collect();
        let mut notification = Notification::new("notifications/x").unwrap()
            .with_params_json(&format!("{{{}}}", params.join(","))).unwrap();
        (notification.receipt, notification.trace_context) = (receipt, context.map(Box::new));
        let mut text = String::from_utf8(Draft::new(&notification, NotificationId(Uuid::now_v7()), TTL).stamp(Timestamp(at))).unwrap();
        let is_changed = change.is_some();
        if let Some((index, length, piece)) = change {
            let bounds: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let from = index.index(bounds.len());
            let end = bounds.get(from + length).copied().unwrap_or(text.len());
            text.replace_range(bounds[from]..end, piece);
        }
        let drafted = Drafted::read(&text).map(|drafted| Envelope::of_drafted(drafted, text.clone()));
        let is_simple = !is_changed && !text.contains('\\') && text.matches(['{', '[']).count() < 50;
        prop_assert!(drafted.is_some() || !is_simple, "{text} takes the longer way");
        if let Some(drafted) = drafted {
            let any = super::sealed::read_any("q", &text, TTL, None).map(|(envelope, _)| envelope.with_text(text.clone()));
            prop_assert!(any.is_ok(), "{text}: {any:?}");
            prop_assert_eq!(meaning(&drafted), meaning(&any.unwrap()), "{}", text);
        }
    }
}
