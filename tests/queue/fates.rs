//! Outcomes of notifications, as both ends see them: dead letters, redriven or not, and receipts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_courier::{
    Answer, ConfigBuilder, Courier, DeadLetter, Delivery, DiscardReason, Elicitation, HandOverError, McpSession,
    Notification, Outbound, Publisher, Receipt, SessionId, TaskKey, async_trait,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::readme;
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(30);

fn config() -> ConfigBuilder {
    waiting::config()
        .dead_letters(1000)
        .backoff_initial(Duration::from_millis(2))
        .backoff_max(Duration::from_millis(20))
        .hand_over_timeout(Duration::from_millis(500))
}

async fn courier(name: &str, config: ConfigBuilder) -> Courier {
    Courier::start(&format!("memory://fates-{name}"), config.build().unwrap()).await.unwrap()
}

fn id() -> SessionId {
    SessionId::new("the-session").unwrap()
}

fn numbered(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}

fn rejected() -> Act {
    Act::Fail(HandOverError::Rejected("no".to_owned()))
}

fn transient() -> Act {
    Act::Fail(HandOverError::Transient("told to".to_owned()))
}

async fn letters(publisher: &Publisher) -> Vec<DeadLetter> {
    publisher.dead_letters().list(&id(), 0, 10_000).await.unwrap()
}

fn numbers(letters: &[DeadLetter]) -> Vec<u64> {
    let read = |letter: &DeadLetter| serde_json::from_slice::<serde_json::Value>(&letter.raw).unwrap();
    letters.iter().map(|letter| read(letter)["notification"]["params"]["n"].as_u64().unwrap()).collect()
}

async fn discarding_and_redriving(delivery: Delivery, name: &str) {
    let courier = courier(name, config().delivery(delivery).max_attempts(2)).await;
    let publisher = courier.publisher();
    let session = Recorder::scripted([rejected(), Act::Take, transient(), transient()]);
    let mut ids = Vec::new();
    for n in 1..=4 {
        ids.push(publisher.push(&id(), numbered(n).with_receipt()).await.unwrap().id);
    }
    let short = numbered(5).with_time_to_live(Duration::from_millis(1)).unwrap();
    publisher.push(&id(), short).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    session.until_taken(2).await;
    eventually("three letters", SOON, async || letters(&publisher).await.len() == 3).await;
    let kept = letters(&publisher).await;
    assert_eq!(numbers(&kept), [1, 3, 5]);
    assert_eq!(kept[0].reason, DiscardReason::Rejected("no".to_owned()));
    let exhausted = DiscardReason::AttemptsExhausted { attempts: 2, last_error: "told to".to_owned() };
    assert_eq!((&kept[1].reason, kept[1].attempts), (&exhausted, 2));
    assert_eq!((&kept[2].reason, kept[0].id), (&DiscardReason::Expired, Some(ids[0])));
    for (n, what) in [(0, false), (1, true), (2, false), (3, true)] {
        let told = publisher.until_settled(&id(), ids[n], LONG).await.unwrap();
        assert_eq!(matches!(told, Receipt::Delivered { .. }), what, "{n}: {told:?}");
    }
    let told = publisher.receipt(&id(), ids[2]).await.unwrap();
    assert!(matches!(told, Receipt::Discarded { reason, .. } if reason == exhausted));

    // The same subscriber takes them now: it has delivered none of them before.
    let only = publisher.dead_letters().redrive_only(&id(), &[ids[0], ids[2]]).await.unwrap();
    assert_eq!(only.redriven, 2);
    session.until_taken(4).await;
    assert_eq!(session.taken(), [2, 4, 1, 3]);
    for got in [2, 3].map(|n| session.outbound()[n].clone()) {
        assert!([ids[0], ids[2]].contains(&got.id));
    }
    let told = publisher.until_settled(&id(), ids[2], LONG).await.unwrap();
    assert!(matches!(told, Receipt::Delivered { .. }), "{told:?}");
    assert_eq!(numbers(&letters(&publisher).await), [5]);
}

#[actix::test]
async fn g2_what_is_discarded_is_kept_and_arrives_when_it_is_redriven() {
    discarding_and_redriving(Delivery::AtLeastOnce, "redriven").await;
}

#[actix::test]
async fn what_is_discarded_is_kept_also_where_it_is_delivered_at_most_once() {
    discarding_and_redriving(Delivery::AtMostOnce, "at-most-once").await;
}

#[actix::test]
async fn what_is_discarded_again_is_redriven_once() {
    let courier = courier("again", config()).await;
    let publisher = courier.publisher();
    let session = Recorder::new();
    session.always(Some(rejected()));
    for n in 1..=30 {
        publisher.push(&id(), numbered(n)).await.unwrap();
    }
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    eventually("all letters", SOON, async || letters(&publisher).await.len() == 30).await;
    assert_eq!(publisher.dead_letters().redrive(&id()).await.unwrap().redriven, 30);
    eventually("all letters again", SOON, async || letters(&publisher).await.len() == 30).await;
    assert_eq!(numbers(&letters(&publisher).await), (1..=30).collect::<Vec<_>>());
    assert_eq!(session.offered().len(), 60);
}

#[actix::test]
async fn a_question_that_was_discarded_is_not_asked_when_it_is_redriven() {
    let courier = courier("question", config()).await;
    let publisher = courier.publisher();
    let session = Recorder::scripted([rejected()]);
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    let task = TaskKey::anonymous("t").unwrap();
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}});
    let question = Elicitation::form("Sure?", schema).unwrap();
    let answer = publisher.elicitor().elicit(&id(), &task, question, LONG).await.unwrap();
    assert!(matches!(answer, Answer::Cancel { reason: Some(why) } if why.contains("rejected")));
    eventually("its letter", SOON, async || letters(&publisher).await.len() == 1).await;
    let done = publisher.dead_letters().redrive(&id()).await.unwrap();
    assert_eq!((done.redriven, done.obsolete, done.undecodable), (0, 1, 0));
    assert_eq!(letters(&publisher).await.len(), 1);
    publisher.push(&id(), numbered(7)).await.unwrap();
    session.until_taken(1).await;
    assert_eq!(session.taken(), [7], "nothing of the question");
}

#[actix::test]
async fn a_receipt_follows_a_notification_through_its_failures() {
    let courier = courier("failures", config()).await;
    let publisher = courier.publisher();
    let session = Recorder::scripted([transient(), transient()]);
    let pushed = publisher.push(&id(), numbered(1).with_receipt()).await.unwrap();
    assert!(!publisher.receipt(&id(), pushed.id).await.unwrap().is_settled());
    let whose = id();
    let (told, ensured) = tokio::join!(
        publisher.until_settled(&whose, pushed.id, LONG),
        courier.ensure_subscriber(&whose, session.clone())
    );
    ensured.unwrap();
    assert!(matches!(told.unwrap(), Receipt::Delivered { .. }));
    assert_eq!(session.offered(), [1, 1, 1]);
}

/// Rejects what is odd.
struct Picky(Mutex<Vec<u64>>);

#[async_trait]
impl McpSession for Picky {
    async fn hand_over(&self, outbound: &Outbound) -> Result<(), HandOverError> {
        let n = outbound.parse_params::<Value>().unwrap()["n"].as_u64().unwrap();
        let answer = if n % 2 == 1 { Err(HandOverError::Rejected("odd".to_owned())) } else { Ok(()) };
        if answer.is_ok() {
            self.0.lock().unwrap().push(n);
        }
        answer
    }
}

#[actix::test]
async fn g2_what_is_discarded_is_kept_once_though_redis_is_killed_again_and_again() {
    const MANY: usize = 2000;
    let mut redis = RedisServer::durable();
    let config = config().batch_messages(7).dead_letters(MANY);
    let courier = Courier::start(&redis.url(), config.build().unwrap()).await.unwrap();
    let publisher = courier.publisher();
    let batch = (0..MANY).map(|n| (id(), if n % 10 == 0 { numbered(n).with_receipt() } else { numbered(n) }));
    let pushed: Vec<_> = publisher.push_many(batch).await.into_iter().map(|pushed| pushed.unwrap().id).collect();
    let session = Arc::new(Picky(Mutex::default()));
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    let mut kills = 0;
    for part in 1..=4 {
        let until = MANY / 2 * part / 5;
        eventually("the next part", LONG, async || session.0.lock().unwrap().len() >= until).await;
        redis.kill();
        redis.start_again();
        kills += 1;
    }
    let list = async || publisher.dead_letters().list(&id(), 0, 2 * MANY).await.unwrap_or_default();
    eventually("all letters", LONG, async || list().await.len() >= MANY / 2).await;
    assert_eq!(numbers(&list().await), (0..MANY as u64).filter(|n| n % 2 == 1).collect::<Vec<_>>(), "{kills} kills");
    let mut taken = session.0.lock().unwrap().clone();
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken, (0..MANY as u64).filter(|n| n % 2 == 0).collect::<Vec<_>>());
    for n in (0..MANY).step_by(10) {
        let told = publisher.until_settled(&id(), pushed[n], LONG).await.unwrap();
        assert!(matches!(told, Receipt::Delivered { .. }), "{n}: {told:?}");
    }
    courier.shutdown(Duration::from_secs(5)).await;
    redis.assert_no_key_without_expiry().await;
}

#[actix::test]
async fn a_worker_is_told_when_its_question_is_lost_with_a_session_that_closes() {
    let courier = courier("closed", config().delivery(Delivery::AtMostOnce)).await;
    let publisher = courier.publisher();
    courier.ensure_subscriber(&id(), Recorder::scripted([Act::Fail(HandOverError::Closed)])).await.unwrap();
    let task = TaskKey::anonymous("t").unwrap();
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}});
    let question = Elicitation::form("Sure?", schema).unwrap();
    let asked = publisher.elicitor();
    let whose = id();
    let answer = tokio::time::timeout(SOON, asked.elicit(&whose, &task, question, 10 * LONG)).await;
    assert!(matches!(answer.expect("an answer at once").unwrap(), Answer::Cancel { reason: Some(_) }));
}

#[actix::test]
async fn the_documented_rights_are_enough() {
    let redis = RedisServer::start();
    let url = redis.restricted_url(&readme::rights()).await;
    // So small that bytes are counted.
    let config = config().message_max_bytes(1024).queue_max_bytes(4096).heartbeat(Duration::from_millis(100));
    let courier = Courier::start(&url, config.build().unwrap()).await.unwrap();
    let publisher = courier.publisher();
    let session = Recorder::scripted([Act::Take, transient(), rejected()]);
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    for n in 1..=2 {
        let pushed = publisher.push(&id(), numbered(n).with_receipt()).await.unwrap();
        assert!(publisher.until_settled(&id(), pushed.id, LONG).await.unwrap().is_settled());
    }
    let dead = publisher.dead_letters();
    assert_eq!(dead.sessions().await.unwrap(), [id()]);
    assert_eq!(dead.redrive(&id()).await.unwrap().redriven, 1);
    session.until_taken(2).await;
    assert_eq!(dead.purge(&id()).await.unwrap(), 0);
    let task = TaskKey::anonymous("t").unwrap();
    let question = Elicitation::form("Sure?", json!({"type": "object", "properties": {}})).unwrap();
    // Nobody answers, so it is withdrawn at its time.
    publisher.elicitor().elicit(&id(), &task, question, Duration::from_secs(1)).await.unwrap();
    assert!(!publisher.broadcast(&numbered(3)).await.unwrap().is_empty());
    session.until_taken(4).await;
    courier.shutdown(Duration::from_secs(5)).await;
    redis.assert_no_right_was_missing().await;
}
