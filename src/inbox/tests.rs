use std::time::SystemTime;

use serde_json::{Value, json};

use super::*;
use crate::notification::{Notification, Task, TaskStatus};
use crate::outcome::{DiscardReason, Receipt};
use crate::question::{Elicitation, TaskKey};
use crate::session_id::SessionStatus;

fn session() -> SessionId {
    SessionId::new("s").unwrap()
}

/// Opens an inbox on a queue of this test's own.
async fn open(test: &str, config: Config) -> Inbox {
    Inbox::open(&format!("memory://inbox-{test}"), config, &session()).await.unwrap()
}

fn numbered(n: usize) -> Notification {
    Notification::new("notifications/n").unwrap().with_params(json!({"n": n})).unwrap()
}

fn numbers(notifications: &[Outbound]) -> Vec<u64> {
    let number = |one: &Outbound| one.parse_params::<Value>().unwrap()["n"].as_u64().unwrap();
    notifications.iter().map(number).collect()
}

fn form() -> Elicitation {
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]});
    Elicitation::form("Sure?", schema).unwrap()
}

#[tokio::test]
async fn a_notification_is_received_as_its_client_would_get_it() {
    let inbox = open("received", Config::default()).await;
    // A worker with a connection of its own.
    let publisher = Publisher::connect("memory://inbox-received", Config::default()).await.unwrap();
    let notification = numbered(1).with_meta(json!({"own": true})).unwrap();
    let pushed = publisher.push(inbox.session(), notification).await.unwrap();
    assert_eq!(pushed.session, SessionStatus::Owned);

    let received = inbox.next().await.unwrap();
    assert_eq!((received.method(), received.id), ("notifications/n", pushed.id));
    let meta = json!({"own": true, "mcp-courier/id": pushed.id.to_string()});
    assert_eq!(received.parse_params::<Value>().unwrap(), json!({"n": 1, "_meta": meta}));
    inbox.assert_empty();
}

#[tokio::test]
async fn all_that_was_pushed_is_read_in_order_without_waiting() {
    let inbox = open("all", Config::builder().batch_messages(2).build().unwrap()).await;
    let publisher = inbox.publisher();
    for result in publisher.push_many((0..5).map(|n| (session(), numbered(n)))).await {
        result.unwrap();
    }
    let (mut first, rest) = (vec![inbox.next().await.unwrap()], inbox.read_all());
    first.extend(rest);
    assert_eq!(numbers(&first), [0, 1, 2, 3, 4]);
    assert_eq!(inbox.read_all().len(), 0);
    inbox.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_timeout_shows_what_came_before() {
    let inbox = open("timeout", Config::default()).await.with_timeout(Duration::from_secs(60));
    let error = inbox.next().await.unwrap_err();
    assert_eq!(format!("{error:?}"), "no notification came within 60s; received before: 0");
    for n in 0..12 {
        inbox.publisher().push(&session(), numbered(n)).await.unwrap();
        inbox.next().await.unwrap();
    }
    let error = inbox.next_question().await.unwrap_err().to_string();
    let lines: Vec<_> = error.lines().collect();
    assert_eq!(lines[0], "no question came within 60s; received before: 12");
    assert_eq!(lines.len(), 1 + SHOWN);
    assert!(lines[1].starts_with("  notifications/n {\"n\":2,"), "{error}");
    assert!(lines[SHOWN].starts_with("  notifications/n {\"n\":11,"), "{error}");
}

#[tokio::test]
async fn a_notification_that_comes_later_ends_the_wait() {
    let inbox = open("later", Config::default()).await;
    let publisher = inbox.publisher();
    let push = async {
        tokio::task::yield_now().await;
        publisher.push(&session(), numbered(7)).await.unwrap();
    };
    let (received, ()) = tokio::join!(inbox.next(), push);
    assert_eq!(numbers(&[received.unwrap()]), [7]);
}

#[tokio::test]
#[should_panic(expected = "1 were not read; the oldest:\n  notifications/n {\"n\":3,")]
async fn an_unread_notification_fails_the_check_for_emptiness() {
    let inbox = open("unread", Config::default()).await;
    inbox.publisher().push(&session(), numbered(3)).await.unwrap();
    inbox.assert_empty();
}

#[tokio::test]
async fn a_receipt_is_settled_though_the_test_reads_nothing_meanwhile() {
    let inbox = open("receipt", Config::default()).await;
    let publisher = inbox.publisher();
    let pushed = publisher.push(&session(), numbered(1).with_receipt()).await.unwrap();
    let receipt = publisher.until_settled(&session(), pushed.id, Duration::from_secs(60)).await.unwrap();
    assert!(matches!(receipt, Receipt::Delivered { .. }), "{receipt:?}");
    assert_eq!(numbers(&inbox.read_all()), [1]);
}

#[tokio::test]
async fn a_question_is_answered_and_its_status_is_received() {
    let inbox = open("question", Config::default()).await;
    let (elicitor, task, session) = (inbox.publisher().elicitor(), TaskKey::anonymous("t").unwrap(), session());
    let accepted = json!({"ok": true}).as_object().unwrap().clone();
    let misfit = json!({"ok": "yes"}).as_object().unwrap().clone();
    let (refused, declined) = (Answer::Accept(misfit), Answer::Decline);
    for (given, expected) in [
        (Answer::Accept(accepted.clone()), Some(Answer::Accept(accepted))),
        (declined.clone(), Some(declined)),
        (refused, None),
    ] {
        let worker = elicitor.elicit(&session, &task, form(), Duration::from_secs(60));
        let user = async {
            let question = inbox.next_question().await.unwrap();
            assert_eq!((question.elicitation.message(), question.task.id()), ("Sure?", "t"));
            (inbox.answer(&question, &given), inbox.answer(&question, &given))
        };
        let (outcome, answered) = tokio::join!(worker, user);
        assert_eq!(answered, (Settled::Done, Settled::NotWaiting));
        match (outcome.unwrap(), expected) {
            (outcome, Some(expected)) => assert_eq!(outcome, expected),
            (Answer::Cancel { reason: Some(reason) }, None) => assert!(reason.contains("does not fit"), "{reason}"),
            (other, None) => panic!("{other:?}"),
        }
        let status: Value = inbox.next().await.unwrap().parse_params().unwrap();
        assert_eq!((&status["status"], &status["statusMessage"]), (&json!("input_required"), &json!("Sure?")));
    }
    inbox.assert_empty();
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_withdrawn_is_cancelled_at_the_client() {
    let inbox = open("withdrawn", Config::default()).await;
    let (elicitor, task) = (inbox.publisher().elicitor(), TaskKey::anonymous("t").unwrap());
    let outcome = elicitor.elicit(&session(), &task, form(), Duration::from_secs(1)).await.unwrap();
    assert!(matches!(outcome, Answer::Cancel { reason: Some(_) }), "{outcome:?}");
    let methods: Vec<_> = inbox.read_all().iter().map(|one| one.method().to_owned()).collect();
    assert_eq!(methods, ["notifications/tasks/status", "notifications/cancelled"]);
    let question = inbox.next_question().await.unwrap();
    assert_eq!(inbox.answer(&question, &Answer::Decline), Settled::NotWaiting);
}

#[tokio::test(start_paused = true)]
async fn an_expired_notification_and_a_status_behind_the_end_are_discarded() {
    let url = "memory://inbox-discarded";
    let publisher = Publisher::connect(url, Config::default()).await.unwrap();
    let expiring = numbered(1).with_receipt().with_time_to_live(Duration::from_secs(1)).unwrap();
    let expired = publisher.push(&session(), expiring).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let inbox = Inbox::open(url, Config::default(), &session()).await.unwrap();

    let mut report = publisher.task_reporter(&session(), Task::new("t", TaskStatus::Working, SystemTime::now()));
    report.status(TaskStatus::Completed, None).await.unwrap();
    report.status(TaskStatus::Working, None).await.unwrap();
    publisher.push(&session(), numbered(2)).await.unwrap();
    let methods: Vec<_> = inbox.read_all().iter().map(|one| one.method().to_owned()).collect();
    assert_eq!(methods, ["notifications/tasks/status", "notifications/n"]);
    let receipt = publisher.receipt(&session(), expired.id).await.unwrap();
    assert!(matches!(receipt, Receipt::Discarded { reason: DiscardReason::Expired, .. }), "{receipt:?}");
}

#[tokio::test]
async fn a_full_inbox_leaves_further_notifications_in_the_queue_whose_bound_applies() {
    let config = Config::builder().queue_max_messages(2).batch_messages(1).build().unwrap();
    let inbox = open("full", config).await;
    let publisher = inbox.publisher();
    let mut accepted = 0;
    // The task of the inbox runs between two pushes.
    for n in 0..10 {
        accepted += u64::from(publisher.push(&session(), numbered(n)).await.is_ok());
        tokio::task::yield_now().await;
    }
    assert_eq!(accepted, 4, "the inbox holds two, and the queue two more");
    assert_eq!(numbers(&[inbox.next().await.unwrap()]), [0]);
    assert_eq!(numbers(&inbox.read_all()), [1, 2, 3]);
    inbox.assert_empty();
    publisher.push(&session(), numbered(4)).await.unwrap();
    assert_eq!(numbers(&[inbox.next().await.unwrap()]), [4]);
}

#[tokio::test(start_paused = true)]
async fn the_inbox_owns_its_session_until_it_is_dropped() {
    let inbox = open("owned", Config::default()).await;
    let publisher = inbox.publisher();
    tokio::time::sleep(Config::default().heartbeat() * 10).await;
    assert_eq!(publisher.push(&session(), numbered(1)).await.unwrap().session, SessionStatus::Owned);
    assert_eq!(publisher.broadcast(&numbered(2)).await.unwrap().len(), 1);
    assert_eq!(numbers(&inbox.read_all()), [1, 2]);
    drop(inbox);
    assert_eq!(publisher.push(&session(), numbered(3)).await.unwrap().session, SessionStatus::Unknown);
}

#[tokio::test(start_paused = true)]
async fn an_inbox_whose_session_is_taken_over_says_so() {
    let first = open("taken-over", Config::default()).await;
    let second = open("taken-over", Config::default()).await;
    first.publisher().push(&session(), numbered(1)).await.unwrap();
    let error = first.next().await.unwrap_err();
    assert!(matches!(error, InboxError::TakenOver), "{error}");
    assert_eq!(numbers(&second.read_all()), [1]);
    drop(second);
    first.publisher().push(&session(), numbered(2)).await.unwrap();
    assert!(matches!(first.next().await, Err(InboxError::TakenOver)), "it may have missed notifications");
}

#[tokio::test]
async fn only_a_queue_in_memory_has_inboxes() {
    for url in ["redis://:secret@127.0.0.1:1/", "unix:///run/redis.sock", "memory://", "memory", ""] {
        let error = Inbox::open(url, Config::default(), &session()).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, ConnectError::Url(_)) && text.contains("memory:// and a name"), "{url}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
}
