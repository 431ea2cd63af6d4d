use serde_json::{Value, json};

use super::*;
use crate::question::{Elicitation, TaskKey};
use crate::seal::{SealingKey, Unopened, Why};

const OWNER: &str = "p:task:anon:t:elicit:request";
const QUEUE: &str = "p:notifications:s";

fn sealing(id: &str) -> SealingKeys {
    SealingKeys::sealing(id, key(id)).unwrap()
}

/// Returns the key of an id, another for each.
fn key(id: &str) -> SealingKey {
    SealingKey::from_bytes(&[id.as_bytes()[0]; SealingKey::LENGTH]).unwrap()
}

fn answers() -> [Answer; 3] {
    let Value::Object(content) = json!({"name": "secret"}) else { unreachable!() };
    [Answer::Accept(content), Answer::Decline, Answer::cancelled("secret")]
}

fn question(key: &str) -> Question {
    let elicitation = Elicitation::url("secret", "https://example.org", "e");
    let task = TaskKey::of_scope("scope", "t").unwrap();
    let question = Question::new("r", task, elicitation, Timestamp(1_000_000).to_system());
    Question { at_rest: AtRest::Sealed(key.into()), ..question }
}

#[test]
fn an_answer_is_sealed_under_the_key_of_its_question_whatever_key_the_server_seals_with() {
    let worker = sealing("a");
    let request =
        request_text(Some(&worker), OWNER, "r", r#"{"request_id":"r","message":"secret"}"#.to_owned()).unwrap();
    assert!(request.starts_with(r#"{"request_id":"r","sealed":{"v":1,"k":"a","#) && !request.contains("secret"));
    let newer = sealing("b").may_open("a", key("a")).unwrap();
    let opening = SealingKeys::opening("a", key("a")).unwrap();
    for server in [&worker, &newer, &opening] {
        for answer in answers() {
            let wire = answer_text(Some(server), OWNER, Some(request.as_bytes()), "r", &answer).unwrap();
            assert!(wire.starts_with(r#"{"request_id":"r","sealed":{"v":1,"k":"a","#) && !wire.contains("secret"));
            assert_eq!(read_answer(Some(&worker), OWNER, "r", wire.as_bytes()), Ok(Some(answer)));
            assert_eq!(read_answer(Some(&worker), OWNER, "other", wire.as_bytes()), Ok(None), "another question");
            let moved = read_answer(Some(&worker), "p:task:anon:u:elicit:request", "r", wire.as_bytes());
            assert!(matches!(moved, Err(Refused::Unopened(Unopened { why: Why::Changed, .. }))), "{moved:?}");
        }
    }
}

#[test]
fn a_plain_question_gets_a_plain_answer() {
    let request = br#"{"request_id":"r","message":"?"}"#;
    for answer in answers() {
        for request in [None, Some(&request[..]), Some(b"\xff"), Some(b"[]")] {
            let wire = answer_text(Some(&sealing("a")), OWNER, request, "r", &answer).unwrap();
            assert_eq!(wire, answer.to_wire("r"));
            for worker in [None, Some(&SealingKeys::opening("a", key("a")).unwrap())] {
                assert_eq!(read_answer(worker, OWNER, "r", wire.as_bytes()), Ok(Some(answer.clone())));
            }
        }
    }
    assert_eq!(request_text(None, OWNER, "r", "{}".to_owned()).unwrap(), "{}");
}

#[test]
fn a_plain_answer_to_a_sealed_question_is_refused_and_a_cancellation_counts() {
    let [accept, decline, cancel] = answers().map(|answer| answer.to_wire("r"));
    let read = |wire: &str| read_answer(Some(&sealing("a")), OWNER, "r", wire.as_bytes());
    assert_eq!((read(&accept), read(&decline)), (Err(Refused::Plain), Err(Refused::Plain)));
    assert_eq!(read(&cancel), Ok(Some(Answer::cancelled("secret"))));
    // An answer of FastMCP names no question.
    assert_eq!(read(r#"{"action": "accept", "content": {}}"#), Err(Refused::Plain));
}

#[test]
fn a_server_without_the_key_of_a_question_can_only_cancel_it() {
    let request = request_text(Some(&sealing("a")), OWNER, "r", "{}".to_owned()).unwrap();
    for server in [None, Some(&sealing("b"))] {
        for answer in answers() {
            let given = answer_text(server, OWNER, Some(request.as_bytes()), "r", &answer);
            match answer {
                Answer::Cancel { .. } => assert_eq!(given, Ok(answer.to_wire("r"))),
                _ => assert_eq!(given, Err(SealError::UnknownKey("a".to_owned()))),
            }
        }
    }
}

#[test]
fn an_open_question_is_stored_as_it_came() {
    let plain = Question { at_rest: AtRest::Plain, ..question("a") };
    let stored = open_question_text(Some(&sealing("a")), QUEUE, &plain);
    assert_eq!(stored, plain.to_open());
    assert_eq!(read_open_question(Some(&sealing("a")), QUEUE, stored.as_bytes()), Some(plain));
    let newer = sealing("b").may_open("a", key("a")).unwrap();
    let stored = open_question_text(Some(&newer), QUEUE, &question("a"));
    assert!(!stored.contains("secret"), "{stored}");
    assert_eq!(read_open_question(Some(&sealing("a")), QUEUE, stored.as_bytes()), Some(question("a")));
}

#[test]
fn an_open_question_that_cannot_be_opened_can_be_cancelled() {
    let stored = open_question_text(Some(&sealing("a")), QUEUE, &question("a"));
    let other_queue = "p:notifications:other";
    for (keys, queue) in [(None, QUEUE), (Some(&sealing("b")), QUEUE), (Some(&sealing("a")), other_queue)] {
        let read = read_open_question(keys, queue, stored.as_bytes()).unwrap();
        assert_eq!((read.request_id.as_str(), &read.task), ("r", &question("a").task));
        assert!(matches!(read.at_rest, AtRest::Refused(_)) && read.elicitation.message().is_empty());
    }
    let plain = Question { at_rest: AtRest::Plain, ..question("a") }.to_open();
    let refused = read_open_question(Some(&sealing("a").required()), QUEUE, plain.as_bytes()).unwrap();
    assert_eq!(refused.at_rest, AtRest::Refused(Box::new(Refused::Plain)));
    for stored in ["", "{}", r#"{"sealed":{}}"#, r#"{"sealed":{},"asks":{}}"#, r#"{"sealed":{},"asks":7}"#] {
        assert_eq!(read_open_question(Some(&sealing("a")), QUEUE, stored.as_bytes()), None, "{stored}");
    }
}

#[test]
fn an_open_question_that_cannot_be_sealed_is_not_stored_in_clear() {
    let stored = open_question_text(Some(&sealing("b")), QUEUE, &question("a"));
    assert!(!stored.contains("secret"), "{stored}");
    let read = read_open_question(Some(&sealing("a")), QUEUE, stored.as_bytes()).unwrap();
    assert!(matches!(read.at_rest, AtRest::Refused(_)));
}
