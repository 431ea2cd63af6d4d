//! A narrow line to Redis: answers that do not fit the time allowed for them are asked for in smaller pieces.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{LeaseState, MessageOutcome, OwnerToken, connect};
use mcp_courier::{Config, ConfigBuilder, Courier, DiscardReason, ListSubscribers, Notification, Publisher, SessionId};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::forwarder::{Forwarder, Mode};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::log;
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::json;

/// Longer than the slowest of these takes on a busy machine.
const SLOW: Duration = Duration::from_secs(120);

fn session() -> SessionId {
    SessionId::new("narrow").unwrap()
}

/// A notification of about this many bytes.
fn note(n: usize, bytes: usize) -> Notification {
    let params = json!({"n": n, "pad": "x".repeat(bytes)});
    Notification::new("notifications/x").unwrap().with_params(params).unwrap()
}

/// A Redis with `count` notifications of `bytes` in a queue, and a line of `rate` bytes a second to it.
async fn queued(count: usize, bytes: usize, rate: u32) -> (RedisServer, Forwarder) {
    log::begin();
    let redis = RedisServer::start();
    let publisher = Publisher::connect(&redis.url(), Config::default()).await.unwrap();
    for pushed in publisher.push_many((0..count).map(|n| (session(), note(n, bytes)))).await {
        pushed.unwrap();
    }
    let forwarder = Forwarder::to(redis.port());
    forwarder.set(Mode::Narrow(rate));
    (redis, forwarder)
}

/// Has all delivered, once and in order, and returns how long that took.
async fn drain(forwarder: &Forwarder, count: usize, config: ConfigBuilder) -> Duration {
    let begun = Instant::now();
    let courier = Courier::start(&forwarder.url(), config.build().unwrap()).await.unwrap();
    let recorder = Recorder::new();
    courier.ensure_subscriber(&session(), recorder.clone()).await.unwrap();
    eventually("that all are delivered", SLOW, async || recorder.taken().len() >= count).await;
    let took = begun.elapsed();
    let all: Vec<i64> = (0..count as i64).collect();
    // Offered: repeats would be seen here.
    assert_eq!(recorder.offered(), all);
    took
}

#[actix::test]
async fn twelve_notifications_of_100_kb_pass_a_line_of_150_kb_a_second() {
    in_own_process!();
    let (_redis, forwarder) = queued(12, 100_000, 150_000).await;
    let took = drain(&forwarder, 12, waiting::config()).await;
    println!("12 of 100 KB at 150 KB/s: {took:?}, of which the line needs 8 s");
    // One answer timed out, after 5 s.
    assert!(took < Duration::from_secs(25), "{took:?}");
}

#[actix::test]
async fn notifications_of_which_one_alone_needs_more_than_the_time_for_an_answer_pass_too() {
    in_own_process!();
    // At 20 KB/s each needs 5.1 s, which is more than an answer may take at first.
    let count = std::env::var("NARROW_COUNT").map_or(3, |count| count.parse().unwrap());
    let (_redis, forwarder) = queued(count, 100_000, 20_000).await;
    let took = drain(&forwarder, count, waiting::config()).await;
    println!("{count} of 100 KB at 20 KB/s: {took:?}, of which the line needs {} s", 5 * count);
    assert!(took < Duration::from_secs(30) + Duration::from_secs(6) * count as u32, "{took:?}");
}

#[actix::test]
async fn g4_a_take_that_lasts_longer_than_a_lease_keeps_the_lease() {
    in_own_process!();
    if waiting::is_shared() {
        return; // A shared owner renews between rounds only: docs/guide.md says so.
    }
    // Each needs 2 s: twice a lease.
    let (redis, forwarder) = queued(3, 100_000, 50_000).await;
    let config = waiting::config().heartbeat(Duration::from_millis(500));
    // Another, at a broad line, that would take the lease as soon as it is nobody's.
    let standing_by = connect(&redis.url(), Arc::new(config.clone().build().unwrap())).await.unwrap();
    let watch = async {
        let (other, mut seen) = (OwnerToken::new(), 0);
        loop {
            let lease: Option<String> = redis::cmd("GET")
                .arg("{mcp-courier:notifications:narrow}:lease")
                .query_async(&mut redis.connection().await)
                .await
                .unwrap();
            if lease.is_some() {
                seen += 1;
            }
            if seen > 0 {
                assert_eq!(standing_by.claim_if_absent(&session(), other).await.unwrap(), LeaseState::Lost);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let took = tokio::select! {
        took = drain(&forwarder, 3, config) => took,
        () = watch => unreachable!("it watches for ever"),
    };
    println!("3 of 100 KB at 50 KB/s with a lease of 1 s: {took:?}");
}

#[actix::test]
async fn g2_what_expires_under_an_owner_that_is_held_up_is_counted_though_its_key_would_have_run_out() {
    in_own_process!();
    let redis = RedisServer::start();
    let config = waiting::config()
        .heartbeat(Duration::from_millis(300))
        .expiry_grace(Duration::ZERO)
        .hand_over_timeout(Duration::from_secs(3))
        .build()
        .unwrap();
    let courier = Courier::start(&redis.url(), config.clone()).await.unwrap();
    let publisher = Publisher::connect(&redis.url(), config).await.unwrap();
    let recorder = Recorder::scripted([Act::Hang]);
    courier.ensure_subscriber(&session(), recorder.clone()).await.unwrap();
    // The first one takes 3 s; all of them expire meanwhile, and so would the key.
    for n in 0..5 {
        publisher.push(&session(), note(n, 10).with_time_to_live(Duration::from_secs(1)).unwrap()).await.unwrap();
    }
    recorder.until_offered(1).await;
    eventually("that all are counted", SOON * 2, async || {
        let all = courier.supervisor().send(ListSubscribers).await.unwrap();
        all.iter().any(|info| info.discarded == 5)
    })
    .await;
    assert_eq!(recorder.taken(), [0_i64; 0]);
    // By itself the owner keeps no empty queue, nor one that it gave up.
    redis.assert_no_key_without_expiry().await;
}

#[actix::test]
async fn what_did_not_pass_in_one_push_passes_when_it_is_pushed_again() {
    in_own_process!();
    let redis = RedisServer::start();
    let forwarder = Forwarder::to(redis.port());
    let publisher = Publisher::connect(&forwarder.url(), Config::default()).await.unwrap();
    forwarder.set(Mode::Narrow(150_000));
    let begun = Instant::now();
    // 1.2 MB: as one they need 8 s.
    let mut outstanding: Vec<_> = (0..12).map(|n| (session(), note(n, 100_000))).collect();
    let mut attempts = 0;
    while !outstanding.is_empty() {
        attempts += 1;
        assert!(attempts <= 3, "{} are still refused", outstanding.len());
        let results = publisher.push_many(outstanding).await;
        let refused = results.into_iter().filter_map(Result::err);
        outstanding = refused.map(|error| (error.session, *error.notification)).collect();
    }
    println!(
        "12 pushes of 100 KB at 150 KB/s: {:?}, {attempts} attempts, of which the line needs 8 s",
        begun.elapsed()
    );
    forwarder.set(Mode::Pass);
    drain(&forwarder, 12, waiting::config()).await;
}

#[actix::test]
async fn a_large_push_gets_more_time_and_holds_no_small_one_up() {
    in_own_process!();
    let redis = RedisServer::start();
    let forwarder = Forwarder::to(redis.port());
    let publisher = Publisher::connect(&forwarder.url(), Config::default()).await.unwrap();
    forwarder.set(Mode::Narrow(80_000));
    let session = session();
    let begun = Instant::now();
    // It needs 5.6 s alone, and what is left of the attempts before: more than an answer may take at first, and when nothing smaller can be sent.
    let mut notification = note(0, 450_000);
    for _ in 0..2 {
        let refused = publisher.push(&session, notification).await.unwrap_err();
        assert!(refused.reason.may_have_been_queued(), "{}", refused.reason);
        notification = *refused.notification;
    }
    let small = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        publisher.push(&SessionId::new("another").unwrap(), note(1, 10)).await
    };
    let (large, small) = tokio::join!(publisher.push(&session, notification), small);
    large.map_err(|error| error.reason).unwrap();
    small.map_err(|error| error.reason).unwrap();
    println!("a push of 450 KB at 80 KB/s: {:?}, 3 attempts, of which the line needs 6 s", begun.elapsed());
}

#[actix::test]
async fn dead_letters_and_open_questions_are_read_over_a_narrow_line() {
    in_own_process!();
    let redis = RedisServer::start();
    let forwarder = Forwarder::to(redis.port());
    let kept = Arc::new(waiting::config().dead_letters(10).build().unwrap());
    let near = connect(&redis.url(), Arc::clone(&kept)).await.unwrap();
    let far = connect(&forwarder.url(), kept).await.unwrap();
    let outcome =
        MessageOutcome { position: 0, discarded: Some(DiscardReason::Rejected("no".to_owned())), receipt: None };
    for _ in 0..3 {
        near.record(&session(), &outcome, &[b'x'; 100_000]).await.unwrap();
    }
    let questions = "{mcp-courier:notifications:narrow}:questions";
    let mut raw = redis.connection().await;
    let _: () =
        redis::cmd("HSET").arg(questions).arg("q").arg("x".repeat(300_000)).query_async(&mut raw).await.unwrap();
    forwarder.set(Mode::Narrow(50_000));
    let begun = Instant::now();
    // 6 s at once: three times 2 s are asked for instead.
    assert_eq!(far.dead_letters(&session(), 0, 10).await.unwrap().0.len(), 3);
    println!("3 dead letters of 100 KB at 50 KB/s: {:?}, of which the line needs 6 s", begun.elapsed());
    // The read of open questions is repeated, and has more time then.
    let begun = Instant::now();
    let mut attempts = 1;
    while far.open_questions(&session()).await.is_err() {
        attempts += 1;
        assert!(attempts < 4);
    }
    println!("open questions of 300 KB at 50 KB/s: {:?}, {attempts} attempts", begun.elapsed());
}
