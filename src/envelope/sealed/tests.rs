use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::envelope::{Draft, MessageId};
use crate::notification::{Notification, NotificationId, Object};
use crate::question::{Elicitation, Question, RELATED_TASK, TaskKey};
use crate::seal::{SealingKey, Why};

const TTL: Duration = Duration::from_secs(300);
const QUEUE: &str = "mcp-courier:notifications:s";
const NOW: Timestamp = Timestamp(1_795_428_000_000_000);

fn key(byte: u8) -> SealingKey {
    SealingKey::from_bytes(&[byte; SealingKey::LENGTH]).unwrap()
}

fn keys() -> SealingKeys {
    SealingKeys::sealing("k1", key(1)).unwrap()
}

fn id() -> NotificationId {
    NotificationId(uuid::Uuid::from_u128(7))
}

fn pushed(notification: &Notification, keys: &SealingKeys, queue: &str) -> Vec<u8> {
    let draft = Draft::sealed(notification, id(), TTL, None, (keys, keys.primary().unwrap(), queue)).unwrap();
    let raw = draft.stamp(NOW);
    assert_eq!(raw.len(), draft.size(), "limits count the sealed bytes");
    raw
}

fn read(raw: Vec<u8>, keys: Option<&SealingKeys>, queue: &str) -> Envelope {
    Envelope::decode_or_give_back(queue, raw, TTL, keys).unwrap()
}

fn note(n: usize) -> Notification {
    Notification::new("notifications/secret").unwrap().with_params(json!({ "n": n })).unwrap()
}

fn asking() -> Notification {
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}});
    let asked = Elicitation::form("Sure?", schema).unwrap();
    let task = TaskKey::of_scope("client|sub", "t").unwrap();
    let question = Question::new("r", task, asked, NOW.plus(TTL).to_system());
    let mut notification = Notification::new("notifications/tasks/status").unwrap();
    notification.params = Some(Object::Text(r#"{"taskId":"t","status":"input_required"}"#.to_owned()));
    let meta = serde_json::Map::from_iter([(RELATED_TASK.to_owned(), question.to_related_task())]);
    notification.meta = Some(Object::Fields(meta));
    notification
}

#[test]
fn a_sealed_message_is_read_as_the_plain_one_and_shows_nothing() {
    for notification in [note(1), note(1).with_receipt(), note(1).with_meta(json!({"k": 1})).unwrap(), asking()] {
        let raw = pushed(&notification, &keys(), QUEUE);
        let text = String::from_utf8(raw.clone()).unwrap();
        for secret in ["secret", "params", "Sure?", "input_required", "method"] {
            assert!(!text.contains(secret), "{text}");
        }
        let plain = Draft::new(&notification, id(), TTL).stamp(NOW);
        let (sealed, plain) = (read(raw.clone(), Some(&keys()), QUEUE), read(plain, None, QUEUE));
        assert_eq!((sealed.id, sealed.enqueued_at, sealed.expires_at), (plain.id, plain.enqueued_at, plain.expires_at));
        assert_eq!((sealed.message_id, sealed.receipt), (MessageId::of(id(), NOW), plain.receipt));
        assert_eq!((sealed.method(), sealed.params()), (plain.method(), plain.params()));
        assert_eq!(sealed.to_json(), plain.to_json());
        assert_eq!(sealed.task_status(), plain.task_status());
        assert_eq!((sealed.refused(), sealed.raw()), (None, &raw[..]), "stored as it was");
        assert!(sealed.is_stamped() && !sealed.has_derived_id());
        let question = sealed.question.as_deref().cloned();
        assert_eq!(
            question.as_ref().map(|question| question.at_rest.clone()),
            plain.question.as_ref().map(|_| AtRest::Sealed("k1".into()))
        );
        let at_rest = AtRest::Plain;
        assert_eq!(question.map(|question| Question { at_rest, ..question }), plain.question.map(|question| *question));
    }
}

#[test]
fn what_cannot_be_opened_keeps_its_id_its_times_and_the_name_of_its_question() {
    let others = SealingKeys::sealing("k2", key(1)).unwrap();
    for (keys, why) in [(None, Why::NoKeys), (Some(&others), Why::UnknownKey)] {
        let read = read(pushed(&asking().with_receipt(), &self::keys(), QUEUE), keys, QUEUE);
        let refused = Refused::Unopened(Unopened { key: "k1".to_owned(), why });
        assert_eq!((read.refused(), read.id, read.receipt), (Some(&refused), id(), true));
        assert_eq!(read.expires_at, Some(NOW.plus(TTL)));
        let question = read.question.unwrap();
        assert_eq!((question.request_id.as_str(), question.task), ("r", TaskKey::of_scope("client|sub", "t").unwrap()));
        assert_eq!((question.elicitation.message(), question.at_rest), ("", AtRest::Refused(Box::new(refused))));
    }
}

#[test]
fn a_message_opens_only_in_its_queue_and_under_its_id() {
    let raw = String::from_utf8(pushed(&note(1), &keys(), QUEUE)).unwrap();
    let moved = read(raw.clone().into(), Some(&keys()), "mcp-courier:notifications:other");
    let renamed = raw.replace(&id().to_string(), &NotificationId(uuid::Uuid::from_u128(8)).to_string());
    let renamed = read(renamed.into(), Some(&keys()), QUEUE);
    let nameless = read(raw.replace("\"id\":", "\"no\":").into(), Some(&keys()), QUEUE);
    for read in [moved, renamed, nameless] {
        assert!(matches!(read.refused(), Some(Refused::Unopened(Unopened { why: Why::Changed, .. }))), "{read:?}");
        assert!(!read.to_json().contains("secret"));
    }
}

#[test]
fn a_plain_notification_beside_a_sealed_one_is_no_part_of_the_message() {
    let raw = String::from_utf8(pushed(&note(1), &keys(), QUEUE)).unwrap();
    let forged = r#""notification":{"method":"notifications/forged"}"#;
    for place in ["\"sealed\"", "\"attempt\"", "\"id\""] {
        let raw = raw.replace(place, &format!("{forged},{place}"));
        let opened = read(raw.clone().into(), Some(&keys()), QUEUE);
        assert_eq!((opened.method(), opened.refused()), ("notifications/secret", None), "{raw}");
        // The redriven message has lost the forged part, and so has no other reader either.
        let again = opened.again(TTL).unwrap().stamp(NOW);
        assert!(!String::from_utf8(again).unwrap().contains("forged"));
        assert!(read(raw.into(), None, QUEUE).refused().is_some());
    }
}

#[test]
fn a_failed_attempt_and_a_redrive_stay_sealed_under_their_key_wherever_they_happen() {
    let newer = SealingKeys::sealing("k2", key(2)).unwrap().may_open("k1", key(1)).unwrap();
    for notification in [note(1).with_receipt(), asking()] {
        let raw = pushed(&notification, &keys(), QUEUE);
        let sealed_part = |raw: &[u8]| {
            let message: Value = serde_json::from_slice(raw).unwrap();
            (message["sealed"].clone(), message["asks"].clone())
        };
        for rewriter in [None, Some(&keys()), Some(&newer)] {
            let envelope = read(raw.clone(), rewriter, QUEUE);
            let failed = envelope.after_failure("no");
            assert_eq!(sealed_part(&failed), sealed_part(&raw));
            let failed = read(failed, Some(&newer), QUEUE);
            assert_eq!((failed.attempt, failed.last_error.as_deref(), failed.id), (1, Some("no"), id()));
            assert_eq!((failed.refused(), failed.method()), (None, notification.method()));
            let again = read(failed.raw().to_vec(), rewriter, QUEUE).again(TTL).unwrap();
            assert_eq!(again.receipt.is_some(), notification == note(1).with_receipt());
            let again = again.stamp(NOW);
            assert_eq!(sealed_part(&again), sealed_part(&raw));
            let again = read(again, Some(&newer), QUEUE);
            assert_eq!((again.attempt, again.id, again.refused()), (0, id(), None));
            assert_eq!(again.params(), failed.params());
            assert_eq!(again.question, failed.question);
        }
    }
}

#[test]
fn plain_messages_are_read_by_those_with_keys_unless_what_is_sealed_is_required() {
    let fastmcp =
        br#"{"notification": {"method": "notifications/x", "params": {"n": 1}}, "attempt": 0, "sealed": true}"#;
    for raw in [Draft::new(&note(1), id(), TTL).stamp(NOW), fastmcp.to_vec()] {
        let opened = read(raw.clone(), Some(&keys()), QUEUE);
        assert_eq!((opened.refused(), opened.raw()), (None, &raw[..]));
        let refused = read(raw.clone(), Some(&keys().required()), QUEUE);
        assert_eq!((refused.refused(), refused.raw()), (Some(&Refused::Plain), &raw[..]));
    }
    let raw = pushed(&note(1), &keys(), QUEUE);
    assert_eq!(read(raw, Some(&keys().required()), QUEUE).refused(), None);
}

#[test]
fn what_was_sealed_and_is_no_notification_is_unreadable() {
    let binding = Binding { purpose: Purpose::Notification, owner: QUEUE, id: &id().to_string() };
    for text in ["", "7", "{", r#"{"method":"tools/call"}"#, r#"{"method":"notifications/x"},"more":{"a":1}"#] {
        let sealed = keys().seal("k1", &binding, text).unwrap();
        let raw = format!("{{\"sealed\":{sealed},\"id\":\"{}\",\"at\":1}}", id());
        let (_, given_back) = Envelope::decode_or_give_back(QUEUE, raw.clone().into(), TTL, Some(&keys())).unwrap_err();
        assert_eq!(given_back, raw.into_bytes(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_flipped_byte_of_a_message_shows_another_payload(n: usize, at: prop::sample::Index, bit in 0..8_u8, asks: bool) {
        let notification = if asks { asking() } else { note(n) };
        let mut raw = pushed(&notification, &keys(), QUEUE);
        let at = at.index(raw.len());
        raw[at] ^= 1 << bit;
        if let Ok(read) = Envelope::decode_or_give_back(QUEUE, raw, TTL, Some(&keys().required())) {
            // The clear fields may have changed: times, receipt, attempt. What was opened has not.
            if read.refused().is_none() {
                prop_assert_eq!((read.method(), read.id), (notification.method(), id()));
                prop_assert_eq!(read.parse_params::<Value>().unwrap()["n"].as_u64(), (!asks).then_some(n as u64));
            }
        }
    }
}
