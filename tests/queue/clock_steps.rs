//! The clock of Redis's host is set an hour forward or back, while sessions have owners and workers wait.
//!
//! Whatever Redis keeps for a time then lives an hour longer, or is gone at once. Nobody may wait for a dead process for that
//! long. Only the server has the other clock, by libfaketime: clients measure by clocks that are never set.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{Backend, OwnerToken, Permit, Posed, Settled, connect};
use mcp_courier::testing::envelope::Envelope;
use mcp_courier::{
    Answer, Config, ConfigBuilder, Courier, Elicitation, ListSubscribers, Notification, Publisher, Receipt, SessionId,
    SessionStatus, SubscriberState, TaskKey,
};
use mcp_courier_testing::child::{Child, program};
use mcp_courier_testing::eventually::{are_about, eventually};
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use redis::aio::MultiplexedConnection;
use serde_json::json;

const HOUR: i64 = 3600;
const HEARTBEAT: Duration = Duration::from_secs(1);

/// A lease is two heartbeats, and is read once in each: five are enough, on a busy machine some more.
const SOON: Duration = Duration::from_secs(10);

fn config() -> Config {
    let config: ConfigBuilder = waiting::config().heartbeat(HEARTBEAT).backoff_max(Duration::from_millis(200));
    config.build().unwrap()
}

fn shared() -> SessionId {
    SessionId::new("shared").unwrap()
}

fn alone() -> SessionId {
    SessionId::new("alone").unwrap()
}

fn numbered(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}

async fn lease(raw: &MultiplexedConnection, session: &str) -> (Option<String>, i64) {
    let mut pipe = redis::pipe();
    let key = format!("{{mcp-courier:notifications:{session}}}:lease");
    pipe.cmd("GET").arg(&key).cmd("PTTL").arg(&key);
    pipe.query_async(&mut raw.clone()).await.unwrap()
}

/// Not a test: a server process that owns two sessions, until it is killed.
#[actix::test]
#[ignore = "the program of a child process"]
async fn server_process() {
    let Ok(url) = std::env::var("CLOCK_STEPS_REDIS") else { return };
    let courier = Courier::start(&url, config()).await.unwrap();
    for session in [shared(), alone()] {
        courier.ensure_subscriber(&session, Recorder::new()).await.unwrap();
    }
    std::future::pending::<()>().await;
}

fn server(redis: &RedisServer) -> Child {
    Child::start(program(module_path!(), "server_process").env("CLOCK_STEPS_REDIS", redis.url())).unwrap()
}

#[actix::test]
async fn g4_g8_who_stands_by_follows_a_killed_owner_and_deliveries_go_on_though_the_clock_is_set() {
    let redis = RedisServer::with_own_clock();
    let raw = redis.connection().await;
    let courier = Courier::start(&redis.url(), config()).await.unwrap();
    let queue = connect(&redis.url(), Arc::new(config())).await.unwrap();
    let recorder = Recorder::new();
    let state = async || courier.supervisor().send(ListSubscribers).await.unwrap()[0].state;
    let push = async |n| courier.publisher().push(&shared(), numbered(n)).await.unwrap();
    courier.ensure_subscriber(&shared(), recorder.clone()).await.unwrap();
    push(1).await;
    recorder.until_taken(1).await;

    let mut killed = server(&redis);
    eventually("the newer server owns both", 3 * SOON, async || {
        state().await == SubscriberState::StandingBy && lease(&raw, "alone").await.0.is_some()
    })
    .await;
    killed.kill();
    redis.set_clock(-HOUR);
    assert!(lease(&raw, "shared").await.1 > 3_000_000, "it outlives its owner");
    let begun = Instant::now();
    push(2).await;
    recorder.until_taken(2).await;
    assert!(begun.elapsed() < SOON, "after {:?}", begun.elapsed());
    eventually("only what lives is live", SOON, async || queue.live_sessions().await.unwrap() == [shared()]).await;

    // Forward, and back again: the owner lives, and is heard of again within a heartbeat.
    for (seconds, n) in [(0, 3), (HOUR, 4), (0, 5), (-HOUR, 6)] {
        redis.set_clock(seconds);
        let begun = Instant::now();
        push(n).await;
        recorder.until_taken(n).await;
        assert!(begun.elapsed() < SOON, "{seconds}: after {:?}", begun.elapsed());
        // A wait that the server times by its clock is given up five seconds after it should have ended.
        eventually("the lease is renewed as it should be", 2 * SOON, async || {
            let (owner, life) = lease(&raw, "shared").await;
            owner.is_some() && (1..=2000).contains(&life) && queue.live_sessions().await.unwrap() == [shared()]
        })
        .await;
    }
    assert_eq!(recorder.taken(), [1, 2, 3, 4, 5, 6]);
    redis.assert_no_key_without_expiry().await;
    courier.shutdown(SOON).await;
}

#[tokio::test]
async fn a_task_whose_asker_died_can_ask_again_and_a_living_asker_has_its_answer_though_the_clock_is_set() {
    let redis = RedisServer::with_own_clock();
    let raw = redis.connection().await;
    let queue = connect(&redis.url(), Arc::new(config())).await.unwrap();
    let publisher = Publisher::connect(&redis.url(), config()).await.unwrap();
    let (task, patience) = (TaskKey::anonymous("t").unwrap(), Duration::from_secs(60));
    let dead = json!({"request_id": "dead", "message": "?"}).to_string();
    assert_ne!(queue.pose(&task, "dead", dead, patience).await.unwrap(), Posed::Busy);
    redis.set_clock(-HOUR);

    let elicitor = publisher.elicitor();
    let asked = task.clone();
    let worker = tokio::spawn(async move {
        let schema = json!({"type": "object", "properties": {}});
        elicitor.elicit(&shared(), &asked, Elicitation::form("Sure?", schema).unwrap(), patience).await
    });
    let request_id = async || {
        let mut get = redis::cmd("GET");
        get.arg("mcp-courier:task:anon:t:elicit:request");
        let request: Option<String> = get.query_async(&mut raw.clone()).await.unwrap();
        let request: serde_json::Value = serde_json::from_str(&request?).unwrap();
        Some(request["request_id"].as_str().unwrap().to_owned())
    };
    // An asker is believed to live for fifteen seconds.
    eventually("the next question is under way", 3 * SOON, async || {
        request_id().await.is_some_and(|request_id| request_id != "dead")
    })
    .await;
    let request_id = request_id().await.unwrap();

    redis.set_clock(-2 * HOUR);
    let settled = queue.settle(&task, &request_id, &Answer::Decline).await.unwrap();
    assert_eq!(settled, Settled::Done);
    let answer = tokio::time::timeout(SOON, worker).await.expect("an answer").unwrap().unwrap();
    assert_eq!(answer, Answer::Decline);
}

#[tokio::test]
async fn a_receipt_does_not_wait_for_an_owner_who_died_before_the_clock_was_set() {
    let redis = RedisServer::with_own_clock();
    let queue: Arc<dyn Backend> = connect(&redis.url(), Arc::new(config())).await.unwrap();
    let publisher = Publisher::connect(&redis.url(), config()).await.unwrap();
    let mut dead = queue.open(&shared(), OwnerToken::new(), Arc::new(Permit::new())).await.unwrap();
    dead.claim().await.unwrap();
    drop(dead);
    redis.set_clock(-HOUR);
    let short = numbered(1).with_time_to_live(Duration::from_millis(10)).unwrap().with_receipt();
    let id = publisher.push(&shared(), short).await.unwrap().id;
    eventually("it has expired", SOON, async || {
        matches!(publisher.receipt(&shared(), id).await.unwrap(), Receipt::Expired)
    })
    .await;
}

#[tokio::test]
async fn a_push_tells_of_no_owner_who_died_before_the_clock_was_set_and_keeps_no_queue_for_it() {
    let redis = RedisServer::with_own_clock();
    let raw = redis.connection().await;
    let queue: Arc<dyn Backend> = connect(&redis.url(), Arc::new(config())).await.unwrap();
    let publisher = Publisher::connect(&redis.url(), config()).await.unwrap();
    let mut dead = queue.open(&shared(), OwnerToken::new(), Arc::new(Permit::new())).await.unwrap();
    dead.claim().await.unwrap();
    drop(dead);
    redis.set_clock(-HOUR);
    assert!(lease(&raw, "shared").await.1 > 3_000_000, "it outlives its owner");
    eventually("nobody owns it", SOON, async || {
        publisher.push(&shared(), numbered(1)).await.unwrap().session != SessionStatus::Owned
    })
    .await;
    let mut pttl = redis::cmd("PTTL");
    pttl.arg("mcp-courier:notifications:shared");
    let life: i64 = pttl.query_async(&mut raw.clone()).await.unwrap();
    assert!((1..3_000_000).contains(&life), "the queue has {life} ms to live");
}

#[tokio::test]
async fn g5_a_message_expires_by_the_servers_clock_and_its_texts_follow_that_clock() {
    let redis = RedisServer::with_own_clock();
    let mut raw = redis.connection().await;
    redis.set_clock(HOUR);
    let publisher = Publisher::connect(&redis.url(), config()).await.unwrap();
    let queue: Arc<dyn Backend> = connect(&redis.url(), Arc::new(config())).await.unwrap();
    let mut owner = queue.open(&shared(), OwnerToken::new(), Arc::new(Permit::new())).await.unwrap();
    let mut pushes = async |n: usize| {
        publisher.push(&shared(), numbered(n)).await.unwrap();
        let mut newest = redis::cmd("LINDEX");
        let newest: String = newest.arg("mcp-courier:notifications:shared").arg(0).query_async(&mut raw).await.unwrap();
        let fields: serde_json::Value = serde_json::from_str(&newest).unwrap();
        let text = json!({"notification": {}, "enqueued_at": fields["enqueued_at"]}).to_string();
        let text = Envelope::decode("q", text.into_bytes(), HEARTBEAT).unwrap().enqueued_at.unwrap();
        (fields["at"].as_i64().unwrap() - text.0).abs() < 5_000_000
    };
    assert!(pushes(0).await, "whoever connects learns the server's clock");
    redis.set_clock(-HOUR);
    assert!(!pushes(1).await, "nobody knows that the clock was set");
    assert!(pushes(2).await, "the answer to the push told");
    let taken = owner.take(None).await.unwrap();
    for (item, is_of_now) in taken.items.iter().zip([false, true, true]) {
        let envelope = item.envelope.as_ref().unwrap();
        let (at, life) = (envelope.enqueued_at.unwrap(), config().time_to_live());
        assert_eq!(envelope.expires_at, Some(at.plus(life)));
        assert_eq!(are_about(at.to_system(), taken.now.to_system()), is_of_now, "{at}");
    }
}
