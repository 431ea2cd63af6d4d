//! Other producers' messages: FastMCP's carry no id, and the time of a clock that may be wrong. On a real Redis.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mcp_courier::testing::envelope::Timestamp;
use mcp_courier::{
    ConfigBuilder, Courier, Delivery, HandOverError, ListSubscribers, SessionId, SubscriberInfo, SubscriberState,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::log;
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use redis::aio::MultiplexedConnection;
use serde_json::json;

const QUEUE: &str = "mcp-courier:notifications:s";
const MINUTE: Duration = Duration::from_secs(60);

struct Scene {
    courier: Courier,
    session: Arc<Recorder>,
    raw: MultiplexedConnection,
    _server: RedisServer,
}

impl Scene {
    /// A client that has its stream open, and whose owner has seen its queue empty.
    async fn new(config: ConfigBuilder) -> Self {
        let scene = Self::without_owner(config).await;
        scene.serve().await;
        scene.until(|info| info.state == SubscriberState::Waiting).await;
        scene
    }

    async fn without_owner(config: ConfigBuilder) -> Self {
        let server = RedisServer::start();
        let config = config.backoff_initial(Duration::from_millis(5)).backoff_max(Duration::from_millis(50));
        let courier = Courier::start(&server.url(), config.build().unwrap()).await.unwrap();
        let raw = server.connection().await;
        Self { courier, session: Recorder::new(), raw, _server: server }
    }

    async fn serve(&self) {
        self.courier.ensure_subscriber(&SessionId::new("s").unwrap(), self.session.clone()).await.unwrap();
    }

    async fn info(&self) -> SubscriberInfo {
        self.courier.supervisor().send(ListSubscribers).await.unwrap().pop().unwrap()
    }

    async fn until(&self, wanted: impl Fn(&SubscriberInfo) -> bool) {
        eventually("the subscriber is as wanted", SOON, async || wanted(&self.info().await)).await;
    }

    /// Pushes as FastMCP does, all in one step: `(n, enqueued_at)`.
    async fn push(&mut self, messages: &[(i64, Timestamp)]) {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for (n, at) in messages {
            let notification = json!({"method": "notifications/x", "params": {"n": n}});
            let message = json!({"notification": notification, "attempt": 0, "enqueued_at": at.to_string()});
            pipe.cmd("LPUSH").arg(QUEUE).arg(message.to_string()).ignore();
            pipe.cmd("EXPIRE").arg(QUEUE).arg(300).ignore();
        }
        let () = pipe.query_async(&mut self.raw).await.unwrap();
    }

    async fn life(&mut self) -> Duration {
        let life: i64 = redis::cmd("PTTL").arg(QUEUE).query_async(&mut self.raw).await.unwrap();
        Duration::from_millis(u64::try_from(life).unwrap_or_default())
    }
}

fn now() -> Timestamp {
    Timestamp::of_this_host()
}

fn ago(age: Duration) -> Timestamp {
    Timestamp(now().0 - i64::try_from(age.as_micros()).unwrap())
}

fn not_ready() -> Act {
    Act::Fail(HandOverError::NotReady("busy".to_owned()))
}

#[actix::test]
async fn g5_what_comes_under_an_owner_does_not_expire_by_its_workers_slow_clock() {
    for delivery in [Delivery::AtLeastOnce, Delivery::AtMostOnce] {
        let mut scene = Scene::new(waiting::config().delivery(delivery)).await;
        if delivery == Delivery::AtMostOnce {
            // It sees an empty queue by the end of a wait.
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        let slow = ago(6 * MINUTE);
        scene.push(&[(1, slow), (2, slow), (3, slow)]).await;
        scene.session.until_taken(3).await;
        scene.push(&[(4, ago(60 * MINUTE)), (5, now())]).await;
        scene.session.until_taken(5).await;
        assert_eq!(scene.session.taken(), [1, 2, 3, 4, 5]);
        assert_eq!(scene.info().await.discarded, 0);
    }
}

#[actix::test]
async fn g5_what_comes_while_the_client_is_away_does_not_expire_by_its_workers_slow_clock() {
    let mut scene = Scene::new(waiting::config()).await;
    scene.session.presence().disconnected();
    scene.until(|info| info.state == SubscriberState::Parked).await;
    scene.push(&[(1, ago(6 * MINUTE))]).await;
    scene.session.presence().connected(2);
    scene.session.until_taken(1).await;
}

#[actix::test]
async fn g5_what_waits_for_a_new_owner_is_as_old_as_it_says() {
    let mut scene = Scene::without_owner(waiting::config()).await;
    scene.push(&[(1, ago(60 * MINUTE)), (2, ago(MINUTE))]).await;
    scene.serve().await;
    scene.session.until_taken(1).await;
    assert_eq!(scene.session.taken(), [2]);
    scene.until(|info| info.discarded == 1).await;
}

#[actix::test]
async fn g5_what_waits_under_an_owner_expires_in_time_though_its_workers_clock_is_wrong() {
    let life = Duration::from_secs(2);
    for said in [ago(60 * MINUTE), Timestamp(now().0 + 365 * 24 * 3_600_000_000)] {
        let mut scene = Scene::new(waiting::config().time_to_live(life)).await;
        // The client is there and its session takes nothing. The queue is read again and again.
        scene.session.always(Some(not_ready()));
        let pushed = std::time::Instant::now();
        scene.push(&[(1, said), (2, said)]).await;
        scene.session.until_offered(2).await;
        assert!(scene.life().await <= 300 * Duration::from_secs(1), "the key is not kept for a year");
        scene.until(|info| info.discarded == 2).await;
        let lived = pushed.elapsed();
        assert!(lived >= life - Duration::from_millis(100), "{lived:?}");
        assert_eq!(scene.session.taken(), [] as [i64; 0]);
    }
}

#[actix::test]
async fn g5_a_retry_does_not_make_a_slow_clocks_notification_older() {
    let transient = || Act::Fail(HandOverError::Transient("told to".to_owned()));
    let mut scene = Scene::new(waiting::config()).await;
    scene.session.always(Some(transient()));
    scene.push(&[(1, ago(6 * MINUTE))]).await;
    scene.session.until_offered(2).await;
    scene.session.always(None);
    scene.session.until_taken(1).await;
}

#[actix::test]
async fn a_wrong_clock_is_warned_of_once() {
    in_own_process!();
    log::begin();
    let mut scene = Scene::new(waiting::config()).await;
    for n in 1..=3 {
        scene.push(&[(n, ago(7 * MINUTE))]).await;
        scene.session.until_taken(usize::try_from(n).unwrap()).await;
    }
    // No other test of this process has a clock that is wrong by 400 to 499 s.
    assert_eq!(log::lines(&["a producer's clock is wrong", "off=4"]).len(), 1);
}

#[actix::test]
async fn g2_equal_messages_of_one_moment_are_all_delivered_each_under_its_own_id() {
    let transient = || Act::Fail(HandOverError::Transient("told to".to_owned()));
    for (delivery, batch, script) in [
        (Delivery::AtLeastOnce, 100, vec![]),
        (Delivery::AtLeastOnce, 1, vec![]),
        (Delivery::AtLeastOnce, 2, vec![Act::Take, transient(), Act::Take, transient(), transient()]),
        (Delivery::AtLeastOnce, 3, vec![not_ready(), Act::Take, Act::Take, not_ready()]),
        (Delivery::AtMostOnce, 1, vec![Act::Take, transient()]),
    ] {
        let mut scene = Scene::without_owner(waiting::config().batch_messages(batch).delivery(delivery)).await;
        scene.session = Recorder::scripted(script);
        let moment = now();
        scene.push(&[(1, moment); 5]).await;
        scene.serve().await;
        scene.session.until_taken(5).await;
        // And those that come later, when the first are gone.
        scene.until(|info| info.delivered == 5 && info.state == SubscriberState::Waiting).await;
        scene.push(&[(1, moment), (1, moment), (2, moment)]).await;
        scene.session.until_taken(8).await;
        assert_eq!(scene.session.taken(), [1, 1, 1, 1, 1, 1, 1, 2], "{delivery:?}, batches of {batch}");
        let ids: HashSet<_> = scene.session.outbound().iter().map(|outbound| outbound.id).collect();
        assert_eq!(ids.len(), 8, "{delivery:?}, batches of {batch}");
        for outbound in scene.session.outbound() {
            let params: serde_json::Value = outbound.parse_params().unwrap();
            assert_eq!(params["_meta"]["mcp-courier/id"], json!(outbound.id.to_string()));
        }
        scene.until(|info| (info.delivered, info.discarded) == (8, 0)).await;
    }
}
