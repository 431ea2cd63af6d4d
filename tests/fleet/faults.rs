//! Real processes that die, and a real Redis that dies, during deliveries.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mcp_courier::{
    ConfigBuilder, Courier, HandOverError, ListSubscribers, McpSession, Notification, Outbound, Publisher, SessionId,
    async_trait,
};

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
struct Server {
    child: Child,
    lines: mpsc::Receiver<(usize, String)>,
}

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
    let heartbeat = Duration::from_millis(std::env::var("FAULTS_HEARTBEAT").unwrap().parse().unwrap());
    let config = config().heartbeat(heartbeat).build().unwrap();
    let courier = Courier::start(&url, config).await.unwrap();
    courier.ensure_subscriber(&id(), Arc::new(Writer(pace))).await.unwrap();
    std::future::pending::<()>().await;
}

impl Server {
    fn start(redis: &RedisServer, pace: Duration, heartbeat: Duration) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "faults::server_process", "--nocapture"])
            .env("FAULTS_REDIS", redis.url())
            .env("FAULTS_PACE", pace.as_micros().to_string())
            .env("FAULTS_HEARTBEAT", heartbeat.as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some((n, id)) = line.strip_prefix("GOT ").and_then(|rest| rest.split_once(' ')) {
                    let _ = sender.send((n.parse().unwrap(), id.to_owned()));
                }
            }
        });
        Self { child, lines }
    }

    fn next(&self) -> (usize, String) {
        self.lines.recv_timeout(Duration::from_secs(30)).expect("a line of the server's")
    }

    fn take(&self, count: usize) -> Vec<(usize, String)> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Ends it as a crash would; what it had written by then.
    fn kill(&mut self) -> Vec<(usize, String)> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.iter().collect()
    }

    fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything arrived, in order, and what came twice came with the same id.
fn assert_whole(got: &[(usize, String)], count: usize) -> usize {
    let mut seen = HashSet::new();
    let first: Vec<usize> = got.iter().filter(|(_, id)| seen.insert(id)).map(|(n, _)| *n).collect();
    assert_eq!(first, (0..count).collect::<Vec<_>>());
    got.len() - first.len()
}

#[actix::test]
async fn g2_g3_a_server_killed_while_it_drains_loses_nothing_and_repeats_at_most_a_batch() {
    let redis = RedisServer::start();
    let publisher = Publisher::connect(&redis.url(), config().build().unwrap()).await.unwrap();
    push(&publisher, 0..5000).await;
    let (mut got, kills) = (Vec::new(), 5);
    for kill in 0..kills {
        let mut server = Server::start(&redis, Duration::from_micros(100), Duration::from_secs(30));
        got.extend(server.take(300 + 70 * kill));
        got.extend(server.kill());
    }
    let server = Server::start(&redis, Duration::ZERO, Duration::from_secs(30));
    while got.last().is_none_or(|(n, _)| *n < 4999) {
        got.push(server.next());
    }
    let repeated = assert_whole(&got, 5000);
    assert!(repeated <= kills * BATCH, "{repeated} were repeated");
    redis.assert_no_key_without_expiry().await;
}

/// Pauses an owner that has ninety of a hundred notifications still to hand over, and lets another process take the session
/// over. Returns the number of notifications that the old owner hands over after the pause.
async fn handed_over_after_a_pause(heartbeat: Duration, pause: Duration) -> usize {
    let redis = RedisServer::start();
    let publisher = Publisher::connect(&redis.url(), config().build().unwrap()).await.unwrap();
    push(&publisher, 0..BATCH).await;
    let mut paused = Server::start(&redis, Duration::from_millis(20), heartbeat);
    let begun = Instant::now();
    paused.take(10);
    paused.signal("-STOP");
    let new = Server::start(&redis, Duration::ZERO, heartbeat);
    assert_whole(&new.take(BATCH), BATCH);
    tokio::time::sleep(pause.saturating_sub(begun.elapsed())).await;
    // What it had written before it was paused.
    paused.lines.try_iter().for_each(drop);
    paused.signal("-CONT");
    push(&publisher, [BATCH]).await;
    assert_eq!(new.next().0, BATCH);
    // Time enough to hand over everything that it had read.
    tokio::time::sleep(Duration::from_millis(20) * BATCH as u32).await;
    paused.kill().len()
}

#[actix::test]
async fn g4_an_owner_paused_past_its_lease_hands_over_at_most_what_was_under_way() {
    let heartbeat = Duration::from_millis(300);
    let count = handed_over_after_a_pause(heartbeat, heartbeat * 3).await;
    assert!(count <= 1, "{count} were handed over by an owner without a lease");
}

#[actix::test]
async fn g4_an_owner_displaced_while_it_was_paused_hears_of_it_before_it_goes_on() {
    let count = handed_over_after_a_pause(Duration::from_secs(30), Duration::ZERO).await;
    assert!(count <= 1, "{count} were handed over by an owner without a lease");
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
async fn what_is_no_envelope_is_discarded_and_counted_and_what_follows_flows_on() {
    let redis = RedisServer::start();
    let courier = Courier::start(&redis.url(), config().build().unwrap()).await.unwrap();
    let mut raw = redis.connection().await;
    let queue = "mcp-courier:notifications:the-session";
    push(&courier.publisher(), [0]).await;
    for junk in ["", "{", "[1]", "{}", r#"{"notification": {"method": "tools/call"}}"#, r#"{"notification": 5}"#] {
        redis::cmd("LPUSH").arg(queue).arg(junk).exec_async(&mut raw).await.unwrap();
    }
    push(&courier.publisher(), [1]).await;
    let session = Recorder::new();
    courier.ensure_subscriber(&id(), session.clone()).await.unwrap();
    session.until_taken(2).await;
    assert_eq!(session.taken(), [0, 1]);
    let info = courier.supervisor().send(ListSubscribers).await.unwrap().pop().unwrap();
    assert_eq!(info.discarded, 6);
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
