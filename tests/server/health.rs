//! Health of a server process, as an orchestrator asks for it, in trouble of each kind: with a real Redis, and with
//! sessions that block their threads.
use std::future::Future;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use mcp_courier::actix::Arbiter;
use mcp_courier::{
    Config, Courier, HandOverError, HealthPart, HealthReport, McpSession, Notification, Outbound, SessionId,
    async_trait,
};
use mcp_courier_testing::eventually::{SOON, eventually, eventually_some};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::readme;
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;

async fn until_ready(courier: &Courier) {
    eventually("it is ready", Duration::from_secs(30), async || courier.check().await.is_ready()).await;
}

/// Waits until a part is not well for a reason that contains this text, and returns the report.
async fn until_ill(courier: &Courier, part: HealthPart, said: &str) -> HealthReport {
    eventually_some(said, Duration::from_secs(30), async || {
        let report = courier.check().await;
        report.problem(part).is_some_and(|problem| problem.contains(said)).then_some(report)
    })
    .await
}

fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

#[actix::test]
async fn a_redis_that_is_silent_full_no_primary_or_gone_ends_readiness_and_never_liveness() {
    let mut redis = RedisServer::start();
    let courier = Courier::start(&redis.url(), Config::default()).await.unwrap();
    until_ready(&courier).await;

    redis.signal("-STOP");
    let silent = until_ill(&courier, HealthPart::Queue, "the queue did not answer within 800ms").await;
    redis.signal("-CONT");
    until_ready(&courier).await;

    let () = redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let full = until_ill(&courier, HealthPart::Queue, "OOM").await;
    let () = redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    until_ready(&courier).await;

    let () = redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let replica = until_ill(&courier, HealthPart::Queue, "READONLY").await;
    let () = redis.command(&["REPLICAOF", "NO", "ONE"]).await;
    until_ready(&courier).await;

    redis.kill();
    let gone = until_ill(&courier, HealthPart::Queue, "Connection refused").await;
    redis.start_again();
    until_ready(&courier).await;

    for report in [silent, full, replica, gone] {
        assert!(report.is_live() && !report.is_ready(), "{report}");
        let others = report.checks().iter().filter(|check| check.part != HealthPart::Queue);
        assert!(others.into_iter().all(|check| check.problem.is_none()), "{report}");
    }
    redis.assert_no_key_without_expiry().await;
}

#[actix::test]
async fn a_probe_writes_with_the_documented_rights() {
    let redis = RedisServer::start();
    let url = redis.restricted_url(&readme::rights()).await;
    let courier = Courier::start(&url, Config::default()).await.unwrap();
    until_ready(&courier).await;
    redis.assert_no_right_was_missing().await;
}

#[actix::test]
async fn many_checks_at_once_probe_a_silent_redis_once() {
    let redis = RedisServer::start();
    let courier = Courier::start(&redis.url(), Config::default()).await.unwrap();
    until_ready(&courier).await;
    let before = redis.calls().await.get("set").copied().unwrap_or(0);
    assert!(before > 0, "a probe is a SET");
    redis.signal("-STOP");
    for _ in 0..2 {
        let reports = join_all((0..100).map(|_| courier.check())).await;
        assert!(reports.iter().all(|report| report.is_live() && !report.is_ready()));
    }
    redis.signal("-CONT");
    until_ready(&courier).await;
    let after = redis.calls().await["set"];
    assert!(after - before < 20, "200 checks made {} writes", after - before);
}

#[actix::test]
async fn a_process_without_room_for_a_session_is_live_and_not_ready() {
    let config = Config::builder().dedicated_limit(1).shared_limit(0).build().unwrap();
    let courier = Courier::start("memory://health-places", config).await.unwrap();
    assert!(courier.check().await.is_ready());
    courier.ensure_subscriber(&id("a"), Recorder::new()).await.unwrap();
    let full = courier.check().await;
    assert!(full.is_live() && full.problem(HealthPart::Room).unwrap().contains("dedicated_limit"), "{full}");
    courier.stop_subscriber(&id("a"), None).await;
    until_ready(&courier).await;

    let config = Config::builder().session_limit(1).build().unwrap();
    let server = McpServer::with(Courier::start("memory://health-sessions", config).await.unwrap(), |server| server);
    let client = RawClient::connect(&server.url).await;
    // A session without a stream makes room for the next.
    assert!(server.courier.check().await.is_ready());
    let stream = client.open_stream().await;
    let full = until_ill(&server.courier, HealthPart::Room, "session_limit").await;
    assert_eq!(full.problem(HealthPart::Room), Some("session_limit is reached, and no session is idle"));
    drop(stream);
    until_ready(&server.courier).await;
}

#[actix::test]
async fn readiness_ends_when_a_shutdown_begins_and_liveness_lasts() {
    let courier = Courier::start("memory://health-shutdown", Config::default()).await.unwrap();
    let (checked, seen) = (courier.clone(), Arc::new(Mutex::new(None)));
    let found = Arc::clone(&seen);
    let server = McpServer::with(courier, move |server| {
        server.before_shutdown(move || {
            let (courier, found) = (checked.clone(), Arc::clone(&found));
            async move {
                let report = courier.check().await;
                *found.lock().unwrap() = Some(report);
            }
        })
    });
    assert!(server.courier.check().await.is_ready());
    server.shut_down().await;
    let during = seen.lock().unwrap().take().expect("a report before the deliveries end");
    for report in [during, server.courier.check().await] {
        assert!(report.is_live(), "{report}");
        assert_eq!(report.problem(HealthPart::Shutdown), Some("the server shuts down"));
    }
}

/// Session whose first hand-over blocks its thread.
struct Blocking(Mutex<Option<Receiver<()>>>);

impl Blocking {
    /// Makes a session, and the sender whose drop frees its thread.
    fn new() -> (Arc<Self>, Sender<()>) {
        let (free, freed) = channel::<()>();
        (Arc::new(Self(Mutex::new(Some(freed)))), free)
    }
}

#[async_trait]
impl McpSession for Blocking {
    async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
        let freed = self.0.lock().unwrap().take();
        if let Some(freed) = freed {
            let _ = freed.recv();
        }
        Ok(())
    }
}

/// Blocks the thread of a courier's only subscriber, and returns what frees it.
async fn block(courier: &Courier) -> Sender<()> {
    let (session, free) = Blocking::new();
    courier.ensure_subscriber(&id("s"), Arc::clone(&session) as Arc<dyn McpSession>).await.unwrap();
    courier.publisher().push(&id("s"), Notification::tools_list_changed()).await.unwrap();
    eventually("it blocks", SOON, async || session.0.lock().unwrap().is_none()).await;
    free
}

#[actix::test]
async fn a_blocked_thread_of_many_subscribers_ends_liveness_until_it_is_free() {
    let config = Config::builder().dedicated_limit(0).build().unwrap();
    let courier = Courier::start("memory://health-shared", config).await.unwrap();
    let free = block(&courier).await;
    let report = courier.check().await;
    assert!(!report.is_live() && !report.is_ready(), "{report}");
    let problem = report.problem(HealthPart::Arbiters).unwrap();
    assert_eq!(problem, "1 of 1 threads of shared subscribers did not answer within 500ms");
    assert_eq!(report.problem(HealthPart::Supervisor), None);
    drop(free);
    until_ready(&courier).await;
}

#[actix::test]
async fn a_blocked_thread_of_one_subscriber_concerns_no_other_session() {
    let courier = Courier::start("memory://health-dedicated", Config::default()).await.unwrap();
    let free = block(&courier).await;
    until_ready(&courier).await;
    drop(free);
}

/// Calls an async function on an arbiter, and returns its result.
async fn on<T: Send + 'static, F: Future<Output = T> + Send + 'static>(arbiter: &Arbiter, call: F) -> T {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    arbiter.spawn(async move { drop(sender.send(call.await)) });
    receiver.await.unwrap()
}

#[actix::test]
async fn a_blocked_supervisor_ends_liveness() {
    let arbiter = Arbiter::new();
    let starting = async { Courier::start("memory://health-supervisor", Config::default()).await.unwrap() };
    let courier = on(&arbiter, starting).await;
    until_ready(&courier).await;
    let (free, freed) = channel::<()>();
    arbiter.spawn_fn(move || {
        let _ = freed.recv();
    });
    let report = until_ill(&courier, HealthPart::Supervisor, "").await;
    assert_eq!(report.to_string(), "not live; supervisor: the supervisor did not answer within 800ms");
    drop(free);
    until_ready(&courier).await;
    arbiter.stop();
    let report = until_ill(&courier, HealthPart::Supervisor, "the supervisor has ended").await;
    assert!(!report.is_live());
}
