use serde_json::json;

use super::*;

#[test]
fn a_trace_context_reaches_the_client_in_both_forms_of_a_message_and_its_question() {
    for context in [TraceContext::new(PARENT).unwrap(), TraceContext::new(PARENT).unwrap().with_baggage("k=v").unwrap()]
    {
        let id = NotificationId(Uuid::now_v7());
        let notification = Notification::new("notifications/x").unwrap().with_trace_context(context.clone());
        let fresh = Draft::new(&notification, id, TTL).stamp(Timestamp(7));
        assert!(
            matches!(Drafted::read(std::str::from_utf8(&fresh).unwrap()), Some(drafted) if drafted.trace_context.is_some())
        );
        let failed = Envelope::decode("q", fresh.clone(), TTL).unwrap().after_failure("e");
        for raw in [fresh, failed] {
            let read = Envelope::decode("q", raw, TTL).unwrap();
            assert_eq!(read.trace_context(), Some(&context));
            let meta = params(&read)["_meta"].as_object().unwrap().clone();
            assert_eq!(TraceContext::from_meta(&meta).unwrap().as_ref(), Some(&context));
        }
    }
    let related = json!({"taskId": "t", "task_scope": null, "elicitation": {"requestId": "r", "message": "?",
        "requestedSchema": {}}});
    let wire = json!({"notification": {"_meta": {RELATED_TASK: related}}, "traceparent": PARENT, "baggage": "k=v",
        "enqueued_at": "1970-01-01T00:00:00.5+00:00"});
    let question = decode(&wire.to_string()).unwrap().question.unwrap();
    assert_eq!(question.to_params()["_meta"]["traceparent"], json!(PARENT));
    let open = Question::from_open(question.to_open().as_bytes()).unwrap();
    assert_eq!((open.to_params(), open), (question.to_params(), *question));
}

#[test]
fn a_bad_trace_context_is_dropped_and_a_producers_own_meta_is_kept() {
    let read = |notification: &str, fields: &str| {
        let read = decode(&format!(r#"{{"notification": {{{notification}}}, {fields}}}"#)).unwrap();
        let mut meta = params(&read)["_meta"].clone();
        meta.as_object_mut().unwrap().remove(ID_KEY);
        (meta, read.trace_context().map(|context| context.traceparent().to_owned()))
    };
    for bad in [r#""traceparent": "t""#, r#""traceparent": 7"#, r#""traceparent": null, "tracestate": "a=1""#] {
        assert_eq!(read("", bad), (json!({}), None), "{bad}");
    }
    let whole = format!(r#""traceparent": "{PARENT}", "tracestate": "A", "baggage": ["k"]"#);
    assert_eq!(read("", &whole), (json!({"traceparent": PARENT}), Some(PARENT.to_owned())));

    let own = PARENT.replace("4b", "5b");
    let (outer, inner) =
        (format!(r#""_meta": {{"traceparent": "{own}"}}"#), r#""params": {"_meta": {"tracestate": "mine"}}"#);
    let full = format!(r#""traceparent": "{PARENT}", "tracestate": "a=1", "baggage": "k=v""#);
    assert_eq!(
        read(&outer, &full),
        (json!({"traceparent": own, "baggage": "k=v"}), Some(PARENT.to_owned())),
        "the client gets the producer's, and spans follow the push"
    );
    assert_eq!(read(inner, &full).0, json!({"tracestate": "mine", "baggage": "k=v"}));
    assert_eq!(read(&outer, r#""attempt": 0"#).1, Some(own), "a foreign producer has only its _meta");
}
