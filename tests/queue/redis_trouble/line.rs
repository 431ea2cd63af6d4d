//! The time that requests have on the line to Redis: one failure costs it once, and no process keeps it for ever.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{LineLimit, OwnerToken, Permit, connect};
use mcp_courier::{Config, Notification, Publisher, PushRefusal, SessionId};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::forwarder::{Forwarder, Mode};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::redis_server::RedisServer;
use serde_json::json;

/// An answer may take 5 s; the rest is for a busy machine.
const ONE_TIMEOUT: Duration = Duration::from_secs(9);

fn session(n: usize) -> SessionId {
    SessionId::new(format!("line-{n}")).unwrap()
}

fn note(bytes: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"pad": "x".repeat(bytes)})).unwrap()
}

async fn queued(redis: &RedisServer, n: usize) -> u64 {
    let mut llen = redis::cmd("LLEN");
    llen.arg(format!("mcp-courier:notifications:line-{n}"));
    llen.query_async(&mut redis.connection().await).await.unwrap()
}

#[actix::test]
async fn a_push_to_many_sessions_of_a_silent_redis_answers_after_one_timeout() {
    in_own_process!();
    let redis = RedisServer::start();
    let forwarder = Forwarder::to(redis.port());
    let publisher = Publisher::connect(&forwarder.url(), Config::default()).await.unwrap();
    forwarder.set(Mode::Silent);
    let begun = Instant::now();
    // Two rounds and a half, of 1 MiB each.
    let results = publisher.push_many((0..25).map(|n| (session(n), note(100_000)))).await;
    let took = begun.elapsed();
    println!("a push to 25 sessions of a silent Redis: {took:?}");
    assert!(took < ONE_TIMEOUT, "{took:?}");
    let mut unsent = 0;
    for (n, result) in results.into_iter().enumerate() {
        match result.unwrap_err().reason {
            PushRefusal::Uncertain(_) => assert_eq!(unsent, 0, "{n}"),
            PushRefusal::Unreachable(_) => unsent += 1,
            other => panic!("{n}: {other}"),
        }
    }
    assert!((10..25).contains(&unsent), "{unsent}");
    forwarder.set(Mode::Pass);
    eventually("that a push passes again", SOON * 2, async || publisher.push(&session(0), note(1)).await.is_ok()).await;
    for n in 25 - unsent..25 {
        assert_eq!(queued(&redis, n).await, 0, "{n} was said not to be queued");
    }
}

#[actix::test]
async fn requests_that_time_out_together_are_one_lesson() {
    in_own_process!();
    let redis = RedisServer::start();
    let forwarder = Forwarder::to(redis.port());
    let publisher = Publisher::connect(&forwarder.url(), Config::default()).await.unwrap();
    for round in 0..2 {
        forwarder.set(Mode::Silent);
        let begun = Instant::now();
        let pushes = (0..5).map(|n| {
            let publisher = publisher.clone();
            actix::spawn(async move { publisher.push(&session(n), note(50_000)).await })
        });
        for push in pushes.collect::<Vec<_>>() {
            push.await.unwrap().unwrap_err();
        }
        let took = begun.elapsed();
        assert!(took < ONE_TIMEOUT, "{round}: {took:?}");
        forwarder.set(Mode::Pass);
        eventually("that a push passes again", SOON * 2, async || publisher.push(&session(9), note(1)).await.is_ok())
            .await;
    }
}

#[actix::test]
async fn a_wait_on_a_dead_connection_is_no_lesson_and_an_idle_queue_takes_the_time_back() {
    in_own_process!();
    let redis = RedisServer::start();
    let forwarder = Forwarder::to(redis.port());
    let queue = connect(&forwarder.url(), Arc::new(Config::default())).await.unwrap();
    let mut consumer = queue.open(&session(0), OwnerToken::new(), Arc::new(Permit::new())).await.unwrap();
    let limit = Arc::new(Mutex::new(LineLimit::new(1, 1)));
    let time = || limit.lock().unwrap().time();
    consumer.share_limit(Arc::clone(&limit));
    consumer.claim().await.unwrap();
    (0..2).for_each(|_| limit.lock().unwrap().timed_out());
    assert_eq!(time(), LineLimit::SHORTEST * 4);
    consumer.take(None).await.unwrap();
    assert_eq!(time(), LineLimit::SHORTEST * 2);
    consumer.take(None).await.unwrap();
    assert_eq!(time(), LineLimit::SHORTEST);
    forwarder.forsake();
    let begun = Instant::now();
    consumer.wait(Duration::from_millis(50)).await.unwrap_err();
    assert!(begun.elapsed() < ONE_TIMEOUT, "{:?}", begun.elapsed());
    assert_eq!(time(), LineLimit::SHORTEST);
}

/// Returns the number of failed script calls.
async fn failed_scripts(redis: &RedisServer) -> u64 {
    let mut raw = redis.connection().await;
    let all: String = redis::cmd("INFO").arg("commandstats").query_async(&mut raw).await.unwrap();
    let stats = all.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:")).unwrap_or_default();
    let count =
        |name: &str| stats.split(',').find_map(|stat| stat.strip_prefix(name)?.parse::<u64>().ok()).unwrap_or(0);
    count("rejected_calls=") + count("failed_calls=")
}

#[actix::test]
async fn what_a_replica_did_once_it_was_the_primary_is_not_done_twice() {
    in_own_process!();
    let redis = RedisServer::start();
    let mut raw = redis.connection().await;
    let forwarder = Forwarder::to(redis.port());
    let publisher = Publisher::connect(&forwarder.url(), Config::default()).await.unwrap();
    // The script is known from now on.
    publisher.push(&session(0), note(1)).await.unwrap();
    let before = failed_scripts(&redis).await;
    let _: () = redis::cmd("REPLICAOF").arg(&["127.0.0.1", "1"]).query_async(&mut raw).await.unwrap();
    // Each call of the pipeline needs 1.5 s to get there.
    forwarder.set(Mode::Narrow(70_000));
    let promote = async {
        eventually("that the first call was refused", SOON, async || failed_scripts(&redis).await > before).await;
        let _: () = redis::cmd("REPLICAOF").arg(&["NO", "ONE"]).query_async(&mut raw).await.unwrap();
    };
    let (results, ()) = tokio::join!(publisher.push_many([1, 2].map(|n| (session(n), note(100_000)))), promote);
    let outcomes: Vec<_> = results.iter().map(|result| result.as_ref().map_err(|error| &error.reason)).collect();
    assert!(matches!(outcomes[..], [Err(PushRefusal::Refused(_)), Ok(_)]), "{outcomes:?}");
    assert_eq!([queued(&redis, 1).await, queued(&redis, 2).await], [0, 1]);
}
