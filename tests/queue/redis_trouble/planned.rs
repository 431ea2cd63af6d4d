//! A planned failover: the old primary becomes a replica, connections to it stay open, new ones lead to the new primary. One
//! test for each kind of connection. Everything of ours goes through the forwarder; the tests look at the servers directly.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{
    Backend, Delivered, MessageOutcome, News, OwnerToken, Permit, Posed, ProcessId, SessionRecord, connect,
};
use mcp_courier::{
    Answer, Config, ConfigBuilder, Courier, Delivery, Notification, Publisher, Receipt, SessionId, SubscriberState,
    TaskKey,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::forwarder::Forwarder;
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::log;
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::json;
use tokio::task::JoinHandle;

/// Longer than a round of checks, and a pause besides.
const FOUND: Duration = Duration::from_secs(15);

struct Pair {
    old: RedisServer,
    new: RedisServer,
    forwarder: Forwarder,
}

impl Pair {
    /// A primary that is reached through a forwarder, and its replica.
    async fn new() -> Self {
        log::begin();
        let server = || RedisServer::with(&["--repl-diskless-sync-delay", "0"]);
        let (old, new) = (server(), server());
        let forwarder = Forwarder::to(old.port());
        let () = command(&new, &["REPLICAOF", "127.0.0.1", &old.port().to_string()]).await;
        until_info(&new, "master_link_status:up").await;
        Self { old, new, forwarder }
    }

    /// Waits until a key is tracked for somebody at the old primary.
    async fn until_a_wait(&self) {
        eventually("a wait", SOON, async || {
            let clients: String = command(&self.old, &["CLIENT", "LIST"]).await;
            clients.lines().any(|client| client.contains("flags=t"))
        })
        .await;
    }

    async fn queue(&self, config: ConfigBuilder) -> Arc<dyn Backend> {
        connect(&self.forwarder.url(), Arc::new(config.build().unwrap())).await.unwrap()
    }

    /// Returns the queue as another process sees it, which connects after the failover.
    async fn queue_at_the_new_primary(&self) -> Arc<dyn Backend> {
        connect(&self.new.url(), Arc::new(Config::default())).await.unwrap()
    }

    async fn publisher(&self) -> Publisher {
        Publisher::connect(&self.forwarder.url(), Config::default()).await.unwrap()
    }

    /// The two change places. No connection is cut.
    async fn fail_over(&self) {
        self.demote().await;
        self.forwarder.lead_to(self.new.port());
    }

    /// The same, and new connections still lead to the old primary.
    async fn demote(&self) {
        // Redis's own: writes pause until the replica has them all, and the two change places.
        eventually("that the replica is online", FOUND, async || {
            let info: String = command(&self.old, &["INFO", "replication"]).await;
            info.contains("state=online")
        })
        .await;
        let () = command(&self.old, &["FAILOVER", "TO", "127.0.0.1", &self.new.port().to_string()]).await;
        until_info(&self.new, "role:master").await;
        until_info(&self.old, "role:slave").await;
    }
}

async fn command<T: redis::FromRedisValue>(server: &RedisServer, words: &[&str]) -> T {
    redis::cmd(words[0]).arg(&words[1..]).query_async(&mut server.connection().await).await.unwrap()
}

async fn until_info(server: &RedisServer, line: &str) {
    eventually(line, FOUND, async || {
        let info: String = command(server, &["INFO", "replication"]).await;
        info.lines().any(|found| found == line)
    })
    .await;
}

fn session() -> SessionId {
    SessionId::new("moved").unwrap()
}

fn note(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}

/// Poses a question of a task, and waits for its answer in a task of its own.
async fn ask(queue: &Arc<dyn Backend>, task: &TaskKey) -> JoinHandle<Answer> {
    let request = json!({"request_id": "q", "message": "?", "schema": {}}).to_string();
    assert!(matches!(queue.pose(task, "q", request, Duration::from_secs(60)).await.unwrap(), Posed::Done(_)));
    let (queue, task) = (Arc::clone(queue), task.clone());
    tokio::spawn(async move { queue.answer_to(&task, "q").await.unwrap() })
}

#[actix::test]
async fn sessions_begin_and_end_over_the_shared_connection_as_if_nothing_had_been() {
    in_own_process!();
    let pair = Pair::new().await;
    let queue = pair.queue(waiting::config()).await;
    assert!(queue.store_session(&session(), "{}").await.unwrap());
    pair.fail_over().await;
    // Each begins with the connection as it was left: single commands, scripts and pipelines.
    let another = SessionId::new("another").unwrap();
    assert!(queue.store_session(&another, "{}").await.unwrap());
    let new = pair.queue_at_the_new_primary().await;
    assert_eq!(new.load_session(&another).await.unwrap().as_deref(), Some("{}"));
    queue.end_session(&session(), ProcessId::new(), true).await.unwrap();
    assert_eq!(new.load_session(&session()).await.unwrap(), None);
    assert_eq!(
        queue.refresh_sessions(&[session(), another]).await.unwrap(),
        [SessionRecord::Ended, SessionRecord::Known]
    );
}

#[actix::test]
async fn each_kind_of_request_over_the_shared_connection_notices_by_itself() {
    in_own_process!();
    for kind in ["a write", "a pipeline", "a script that neither server knows", "a read", "a message"] {
        let pair = Pair::new().await;
        let queue = pair.queue(waiting::config()).await;
        let publisher = pair.publisher().await;
        let process = ProcessId::new();
        assert!(queue.store_session(&session(), "{}").await.unwrap());
        publisher.push(&session(), note(0)).await.unwrap();
        let new_process = {
            pair.fail_over().await;
            pair.queue_at_the_new_primary().await
        };
        let mut heard = new_process.listen(process);
        let made = pair.forwarder.made();
        let begun = Instant::now();
        match kind {
            "a write" => assert_eq!(queue.load_session(&session()).await.unwrap().as_deref(), Some("{}")),
            "a pipeline" => drop(publisher.push(&session(), note(1)).await.unwrap()),
            "a script that neither server knows" => assert_eq!(queue.purge(&session()).await.unwrap(), 0),
            "a read" => {
                eventually("a read at the new primary", FOUND, async || {
                    queue.live_sessions().await.unwrap();
                    pair.forwarder.made() > made
                })
                .await;
            }
            _ => loop {
                queue.announce_confirmation(process, &session(), 7).await.unwrap();
                let news = tokio::time::timeout(Duration::from_millis(10), heard.recv()).await;
                if news == Ok(Some(News::Confirmed(session(), 7))) {
                    break;
                }
                assert!(begun.elapsed() < FOUND, "no message reached who listens at the new primary");
            },
        }
        println!("{kind}: noticed after {:?}", begun.elapsed());
        assert!(pair.forwarder.made() > made, "{kind}");
    }
}

#[actix::test]
async fn where_no_primary_can_be_had_connections_are_made_with_pauses_and_not_for_each_command() {
    in_own_process!();
    let pair = Pair::new().await;
    let (queue, publisher) = (pair.queue(waiting::config()).await, pair.publisher().await);
    pair.demote().await;
    let (made, begun, mut tries) = (pair.forwarder.made(), Instant::now(), 0);
    while begun.elapsed() < Duration::from_secs(3) {
        let error = queue.store_session(&session(), "{}").await.unwrap_err();
        assert!(format!("{error:?}").contains("READONLY"), "{error:?}");
        let refused = publisher.push(&session(), note(0)).await.unwrap_err();
        assert!(refused.reason.to_string().contains("READONLY"), "{refused}");
        tries += 1;
    }
    let connections = pair.forwarder.made() - made;
    println!("{tries} commands each, {connections} connections of two processes");
    // Pauses of 0.1, 0.2, 0.4, 0.8 and 1.6 s, less a quarter.
    assert!((4..=14).contains(&connections), "{connections} connections for {tries} commands");
    pair.forwarder.lead_to(pair.new.port());
    eventually("the new primary", FOUND, async || queue.store_session(&session(), "{}").await.is_ok()).await;
    eventually("the new primary", FOUND, async || publisher.push(&session(), note(0)).await.is_ok()).await;
}

#[actix::test]
async fn a_server_that_still_loads_or_has_lost_its_primary_is_left_as_well() {
    in_own_process!();
    let pair = Pair::new().await;
    let queue = pair.queue(waiting::config()).await;
    pair.demote().await;
    // A replica that serves no stale data, and whose primary is not there: MASTERDOWN.
    let () = command(&pair.old, &["CONFIG", "SET", "replica-serve-stale-data", "no"]).await;
    let () = command(&pair.old, &["REPLICAOF", "127.0.0.1", "1"]).await;
    let error = queue.open_questions(&session()).await.unwrap_err();
    assert!(format!("{error:?}").contains("MASTERDOWN"), "{error:?}");
    pair.forwarder.lead_to(pair.new.port());
    eventually("the new primary", FOUND, async || queue.store_session(&session(), "{}").await.is_ok()).await;
}

#[actix::test]
async fn a_worker_that_waits_gets_the_answer_that_its_user_gives_at_the_new_primary() {
    in_own_process!();
    let pair = Pair::new().await;
    let queue = pair.queue(waiting::config()).await;
    let task = TaskKey::anonymous("a task").unwrap();
    let waiting = ask(&queue, &task).await;
    pair.until_a_wait().await;
    pair.fail_over().await;
    let begun = Instant::now();
    pair.queue_at_the_new_primary().await.settle(&task, "q", &Answer::Decline).await.unwrap();
    let answer = tokio::time::timeout(FOUND, waiting).await.expect("an answer in time").unwrap();
    assert_eq!(answer, Answer::Decline);
    println!("an answer given at the new primary: had after {:?}", begun.elapsed());
}

#[actix::test]
async fn a_question_that_begins_after_the_failover_is_answered_over_the_connection_from_before() {
    in_own_process!();
    let pair = Pair::new().await;
    let queue = pair.queue(waiting::config()).await;
    let task = |n: usize| TaskKey::anonymous(format!("task {n}")).unwrap();
    let first = ask(&queue, &task(0)).await;
    pair.until_a_wait().await;
    pair.fail_over().await;
    let second = ask(&queue, &task(1)).await;
    let new = pair.queue_at_the_new_primary().await;
    for (n, waiting) in [(1, second), (0, first)] {
        new.settle(&task(n), "q", &Answer::Decline).await.unwrap();
        assert_eq!(tokio::time::timeout(FOUND, waiting).await.expect("in time").unwrap(), Answer::Decline);
    }
}

#[actix::test]
async fn a_receipt_that_is_awaited_is_settled_at_the_new_primary() {
    in_own_process!();
    let pair = Pair::new().await;
    let publisher = pair.publisher().await;
    let id = publisher.push(&session(), note(0).with_receipt()).await.unwrap().id;
    let waiting = tokio::spawn(async move { publisher.until_settled(&session(), id, Duration::from_secs(60)).await });
    pair.until_a_wait().await;
    pair.fail_over().await;
    // The old server keeps its old data: nothing of what follows reaches it.
    let () = command(&pair.old, &["REPLICAOF", "127.0.0.1", "1"]).await;
    let new = pair.queue_at_the_new_primary().await;
    let mut owner = new.open(&session(), OwnerToken::new(), Arc::new(Permit::new())).await.unwrap();
    owner.claim().await.unwrap();
    let taken = owner.take(None).await.unwrap();
    let outcomes = vec![MessageOutcome { position: 0, discarded: None, receipt: Some(id) }];
    let last = taken.items[0].mark.clone();
    owner.take(Some(&Delivered { count: 1, last, questions: Vec::new(), outcomes })).await.unwrap();
    let begun = Instant::now();
    let receipt = tokio::time::timeout(FOUND, waiting).await.expect("a receipt in time").unwrap();
    assert!(matches!(receipt, Ok(Receipt::Delivered { .. })), "{receipt:?}");
    println!("a receipt settled at the new primary: had after {:?}", begun.elapsed());
}

#[actix::test]
async fn who_listens_for_news_hears_those_of_the_new_primary() {
    in_own_process!();
    let pair = Pair::new().await;
    let queue = pair.queue(waiting::config()).await;
    let mut news = queue.listen(ProcessId::new());
    eventually("that it listens", SOON, async || {
        let channels: Vec<String> = command(&pair.old, &["PUBSUB", "CHANNELS"]).await;
        channels.len() == 2
    })
    .await;
    pair.fail_over().await;
    let begun = Instant::now();
    assert_eq!(tokio::time::timeout(FOUND, news.recv()).await.expect("in time"), Some(News::Missed));
    println!("who listens for news: at the new primary after {:?}", begun.elapsed());
    let by = ProcessId::new();
    pair.queue_at_the_new_primary().await.end_session(&session(), by, true).await.unwrap();
    assert_eq!(tokio::time::timeout(SOON, news.recv()).await.expect("in time"), Some(News::Ended(session(), by)));
}

#[actix::test]
async fn who_listens_for_news_makes_connections_with_pauses_where_no_primary_can_be_had() {
    in_own_process!();
    let pair = Pair::new().await;
    let queue = pair.queue(waiting::config().backoff_initial(Duration::from_millis(500))).await;
    let _news = queue.listen(ProcessId::new());
    eventually("that it listens", SOON, async || pair.forwarder.made() > 1).await;
    let made = pair.forwarder.made();
    pair.demote().await;
    eventually("that it was noticed", FOUND, async || {
        // Another test of this process may have logged the line.
        let failed = log::lines(&["listening to news of other processes failed", "READONLY"]);
        !failed.is_empty() && pair.forwarder.made() > made
    })
    .await;
    let made = pair.forwarder.made();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let made = pair.forwarder.made() - made;
    assert!((1..=4).contains(&made), "{made} connections in 3 s");
}

#[actix::test]
async fn who_waits_for_an_answer_makes_connections_with_pauses_until_a_primary_can_be_had() {
    in_own_process!();
    let pair = Pair::new().await;
    let queue = pair.queue(waiting::config().backoff_initial(Duration::from_millis(500))).await;
    let task = TaskKey::anonymous("a task").unwrap();
    let waiting = ask(&queue, &task).await;
    pair.until_a_wait().await;
    let made = pair.forwarder.made();
    pair.demote().await;
    eventually("that it was noticed", FOUND, async || pair.forwarder.made() > made).await;
    let made = pair.forwarder.made();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let made = pair.forwarder.made() - made;
    // Pauses of 0.5, 1 and 2 s, less a quarter.
    assert!((1..=4).contains(&made), "{made} connections in 3 s");
    pair.forwarder.lead_to(pair.new.port());
    pair.queue_at_the_new_primary().await.settle(&task, "q", &Answer::Decline).await.unwrap();
    let answer = tokio::time::timeout(FOUND, waiting).await.expect("an answer in time").unwrap();
    assert_eq!(answer, Answer::Decline);
}

async fn drained(delivery: Delivery) {
    const ALL: usize = 3000;
    let pair = Pair::new().await;
    let config = waiting::config().delivery(delivery).batch_messages(5).build().unwrap();
    let courier = Courier::start(&pair.forwarder.url(), config).await.unwrap();
    let publisher = pair.publisher().await;
    for pushed in publisher.push_many((0..ALL).map(|n| (session(), note(n)))).await {
        pushed.unwrap();
    }
    let recorder = Recorder::new();
    courier.ensure_subscriber(&session(), recorder.clone()).await.unwrap();
    recorder.until_taken(20).await;
    pair.fail_over().await;
    let before = recorder.taken().len();
    let begun = Instant::now();
    recorder.until_taken(ALL).await;
    println!("draining with {delivery:?}: {before} before the failover, the rest {:?} after it", begun.elapsed());
    assert!(before < ALL, "all were delivered before the failover");
    let all: Vec<i64> = (0..ALL as i64).collect();
    assert_eq!(recorder.taken(), all);
    // And what comes over its waits.
    eventually("that it waits", FOUND, async || {
        let all = courier.supervisor().send(mcp_courier::ListSubscribers).await.unwrap();
        all.iter().all(|info| info.state == SubscriberState::Waiting)
    })
    .await;
    publisher.push(&session(), note(ALL)).await.unwrap();
    recorder.until_taken(ALL + 1).await;
}

#[actix::test]
async fn g2_a_subscriber_that_drains_its_queue_goes_on_at_the_new_primary() {
    in_own_process!();
    drained(Delivery::AtLeastOnce).await;
}

#[actix::test]
async fn at_most_once_a_subscriber_goes_on_at_the_new_primary() {
    in_own_process!();
    drained(Delivery::AtMostOnce).await;
}

#[actix::test]
async fn a_subscriber_that_waits_goes_on_waiting_at_the_new_primary() {
    in_own_process!();
    let pair = Pair::new().await;
    let courier = Courier::start(&pair.forwarder.url(), waiting::config().build().unwrap()).await.unwrap();
    let recorder = Recorder::new();
    courier.ensure_subscriber(&session(), recorder.clone()).await.unwrap();
    // A shared wait blocks nothing in Redis: the push below shows that the subscriber waits there.
    let blocked = usize::from(!waiting::is_shared());
    eventually("a wait", SOON, async || pair.old.blocked_clients().await == blocked).await;
    pair.fail_over().await;
    let begun = Instant::now();
    eventually("a wait there", FOUND, async || pair.new.blocked_clients().await == blocked).await;
    println!("a subscriber that waits: at the new primary after {:?}", begun.elapsed());
    pair.publisher().await.push(&session(), note(0)).await.unwrap();
    recorder.until_taken(1).await;
}
