//! Real processes that die by SIGKILL, and a real Redis that dies so, during deliveries. Processes that are stopped by
//! SIGSTOP and continue are in `tests/queue/one_owner.rs` and in chaos.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_courier::{
    ConfigBuilder, Courier, HandOverError, ListSubscribers, McpSession, Notification, Outbound, Publisher, SessionId,
    async_trait,
};
use mcp_courier_testing::child::{Child, program};
use mcp_courier_testing::received::Received;
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::{Value, json};

const BATCH: usize = 100;

fn config() -> ConfigBuilder {
    waiting::config().backoff_max(Duration::from_millis(200)).batch_messages(BATCH)
}

fn id() -> SessionId {
    SessionId::new("the-session").unwrap()
}

fn numbered(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}

async fn push(publisher: &Publisher, numbers: impl IntoIterator<Item = usize>) {
    for result in publisher.push_many(numbers.into_iter().map(|n| (id(), numbered(n)))).await {
        result.unwrap();
    }
}

/// A server process with one bare session, which writes what it gets to its standard output.
struct Server(Child);

/// Not a test: what a [`Server`] runs.
#[actix::test]
#[ignore = "the program of a child process"]
async fn server_process() {
    struct Writer(Duration);
    #[async_trait]
    impl McpSession for Writer {
        async fn hand_over(&self, outbound: &Outbound) -> Result<(), HandOverError> {
            let mut out = std::io::stdout().lock();
            writeln!(out, "\nGOT {} {}", outbound.parse_params::<Value>().unwrap()["n"], outbound.id).unwrap();
            out.flush().unwrap();
            // A client that takes its time, so that whoever kills it hits it at work.
            std::thread::sleep(self.0);
            Ok(())
        }
    }
    let Ok(url) = std::env::var("FAULTS_REDIS") else { return };
    let pace = Duration::from_micros(std::env::var("FAULTS_PACE").unwrap().parse().unwrap());
    let courier = Courier::start(&url, config().heartbeat(Duration::from_secs(30)).build().unwrap()).await.unwrap();
    courier.ensure_subscriber(&id(), Arc::new(Writer(pace))).await.unwrap();
    std::future::pending::<()>().await;
}

impl Server {
    fn start(redis: &RedisServer, pace: Duration) -> Self {
        let mut program = program(module_path!(), "server_process");
        program.env("FAULTS_REDIS", redis.url());
        program.env("FAULTS_PACE", pace.as_micros().to_string());
        Self(Child::start(&mut program).unwrap())
    }

    async fn next(&mut self) -> (usize, String) {
        got(&self.0.said("GOT ").await)
    }

    async fn take(&mut self, count: usize) -> Vec<(usize, String)> {
        let mut all = Vec::new();
        while all.len() < count {
            all.push(self.next().await);
        }
        all
    }

    /// Ends the process as a crash would. Returns what it had written by then.
    fn kill(&mut self) -> Vec<(usize, String)> {
        self.0.kill();
        self.0.rest().iter().filter_map(|line| line.strip_prefix("GOT ")).map(got).collect()
    }
}

/// Returns the number and the id that a line of a server holds.
fn got(line: &str) -> (usize, String) {
    let (number, id) = line.split_once(' ').unwrap();
    (number.parse().unwrap(), id.to_owned())
}

#[actix::test]
async fn g2_g3_a_server_killed_while_it_drains_loses_nothing_and_repeats_at_most_a_batch() {
    let redis = RedisServer::start();
    let publisher = Publisher::connect(&redis.url(), config().build().unwrap()).await.unwrap();
    push(&publisher, 0..5000).await;
    let (mut got, kills) = (Received::default(), 5);
    for kill in 0..kills {
        let mut server = Server::start(&redis, Duration::from_micros(100));
        got.extend(server.take(300 + 70 * kill).await);
        got.extend(server.kill());
    }
    let mut server = Server::start(&redis, Duration::ZERO);
    while got.last().is_none_or(|number| number < 4999) {
        got.extend([server.next().await]);
    }
    got.assert_is(0..5000);
    assert!(got.repeats() <= kills * BATCH, "{} were repeated", got.repeats());
    redis.assert_no_key_without_expiry().await;
}

#[actix::test]
async fn g2_redis_killed_and_started_again_while_draining_loses_nothing() {
    let mut redis = RedisServer::durable();
    let config = config().backoff_initial(Duration::from_millis(10)).build().unwrap();
    let courier = Courier::start(&redis.url(), config).await.unwrap();
    let publisher = courier.publisher();
    push(&publisher, 0..5000).await;
    let session = Recorder::new();
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    for kill in 1..=3 {
        session.until_taken(kill * 1000).await;
        redis.kill();
        let refused = publisher.push(&id(), numbered(0)).await.unwrap_err();
        assert!(refused.to_string().starts_with("pushing to session the-sess…:"), "{refused}");
        redis.start_again();
    }
    session.until_taken(5000).await;
    // The one subscriber lived through it all, and recognises repeats.
    assert_eq!(session.taken(), (0..5000).collect::<Vec<_>>());
    // The last batch is counted once the session has confirmed it.
    let info = async || courier.supervisor().send(ListSubscribers).await.unwrap().pop().unwrap();
    let begun = Instant::now();
    while info().await.delivered < 5000 && begun.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((info().await.delivered, info().await.discarded), (5000, 0));
    redis.assert_no_key_without_expiry().await;
}

#[actix::test]
async fn g2_a_list_deleted_under_its_owner_costs_nothing_that_comes_after() {
    let redis = RedisServer::start();
    let config = config().hand_over_timeout(Duration::from_millis(200)).build().unwrap();
    let courier = Courier::start(&redis.url(), config).await.unwrap();
    let mut raw = redis.connection().await;
    let session = Recorder::new();
    session.always(Some(Act::Hang));
    push(&courier.publisher(), 0..3).await;
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    session.until_offered(1).await;
    redis::cmd("DEL").arg("mcp-courier:notifications:the-session").exec_async(&mut raw).await.unwrap();
    push(&courier.publisher(), 3..6).await;
    session.always(None);
    courier.stop_subscriber(&id(), None).await;
    let next = Recorder::new();
    courier.ensure_subscriber(&id(), next.clone()).await.unwrap();
    next.until_taken(3).await;
    assert_eq!(next.taken(), [3, 4, 5]);
}
