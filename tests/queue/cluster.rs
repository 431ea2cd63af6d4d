//! Redis Cluster of three masters: the spread of the sessions, slots that are migrated under load, a master that is
//! killed, and URLs that lead to something else. The contract runs over a cluster in `queue_contract`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mcp_courier::{Config, Courier, HandOverError, Notification, Publisher, Receipt, SessionId};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::log;
use mcp_courier_testing::received::Received;
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::redis_cluster::RedisCluster;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::json;
use tokio::task::JoinHandle;

/// Longer than any recovery takes: the cluster elects, and a subscriber pauses.
const RECOVERY: Duration = Duration::from_secs(60);

/// Sessions, each in a slot of its own.
const SESSIONS: usize = 24;

fn session(n: usize) -> SessionId {
    SessionId::new(format!("session-{n:03}-in-a-slot-of-its-own")).unwrap()
}

fn queue(n: usize) -> String {
    format!("mcp-courier:notifications:{}", session(n).as_str())
}

fn note(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}

/// Flag that ends a task.
#[derive(Clone, Default)]
struct Flag(Arc<AtomicBool>);

impl Flag {
    fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A courier with subscribers, and a publisher, as two processes have them.
struct Fleet {
    courier: Courier,
    publisher: Publisher,
    recorders: Vec<Arc<Recorder>>,
}

/// Outcome of a load.
struct Pushed {
    /// Number of notifications of each session.
    each: usize,
    /// Number of pushes that were refused, or had no answer.
    refused: usize,
}

impl Fleet {
    async fn at(url: &str) -> Self {
        log::begin();
        let config = || waiting::config().heartbeat(Duration::from_secs(3)).dead_letters(10).build().unwrap();
        let courier = Courier::start(url, config()).await.unwrap();
        let publisher = Publisher::connect(url, config()).await.unwrap();
        let mut recorders = Vec::new();
        for n in 0..SESSIONS {
            let recorder = Recorder::new();
            courier.ensure_subscriber(&session(n), recorder.clone()).await.unwrap();
            recorders.push(recorder);
        }
        Self { courier, publisher, recorders }
    }

    /// Pushes to all sessions in turn until `stop`. What is refused is pushed again, the same notification, before the
    /// next one.
    fn push_until(&self, stop: &Flag) -> JoinHandle<Pushed> {
        let (publisher, stop) = (self.publisher.clone(), stop.clone());
        tokio::spawn(async move {
            let (mut each, mut refused) = (0, 0);
            while !stop.is_set() {
                let mut outstanding: Vec<_> = (0..SESSIONS).map(|n| (session(n), note(each))).collect();
                while !outstanding.is_empty() {
                    let results = publisher.push_many(outstanding).await;
                    outstanding = results
                        .into_iter()
                        .filter_map(Result::err)
                        .map(|error| (error.session, *error.notification))
                        .collect();
                    refused += outstanding.len();
                    if !outstanding.is_empty() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                each += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Pushed { each, refused }
        })
    }

    /// Waits until each session has got all notifications, and asserts that they came in order, once.
    async fn assert_delivered(&self, count: usize) {
        for (n, recorder) in self.recorders.iter().enumerate() {
            eventually(&format!("all {count} of session {n}"), RECOVERY, async || recorder.taken().len() >= count)
                .await;
            let mut received = Received::default();
            received.extend(recorder.taken().into_iter().map(|n| usize::try_from(n).unwrap()).map(|n| (n, n)));
            received.assert_is(0..count);
        }
    }

    /// Returns the longest time for which a session got nothing, until `stop`.
    fn watch_gaps(&self, stop: &Flag) -> JoinHandle<Duration> {
        let (recorders, stop) = (self.recorders.clone(), stop.clone());
        tokio::spawn(async move {
            let mut last: Vec<(usize, Instant)> = recorders.iter().map(|_| (0, Instant::now())).collect();
            let mut longest = Duration::ZERO;
            while !stop.is_set() {
                for (recorder, (count, at)) in recorders.iter().zip(&mut last) {
                    let now = recorder.taken().len();
                    longest = longest.max(at.elapsed());
                    if now != *count {
                        (*count, *at) = (now, Instant::now());
                    }
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            longest
        })
    }
}

#[actix::test]
async fn sessions_are_spread_over_the_masters_and_each_gets_its_own() {
    let cluster = RedisCluster::start().await;
    // One node suffices: it names the others.
    let fleet = Fleet::at(&cluster.url_of(1)).await;
    for _ in 0..3 {
        let results = fleet.publisher.push_many((0..SESSIONS).map(|n| (session(n), note(0)))).await;
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
    for recorder in &fleet.recorders {
        eventually("three notifications", SOON, async || recorder.taken().len() == 3).await;
    }
    let mut by_node = [0; 3];
    for n in 0..SESSIONS {
        by_node[cluster.node_of(&queue(n)).await] += 1;
    }
    assert!(by_node.iter().all(|count| *count > 1), "{by_node:?}");
    for (calls, sessions) in cluster.calls().await.iter().zip(by_node) {
        // Each push is one LPUSH; every session of the node has three.
        assert_eq!(calls["lpush"], 3 * sessions, "{by_node:?}");
    }
    let broadcast = fleet.publisher.broadcast(&note(1)).await.unwrap();
    assert_eq!(broadcast.into_iter().filter(Result::is_ok).count(), SESSIONS, "a session is not listed as live");
    fleet.courier.shutdown(SOON).await;
    cluster.assert_no_key_without_expiry().await;
}

#[actix::test]
async fn g1_g2_slots_that_are_migrated_under_load_lose_and_reorder_nothing() {
    let cluster = RedisCluster::start().await;
    let fleet = Fleet::at(&cluster.url()).await;
    let stop = Flag::default();
    let (pushing, gaps) = (fleet.push_until(&stop), fleet.watch_gaps(&stop));
    let mut moved = 0;
    // Each session of a third of them moves on to the next master and further, while keys are at both.
    for pause in [0, 30, 150] {
        for n in (0..SESSIONS).step_by(3) {
            let slot = cluster.slot_of(&queue(n)).await;
            let to = (cluster.owner_of(slot).await + 1) % 3;
            cluster.migrate_slot(slot, to, Duration::from_millis(pause)).await;
            moved += 1;
        }
    }
    stop.set();
    let pushed = pushing.await.unwrap();
    fleet.assert_delivered(pushed.each).await;
    let longest = gaps.await.unwrap();
    println!(
        "{moved} slots migrated, {} notifications: lost 0, reordered 0, {} refusals, longest gap {longest:?}",
        pushed.each * SESSIONS,
        pushed.refused
    );
    assert!(longest < RECOVERY / 2, "{longest:?}");
    fleet.courier.shutdown(SOON).await;
    cluster.assert_no_key_without_expiry().await;
}

#[actix::test]
async fn an_idle_session_whose_slot_moved_gets_the_next_notification() {
    let cluster = RedisCluster::start().await;
    let fleet = Fleet::at(&cluster.url()).await;
    let (first, moved) = (note(0), 5);
    assert!(fleet.publisher.push_many([(session(moved), first)]).await[0].is_ok());
    eventually("the first", SOON, async || fleet.recorders[moved].taken().len() == 1).await;
    let slot = cluster.slot_of(&queue(moved)).await;
    let to = (cluster.owner_of(slot).await + 2) % 3;
    cluster.migrate_slot(slot, to, Duration::ZERO).await;
    // Another process pushes, so this one learns of the move by itself.
    let other = Publisher::connect(&cluster.url(), Config::default()).await.unwrap();
    assert!(other.push_many([(session(moved), note(1))]).await[0].is_ok());
    let begun = Instant::now();
    eventually("the second", RECOVERY, async || fleet.recorders[moved].taken().len() == 2).await;
    println!("an idle session got the next notification {:?} after its slot had moved", begun.elapsed());
    fleet.courier.shutdown(SOON).await;
}

#[actix::test]
async fn g1_g2_a_master_that_is_killed_is_followed_by_its_replica() {
    let mut cluster = RedisCluster::with_replicas().await;
    let fleet = Fleet::at(&cluster.url()).await;
    let stop = Flag::default();
    let (pushing, gaps) = (fleet.push_until(&stop), fleet.watch_gaps(&stop));
    eventually("a first delivery", SOON, async || fleet.recorders.iter().all(|r| r.taken().len() > 20)).await;
    let killed = cluster.node_of(&queue(0)).await;
    let slot = cluster.slot_of(&queue(0)).await;
    cluster.kill(killed);
    eventually("a new master", RECOVERY, async || cluster.owner_of(slot).await != killed).await;
    let before: Vec<usize> = fleet.recorders.iter().map(|recorder| recorder.taken().len()).collect();
    eventually("deliveries to all", RECOVERY, async || {
        fleet.recorders.iter().zip(&before).all(|(recorder, before)| recorder.taken().len() > *before)
    })
    .await;
    stop.set();
    let (pushed, longest) = (pushing.await.unwrap(), gaps.await.unwrap());
    let mut lost = 0;
    for recorder in &fleet.recorders {
        eventually("the last notification", RECOVERY, async || {
            recorder.taken().last().is_some_and(|last| usize::try_from(*last).unwrap() == pushed.each - 1)
        })
        .await;
        // The replicas follow asynchronously: a message that its master alone had is lost, as the documentation says.
        // The order is kept all the same.
        let taken = recorder.taken();
        assert!(taken.is_sorted_by(|a, b| a < b), "{taken:?}");
        lost += pushed.each - taken.len();
    }
    println!(
        "a master killed, {} notifications: lost {lost}, reordered 0, {} refusals, longest gap {longest:?}",
        pushed.each * SESSIONS,
        pushed.refused
    );
    // Those of a few milliseconds, and not those of the seconds without a master.
    assert!(lost < SESSIONS * 10, "{lost} lost");
    fleet.courier.shutdown(SOON).await;
}

#[actix::test]
async fn g7_a_master_that_hangs_holds_up_no_session_of_another() {
    // Otherwise a cluster with one dead master serves no slot at all.
    let cluster = RedisCluster::with(&["--cluster-require-full-coverage", "no"]).await;
    let fleet = Fleet::at(&cluster.url()).await;
    // The node that also lists the live sessions, which every owner announces itself to.
    let hung = cluster.node_of("mcp-courier:sessions").await;
    let (mut others, mut stuck) = (Vec::new(), Vec::new());
    for n in 0..SESSIONS {
        if cluster.node_of(&queue(n)).await == hung { stuck.push(n) } else { others.push(n) }
    }
    assert!(!stuck.is_empty() && !others.is_empty());
    cluster.nodes()[hung].signal("-STOP");
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    let mut count = 0;
    // Longer than a renewal, and than the timeout of an answer.
    while begun.elapsed() < Duration::from_secs(8) {
        let pushed = Instant::now();
        for result in fleet.publisher.push_many(others.iter().map(|&n| (session(n), note(count)))).await {
            result.unwrap();
        }
        count += 1;
        for &n in &others {
            eventually("a delivery", RECOVERY, async || fleet.recorders[n].taken().len() >= count).await;
        }
        slowest = slowest.max(pushed.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.nodes()[hung].signal("-CONT");
    println!(
        "a master hung for 8 s: {count} notifications to each session of the others, the slowest took {slowest:?}"
    );
    // An answer of the hung node would be waited for 5 s.
    assert!(slowest < Duration::from_secs(4), "{slowest:?}");
    for &n in &stuck {
        eventually("that the node serves again", RECOVERY, async || {
            fleet.publisher.push(&session(n), note(0)).await.is_ok()
        })
        .await;
        eventually("a delivery", RECOVERY, async || !fleet.recorders[n].taken().is_empty()).await;
    }
    fleet.courier.shutdown(SOON).await;
}

#[actix::test]
async fn dead_letters_of_all_masters_are_found_and_redriven_and_receipts_settle() {
    let cluster = RedisCluster::start().await;
    let fleet = Fleet::at(&cluster.url()).await;
    let refuse = Act::Fail(HandOverError::Rejected("not now".to_owned()));
    fleet.recorders.iter().for_each(|recorder| recorder.always(Some(refuse.clone())));
    let notes: Vec<_> = (0..SESSIONS).map(|n| (session(n), note(7).with_receipt())).collect();
    let ids: Vec<_> = fleet.publisher.push_many(notes).await.into_iter().map(|pushed| pushed.unwrap().id).collect();
    let until_settled = async |wanted: fn(&Receipt) -> bool| {
        for (n, id) in ids.iter().enumerate() {
            let receipt = fleet.publisher.until_settled(&session(n), *id, RECOVERY).await.unwrap();
            assert!(wanted(&receipt), "{receipt:?} of session {n}");
        }
    };
    until_settled(|receipt| matches!(receipt, Receipt::Discarded { .. })).await;
    let letters = fleet.publisher.dead_letters();
    assert_eq!(letters.sessions().await.unwrap().len(), SESSIONS);
    fleet.recorders.iter().for_each(|recorder| recorder.always(None));
    for n in 0..SESSIONS {
        assert_eq!(letters.redrive(&session(n)).await.unwrap().redriven, 1);
    }
    until_settled(|receipt| matches!(receipt, Receipt::Delivered { .. })).await;
    assert!(letters.sessions().await.unwrap().is_empty());
    fleet.courier.shutdown(SOON).await;
}

#[actix::test]
async fn a_url_that_leads_to_something_else_says_so() {
    let (cluster, single) = (RedisCluster::start().await, RedisServer::start());
    let error = |url: String| async move {
        let error = Publisher::connect(&url, Config::default()).await.err().unwrap_or_else(|| panic!("{url} is used"));
        println!("{url}: {error}");
        error.to_string()
    };
    let no_cluster = error(format!("redis+cluster://127.0.0.1:{}", single.port())).await;
    assert!(no_cluster.contains("is no node of a cluster; use redis://"), "{no_cluster}");
    let node = error(cluster.nodes()[0].url()).await;
    assert!(node.contains("the server is a node of a Redis Cluster; use redis+cluster://"), "{node}");
    let nobody = RedisServer::start().port();
    let unreachable = error(format!("redis+cluster://127.0.0.1:{nobody}")).await;
    assert!(unreachable.contains("cannot be reached"), "{unreachable}");
    let empty = RedisServer::with(&["--cluster-enabled", "yes"]);
    let unassigned = error(format!("redis+cluster://127.0.0.1:{}", empty.port())).await;
    assert!(unassigned.contains("serves no slots"), "{unassigned}");
}
