//! Sealed payloads where keys are missing, plain ones where they must be sealed, and forged answers.

use std::time::Duration;

use mcp_courier::{
    Answer, Config, ConfigBuilder, Courier, DiscardReason, Elicitation, Notification, Publisher, PushRefusal, Receipt,
    SealingKey, SealingKeys, SessionId, Settled, TaskKey,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::{Map, Value, json};

const LONG: Duration = Duration::from_secs(60);

fn key(id: &str) -> SealingKey {
    SealingKey::from_bytes(&[id.as_bytes()[0]; SealingKey::LENGTH]).unwrap()
}

fn sealing(id: &str) -> SealingKeys {
    SealingKeys::sealing(id, key(id)).unwrap()
}

fn config(keys: Option<SealingKeys>) -> ConfigBuilder {
    let config = waiting::config().dead_letters(100).backoff_initial(Duration::from_millis(2));
    match keys {
        Some(keys) => config.sealing(keys),
        None => config,
    }
}

async fn courier(url: &str, keys: Option<SealingKeys>) -> Courier {
    Courier::start(url, config(keys).build().unwrap()).await.unwrap()
}

async fn publisher(url: &str, keys: Option<SealingKeys>) -> Publisher {
    Publisher::connect(url, config(keys).build().unwrap()).await.unwrap()
}

fn id() -> SessionId {
    SessionId::new("the-session").unwrap()
}

fn task() -> TaskKey {
    TaskKey::of_scope("client|sub", "t").unwrap()
}

fn note(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}

fn question() -> Elicitation {
    Elicitation::form("Sure?", json!({"type": "object", "properties": {"ok": {"type": "boolean"}}})).unwrap()
}

async fn without_the_key_then_with_it(url: &str) {
    let without = courier(url, None).await;
    let worker = publisher(url, Some(sealing("k1"))).await;
    let session = Recorder::new();
    without.ensure_subscriber(&id(), session.clone()).await.unwrap();
    let pushed = worker.push(&id(), note(1).with_receipt()).await.unwrap();
    // A server without keys delivers the plain ones around it.
    without.publisher().push(&id(), note(2)).await.unwrap();
    let reason = DiscardReason::CannotOpen { key: "k1".to_owned(), why: "this process has no sealing keys".to_owned() };
    let settled = worker.until_settled(&id(), pushed.id, LONG).await.unwrap();
    assert!(matches!(settled, Receipt::Discarded { reason: given, .. } if given == reason));
    session.until_taken(1).await;
    // The worker of a question learns at once that nobody can ask it.
    let cancelled = worker.elicitor().elicit(&id(), &task(), question(), LONG).await.unwrap();
    let why = r#"the question cannot be used: it is sealed with key "k1" and cannot be opened: this process has no sealing keys"#;
    assert_eq!(cancelled, Answer::Cancel { reason: Some(why.to_owned()) });

    // Whoever lists the letters sees what they may.
    let [blind, seeing] = [without.publisher(), worker.clone()].map(|publisher| publisher.dead_letters());
    let letters = blind.list(&id(), 0, 10).await.unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!((letters[0].id, letters[0].method.as_deref(), &letters[0].reason), (Some(pushed.id), None, &reason));
    let raw: Value = serde_json::from_slice(&letters[0].raw).unwrap();
    assert_eq!((&raw["sealed"]["k"], &raw["notification"]), (&json!("k1"), &Value::Null), "kept as it was");
    assert_eq!(seeing.list(&id(), 0, 1).await.unwrap()[0].method.as_deref(), Some("notifications/x"));

    // Once a server has the key, even an operator without it can redrive. The question stays: its worker has gone on.
    without.shutdown(Duration::from_secs(5)).await;
    let with = courier(url, Some(sealing("k1"))).await;
    let redriven = blind.redrive(&id()).await.unwrap();
    assert_eq!((redriven.redriven, redriven.obsolete, redriven.undecodable), (1, 1, 0));
    with.ensure_subscriber(&id(), session.clone()).await.unwrap();
    session.until_taken(2).await;
    assert_eq!(session.taken(), [2, 1]);
    let settled = worker.until_settled(&id(), pushed.id, LONG).await.unwrap();
    assert!(matches!(settled, Receipt::Delivered { .. }), "{settled:?}");
    with.shutdown(Duration::from_secs(5)).await;
}

#[actix::test]
async fn what_a_server_cannot_open_is_kept_and_arrives_once_a_server_has_the_key() {
    without_the_key_then_with_it("memory://sealing-without").await;
    without_the_key_then_with_it(&RedisServer::start().url()).await;
}

#[actix::test]
async fn a_missing_key_is_logged_a_few_times() {
    mcp_courier_testing::in_own_process!();
    mcp_courier_testing::log::begin();
    let url = "memory://sealing-logged";
    let (without, worker) = (courier(url, None).await, publisher(url, Some(sealing("k1"))).await);
    for pushed in worker.push_many((0..100).map(|n| (id(), note(n)))).await {
        pushed.unwrap();
    }
    without.ensure_subscriber(&id(), Recorder::new()).await.unwrap();
    let letters = async || without.publisher().dead_letters().list(&id(), 0, 200).await.unwrap().len();
    eventually("100 letters", SOON, async || letters().await == 100).await;
    let words = ["WARN", "a notification is discarded", "k1", "this process has no sealing keys"];
    // The 1st, 2nd, 4th, 8th, 16th, 32nd and 64th.
    assert_eq!(mcp_courier_testing::log::lines(&words).len(), 7);
    without.shutdown(Duration::from_secs(5)).await;
}

#[actix::test]
async fn a_message_of_another_session_is_discarded() {
    let redis = RedisServer::start();
    let courier = courier(&redis.url(), Some(sealing("k1"))).await;
    let other = SessionId::new("other-session").unwrap();
    courier.publisher().push(&other, note(1)).await.unwrap();
    let [from, to] = ["other-session", "the-session"].map(|name| format!("mcp-courier:notifications:{name}"));
    let mut connection = redis.connection().await;
    let () = redis::cmd("LMOVE").arg(&[&from, &to, "RIGHT", "LEFT"]).query_async(&mut connection).await.unwrap();
    let session = Recorder::new();
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    courier.publisher().push(&id(), note(2)).await.unwrap();
    session.until_taken(1).await;
    assert_eq!(session.taken(), [2]);
    let letters = courier.publisher().dead_letters().list(&id(), 0, 10).await.unwrap();
    let DiscardReason::CannotOpen { key, why } = &letters[0].reason else { panic!("{letters:?}") };
    assert_eq!(key, "k1");
    assert_eq!(why, "it was changed, or sealed for another place, or with another key of the same id");
    courier.shutdown(Duration::from_secs(5)).await;
}

#[actix::test]
async fn plain_ones_are_delivered_until_what_is_sealed_is_required() {
    let redis = RedisServer::start();
    let (plain, session) = (publisher(&redis.url(), None).await, Recorder::new());
    let mut connection = redis.connection().await;
    // As FastMCP pushes.
    let fastmcp = json!({"notification": {"method": "notifications/x", "params": {"n": 1}}, "attempt": 0}).to_string();
    let push = redis::cmd("LPUSH").arg("mcp-courier:notifications:the-session").arg(&fastmcp).take();
    let tolerant = courier(&redis.url(), Some(sealing("k1"))).await;
    let () = push.query_async(&mut connection).await.unwrap();
    plain.push(&id(), note(2)).await.unwrap();
    tolerant.ensure_subscriber(&id(), session.clone()).await.unwrap();
    session.until_taken(2).await;
    tolerant.shutdown(Duration::from_secs(5)).await;

    let strict = courier(&redis.url(), Some(sealing("k1").required())).await;
    let () = push.query_async(&mut connection).await.unwrap();
    let pushed = plain.push(&id(), note(3).with_receipt()).await.unwrap();
    strict.publisher().push(&id(), note(4)).await.unwrap();
    strict.ensure_subscriber(&id(), session.clone()).await.unwrap();
    session.until_taken(3).await;
    assert_eq!(session.taken(), [1, 2, 4]);
    let settled = plain.until_settled(&id(), pushed.id, LONG).await.unwrap();
    assert!(matches!(settled, Receipt::Discarded { reason: DiscardReason::NotSealed, .. }), "{settled:?}");
    let cancelled = plain.elicitor().elicit(&id(), &task(), question(), LONG).await.unwrap();
    let why = "it is not sealed, and only what is sealed is accepted here".to_owned();
    assert_eq!(cancelled, Answer::Cancel { reason: Some(why) });
    strict.shutdown(Duration::from_secs(5)).await;
}

/// Asks a question that no server relays, and returns its id and the task that waits for the answer.
async fn asked(
    worker: &Publisher,
    redis: &RedisServer,
) -> (String, tokio::task::JoinHandle<Result<Answer, mcp_courier::ElicitError>>) {
    let elicitor = worker.elicitor();
    let answer = tokio::spawn(async move { elicitor.elicit(&id(), &task(), question(), LONG).await });
    let asker = async || -> Option<String> {
        let key = "mcp-courier:task:auth:client%7Csub:t:elicit:asker";
        redis::cmd("GET").arg(key).query_async(&mut redis.connection().await).await.unwrap()
    };
    eventually("a posed question", SOON, async || asker().await.is_some()).await;
    (asker().await.unwrap(), answer)
}

#[tokio::test]
async fn a_forged_answer_to_a_sealed_question_fails_the_question_and_says_why() {
    let redis = RedisServer::start();
    let (worker, without) = (publisher(&redis.url(), Some(sealing("k1"))).await, publisher(&redis.url(), None).await);
    let (request_id, answer) = asked(&worker, &redis).await;
    let accept = Answer::Accept(Map::from_iter([("ok".to_owned(), json!(true))]));
    assert_eq!(without.elicitor().answer(&task(), &request_id, &accept).await.unwrap(), Settled::Done);
    let error = answer.await.unwrap().unwrap_err().to_string();
    let expected = "the answer cannot be used: it is not sealed, and only what is sealed is accepted here";
    assert!(error.starts_with("reading the answer to a question at redis://") && error.ends_with(expected), "{error}");
    // A process with another key learns that it cannot answer, and loses nothing.
    let (request_id, answer) = asked(&worker, &redis).await;
    let other = publisher(&redis.url(), Some(sealing("x"))).await;
    let error = other.elicitor().answer(&task(), &request_id, &accept).await.unwrap_err().to_string();
    let expected = r#"the payload could not be sealed, and nothing was written: this process has no key "k1""#;
    assert!(error.ends_with(expected), "{error}");
    let with = publisher(&redis.url(), Some(sealing("z").may_open("k1", key("k1")).unwrap())).await;
    assert_eq!(with.elicitor().answer(&task(), &request_id, &accept).await.unwrap(), Settled::Done);
    assert_eq!(answer.await.unwrap().unwrap(), accept);
}

#[tokio::test]
async fn an_answer_that_was_sealed_for_another_question_fails_the_question() {
    let redis = RedisServer::start();
    let worker = publisher(&redis.url(), Some(sealing("k1"))).await;
    let (_, answer) = asked(&worker, &redis).await;
    let mut connection = redis.connection().await;
    let stem = "mcp-courier:task:auth:client%7Csub:t:elicit";
    // The sealed question itself, in the place of its answer.
    let request: String = redis::cmd("GET").arg(format!("{stem}:request")).query_async(&mut connection).await.unwrap();
    assert!(request.contains("sealed"), "{request}");
    let mut forge = redis::pipe();
    forge.cmd("LPUSH").arg(format!("{stem}:response")).arg(&request).ignore();
    forge.cmd("SET").arg(format!("{stem}:status")).arg("responded").arg("PX").arg(60_000).ignore();
    let () = forge.query_async(&mut connection).await.unwrap();
    let error = answer.await.unwrap().unwrap_err().to_string();
    let expected = "it was changed, or sealed for another place, or with another key of the same id";
    assert!(error.ends_with(expected), "{error}");
}

#[tokio::test]
async fn limits_count_the_sealed_bytes() {
    for url in ["memory://sealing-limits", &RedisServer::start().url()] {
        let publisher = Publisher::connect(url, config(Some(sealing("k1"))).message_max_bytes(2000).build().unwrap());
        let publisher = publisher.await.unwrap();
        let of = |bytes| Notification::new("notifications/x").unwrap().with_params(json!({"text": "x".repeat(bytes)}));
        publisher.push(&id(), of(1000).unwrap()).await.unwrap();
        let refused = publisher.push(&id(), of(1500).unwrap()).await.unwrap_err();
        assert!(matches!(refused.reason, PushRefusal::TooLarge { bytes: 2200..=2400, limit: 2000 }), "{refused}");
    }
}

#[test]
fn keys_that_seal_exclude_fastmcps_servers_and_a_demand_needs_a_key_that_seals() {
    let refused = |config: ConfigBuilder| config.build().unwrap_err().to_string();
    assert_eq!(
        refused(Config::builder().sealing(sealing("k1")).fastmcp_servers(true)),
        "sealing is SealingKeys { seals: Some(\"k1\"), opens: [\"k1\"], required: false }, but it must not seal where \
         fastmcp_servers is set, as FastMCP's servers open nothing"
    );
    let opening = SealingKeys::opening("k1", key("k1")).unwrap();
    assert!(Config::builder().sealing(opening.clone()).fastmcp_servers(true).build().is_ok());
    assert_eq!(
        refused(Config::builder().sealing(opening.required())),
        "sealing is SealingKeys { seals: None, opens: [\"k1\"], required: true }, but what is required to be sealed \
         must have a key that seals"
    );
}
