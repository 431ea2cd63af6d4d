//! Redis is not there, or does not answer.

use std::time::{Duration, Instant};

use mcp_courier::{Config, ConnectError, Courier, Notification, Publisher, PushRefusal, QueueErrorKind, SessionId};
use mcp_courier_testing::eventually::eventually;
use mcp_courier_testing::forwarder::{Forwarder, Mode};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;

use super::place::{BACKOFF, HEARTBEAT, PATIENCE, Place, RECOVERY};

/// Longer than what is promised, for a busy machine.
const BUSY: Duration = Duration::from_secs(3);

#[actix::test]
async fn down_at_start_is_an_error_at_once_and_silent_at_start_after_the_time_for_a_connection() {
    in_own_process!();
    let mut redis = RedisServer::start();
    let forwarder = Forwarder::to(redis.port());
    redis.kill();
    let begun = Instant::now();
    let unreachable = |error: ConnectError| match error {
        ConnectError::Backend(queue) => assert!(matches!(queue.kind, QueueErrorKind::Unreachable(_)), "{queue:?}"),
        other => panic!("{other:?}"),
    };
    unreachable(Courier::start(&redis.url(), waiting::config().build().unwrap()).await.unwrap_err());
    unreachable(Publisher::connect(&redis.url(), Config::default()).await.unwrap_err());
    assert!(begun.elapsed() < BUSY);
    forwarder.set(Mode::Silent);
    let begun = Instant::now();
    unreachable(Publisher::connect(&forwarder.url(), Config::default()).await.unwrap_err());
    assert!(begun.elapsed() < PATIENCE + BUSY);
    redis.start_again();
    Publisher::connect(&redis.url(), Config::default()).await.unwrap();
}

#[actix::test]
async fn g2_killed_and_restarted_with_its_data_redis_costs_nothing() {
    in_own_process!();
    let mut place = Place::new().await;
    for (_, recorder) in place.sessions() {
        recorder.presence().disconnected();
    }
    place.queue().await;
    place.redis.kill();
    for (_, recorder) in place.sessions() {
        recorder.presence().connected(2);
    }
    place.until_all_say("the queue cannot be reached").await;
    let (refusal, took) = place.refusal().await;
    assert!(matches!(refusal, PushRefusal::Unreachable(_)), "{refusal:?}");
    assert!(took < BUSY);
    place.assert_calm("killed", Duration::from_secs(3)).await;
    place.redis.start_again();
    place.reconnect().await;
    let took = place.flows().await;
    println!("killed, with its data: flows {took:?} after it is back");
    place.assert_logged("the queue cannot be reached").await;
}

#[actix::test]
async fn killed_and_restarted_without_its_data_redis_costs_what_it_held_and_nothing_pushed_later() {
    in_own_process!();
    let mut place = Place::with(RedisServer::start(), "").await;
    place.redis.kill();
    place.until_all_say("the queue cannot be reached").await;
    place.redis.start_again();
    place.reconnect().await;
    let took = place.flows().await;
    println!("killed, without its data: flows {took:?} after it is back");
    place.redis.assert_no_key_without_expiry().await;
}

#[actix::test]
async fn connections_that_are_killed_are_made_anew_at_once() {
    in_own_process!();
    let mut place = Place::new().await;
    for _ in 0..5 {
        place.until_all_wait().await;
        let _: usize = place.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        let took = place.flows().await;
        println!("CLIENT KILL: flows after {took:?}");
    }
    place.forwarder.cut();
    place.flows().await;
    let broke = "the connection to the queue broke";
    let errors: Vec<_> = place.subscribers().await.into_iter().filter_map(|info| info.last_error).collect();
    assert!(errors.iter().all(|error| error.ends_with(broke)), "{errors:?}");
}

/// Asserts the effects of a server that is there and answers nothing. A paused server, a stopped process and a silent
/// network look alike.
async fn silent(place: &mut Place, what: &str) {
    let (refusal, took) = place.refusal().await;
    assert!(matches!(refusal, PushRefusal::Uncertain(_)), "an answer was outstanding: {refusal:?}");
    assert!(took < PATIENCE + BUSY, "{took:?}");
    let (refusal, took) = place.refusal().await;
    assert!(matches!(refusal, PushRefusal::Unreachable(_)), "no new connection: {refusal:?}");
    assert!(took < PATIENCE + BUSY, "{took:?}");
    place.until_all_say("the queue cannot be reached").await;
    place.assert_calm(what, Duration::from_secs(3)).await;
}

#[actix::test]
async fn paused_by_client_pause_redis_is_waited_out() {
    in_own_process!();
    let mut place = Place::new().await;
    let () = place.command(&["CLIENT", "PAUSE", "16000", "ALL"]).await;
    silent(&mut place, "CLIENT PAUSE").await;
    place.flows().await;
    place.assert_logged("the queue cannot be reached").await;
}

#[actix::test]
async fn stopped_by_a_signal_redis_is_waited_out() {
    in_own_process!();
    let mut place = Place::new().await;
    place.redis.signal("-STOP");
    silent(&mut place, "SIGSTOP").await;
    place.redis.signal("-CONT");
    let took = place.flows().await;
    println!("SIGSTOP: flows {took:?} after its end");
    place.assert_logged("the queue cannot be reached").await;
}

#[actix::test]
async fn a_half_open_connection_is_found_by_subscriber_and_pusher_within_a_wait_and_the_time_for_an_answer() {
    in_own_process!();
    let mut place = Place::new().await;
    let before = place.forwarder.made();
    place.forwarder.forsake();
    let begun = Instant::now();
    let (refusal, took) = place.refusal().await;
    assert!(matches!(refusal, PushRefusal::Uncertain(_)), "{refusal:?}");
    assert!(took < PATIENCE + BUSY, "{took:?}");
    place.push().await.0.expect("a new connection is as good as ever");
    let of_subscribers = if waiting::is_shared() { 1 } else { 20 };
    // Those of the subscribers, the publisher's, and one of the supervisor's own if it was used.
    eventually("that each has a new connection", HEARTBEAT + PATIENCE + BUSY, async || {
        place.forwarder.made() > before + of_subscribers
    })
    .await;
    println!("half-open: all found after {:?}", begun.elapsed());
    place.flows().await;
    place.assert_calm("half-open, found", Duration::from_secs(1)).await;
    place.assert_logged("the connection to the queue broke").await;
}

#[actix::test]
async fn a_network_that_passes_in_one_direction_only_is_waited_out() {
    in_own_process!();
    let mut place = Place::new().await;
    place.forwarder.set(Mode::OneWay);
    silent(&mut place, "one way").await;
    place.forwarder.set(Mode::Pass);
    // What Redis did and could not say is not done twice.
    let took = place.flows().await;
    println!("one way: flows {took:?} after its end");
}

#[actix::test]
async fn a_slow_redis_is_slow_and_nothing_else() {
    in_own_process!();
    let mut place = Place::new().await;
    // Over a shared line a renewal needs up to four round trips, which take a heartbeat, and a read two more.
    place.forwarder.set(Mode::Late(HEARTBEAT / 4));
    for _ in 0..3 {
        place.queue().await;
    }
    place.flows().await;
    place.assert_calm("every answer 0.25 s late", Duration::from_secs(3)).await;
    assert!(place.subscribers().await.iter().all(|info| info.last_error.is_none()));
}

#[actix::test]
async fn a_proxy_that_cuts_every_wait_is_no_reason_to_spin_and_what_is_queued_still_flows() {
    in_own_process!();
    let mut place = Place::new().await;
    place.forwarder.set(Mode::CutAt("BLMOVE"));
    place.forwarder.cut();
    place.assert_calm("every wait is cut", Duration::from_secs(3)).await;
    let took = place.flows().await;
    println!("every wait is cut: flows {took:?} after the push");
    assert!(took < BACKOFF + BUSY);
    place.forwarder.set(Mode::Pass);
    eventually("that all wait", RECOVERY, async || {
        tokio::time::sleep(BACKOFF).await;
        place.until_all_wait().await;
        true
    })
    .await;
}

#[actix::test]
async fn who_waits_for_a_connection_does_not_suffer_from_another_waiter_whose_runtime_has_ended() {
    in_own_process!();
    let redis = RedisServer::start();
    let publisher = Publisher::connect(&redis.url(), Config::default()).await.unwrap();
    let id = SessionId::new("waiters").unwrap();
    let note = || Notification::new("notifications/x").unwrap();
    let (first, first_id) = (publisher.clone(), id.clone());
    let mut raw = redis.connection().await;
    let _: usize =
        redis::cmd("CLIENT").arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]).query_async(&mut raw).await.unwrap();
    redis.signal("-STOP");
    // It is the first to wait, as a subscriber on its arbiter may be, and its runtime ends meanwhile.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let pushed = tokio::time::timeout(Duration::from_millis(300), first.push(&first_id, note())).await;
            assert!(pushed.is_err(), "a connection was made to a Redis that is stopped");
        });
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (pushed, ()) = tokio::join!(publisher.push(&id, note()), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        redis.signal("-CONT");
    });
    pushed.unwrap();
}
