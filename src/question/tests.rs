use proptest::prelude::*;

use super::*;

fn question(scope: Option<&str>) -> Question {
    let task = match scope {
        Some(scope) => TaskKey::of_scope(scope, "t").unwrap(),
        None => TaskKey::anonymous("t").unwrap(),
    };
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}});
    Question::new("r", task, Elicitation::form("Sure?", schema).unwrap(), Timestamp(1_000_000).to_system())
}

#[test]
fn a_question_survives_the_queue() {
    let mut url = question(Some("a|b"));
    url.elicitation = Elicitation::url("Go", "https://x", "e");
    for question in [question(None), question(Some("client|sub")), url] {
        assert_eq!(Question::from_open(question.to_open().as_bytes()), Some(question));
    }
}

#[test]
fn fastmcps_metadata_without_a_scope_is_no_question() {
    let mut related = question(None).to_related_task();
    assert_eq!(related["task_scope"], Value::Null);
    related.as_object_mut().unwrap().remove("task_scope");
    assert_eq!(Question::from_related_task(&related, None), None);
}

#[test]
fn fastmcps_question_has_an_hour() {
    let mut related = question(None).to_related_task();
    related["elicitation"].as_object_mut().unwrap().remove("deadline");
    let read = Question::from_related_task(&related, Some(Timestamp(0))).unwrap();
    assert_eq!(read.deadline, std::time::UNIX_EPOCH + FASTMCP_PATIENCE);
}

#[test]
fn the_client_sees_whose_the_question_is_and_no_scope() {
    let params = Value::Object(question(Some("secret")).to_params());
    assert_eq!(params["_meta"][RELATED_TASK], json!({"taskId": "t"}));
    assert!(!params.to_string().contains("secret"));
}

#[test]
fn keys_are_fastmcps() {
    assert_eq!(question(None).task.in_key(), "anon:t");
    assert_eq!(question(Some("a|b c")).task.in_key(), "auth:a%7Cb%20c:t");
}

#[test]
fn an_answer_is_to_one_question() {
    let content = Answer::Accept(json!({"ok": true}).as_object().unwrap().clone());
    for answer in [content.clone(), Answer::Decline, Answer::cancelled("x")] {
        let wire = answer.to_wire("r");
        assert_eq!(Answer::from_wire(wire.as_bytes(), "r"), Some(answer));
        assert_eq!(Answer::from_wire(wire.as_bytes(), "other"), None);
    }
    let fastmcp = br#"{"action": "accept", "content": {"ok": true}}"#;
    assert_eq!(Answer::from_wire(fastmcp, "r"), Some(content));
}

#[test]
fn a_schema_that_mcp_does_not_allow_is_refused() {
    let nested = json!({"type": "object", "properties": {"a": {"type": "object"}}});
    for schema in [json!(1), json!({"type": "string"}), json!({"type": "object"}), nested] {
        assert!(Elicitation::form("m", schema).is_err());
    }
}

#[test]
fn a_schema_that_the_queue_could_not_hold_is_refused() {
    let of_depth = |depth| {
        let nested = (0..depth).fold(json!(1), |inner, _| Value::Array(vec![inner]));
        // The macro `json!` would recurse into such a schema.
        let mut schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        schema["properties"]["a"]["default"] = nested;
        schema
    };
    assert!(Elicitation::form("m", of_depth(94)).is_ok());
    let refused = Elicitation::form("m", of_depth(95)).unwrap_err();
    assert!(refused.to_string().contains("deeper than 97 levels"), "{refused}");
    assert!(Elicitation::form("m", of_depth(2000)).is_err());
}

/// Generates JSON that the relay reads, or nearly reads, and JSON that is far from it.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!(-1)),
        Just(json!(1e300)),
        Just(json!("")),
        Just(json!("url")),
        Just(json!("\u{0}")),
        Just(json!("9999-12-31T23:59:59Z")),
        Just(json!("99999-01-01T00:00:00Z")),
        Just(json!("0000-01-01T00:00:00Z")),
        Just(json!("x".repeat(300))),
        Just(json!([])),
        Just(json!({"type": "object", "properties": {}})),
        ".{0,20}".prop_map(Value::from),
    ]
}

const FIELDS: &[&str] = &[
    "taskId",
    "task_scope",
    "status",
    "elicitation",
    "requestId",
    "message",
    "requestedSchema",
    "mode",
    "url",
    "elicitationId",
    "deadline",
];

proptest! {
    #[test]
    fn any_two_tasks_have_keys_of_their_own(a in ".{1,9}", b in ".{1,9}", scope in ".{1,9}") {
        let task = |scope: Option<&String>, id: &String| TaskKey::checked(scope.cloned(), id.clone()).ok();
        let tasks: Vec<_> = [(None, &a), (None, &b), (Some(&scope), &a), (Some(&scope), &b), (Some(&a), &scope)]
            .into_iter().filter_map(|(scope, id)| task(scope, id)).collect();
        for one in &tasks {
            prop_assert!(one.in_key().bytes().all(|b| b.is_ascii_alphanumeric() || b":.%_~-".contains(&b)));
            for other in &tasks {
                prop_assert_eq!(one == other, one.in_key() == other.in_key());
            }
        }
    }

    #[test]
    fn whatever_the_relay_reads_can_be_kept_asked_and_read_again(
        odds in prop::collection::vec((prop::sample::select(FIELDS), any::<bool>(), odd()), 0..4),
        scope in prop::option::of(".{1,9}"),
        is_url in any::<bool>(),
        enqueued_at in prop::option::of(any::<i64>().prop_map(Timestamp)),
    ) {
        let mut good = question(None);
        if let Some(task) = scope.and_then(|scope| TaskKey::of_scope(scope, "t").ok()) {
            good.task = task;
        }
        if is_url {
            good.elicitation = Elicitation::url("Go", "https://x", "e");
        }
        let mut related = good.to_related_task();
        for (field, is_dropped, odd) in odds {
            let outer = related.as_object_mut().unwrap();
            let place = match outer.get_mut("elicitation").and_then(Value::as_object_mut) {
                Some(inner) if !matches!(field, "taskId" | "task_scope" | "status" | "elicitation") => inner,
                _ => outer,
            };
            if is_dropped { place.remove(field); } else { place.insert(field.to_owned(), odd); }
        }
        if let Some(read) = Question::from_related_task(&related, enqueued_at) {
            let kept = Question::from_open(read.to_open().as_bytes());
            prop_assert_eq!(kept, Some(read.clone()));
            let params = read.to_params();
            prop_assert!(params["message"].is_string());
            prop_assert_eq!(params.contains_key("requestedSchema"), !params.contains_key("url"));
            prop_assert!(params["_meta"][RELATED_TASK].get("task_scope").is_none());
        }
    }

    #[test]
    fn no_answer_makes_its_reader_panic_and_what_is_read_is_read_again(
        action in odd(), content in odd(), reason in odd(), request_id in odd(), bytes in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let wire = json!({"action": action, "content": content, "reason": reason, "request_id": request_id});
        let answer = Answer::from_result(&wire);
        let again = answer.to_wire("r");
        prop_assert_eq!(Answer::from_wire(again.as_bytes(), "r"), Some(answer));
        let is_to_it = request_id == "r";
        prop_assert_eq!(Answer::from_wire(wire.to_string().as_bytes(), "r").is_some(), is_to_it);
        let _ = Answer::from_wire(&bytes, "r");
        let _ = Question::from_open(&bytes);
    }

    #[cfg(feature = "rmcp")]
    #[test]
    fn a_json_rpc_id_names_one_question(id in ".*", other in ".*") {
        let ours = Question::json_rpc_id(&id);
        prop_assert_eq!(Question::id_from_json_rpc(&ours), Some(id.as_str()));
        prop_assert!(Question::id_from_json_rpc(&other).is_none_or(|id| Question::json_rpc_id(id) == other));
    }
}
