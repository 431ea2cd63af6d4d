//! Connections that end, and a Redis that stands still, restarts, forgets its scripts, or may not write.

use std::time::Duration;

use mcp_courier_testing::redis_server::RedisServer;

use super::place::{NEVER, Place, shared};

#[actix::test]
async fn g1_g2_connections_that_are_cut_lose_and_reorder_nothing() {
    let mut place = Place::new(50, shared().heartbeat(NEVER)).await;
    let mut cut = 0;
    for _ in 0..20 {
        place.push().await;
        cut += place.cut_lines().await;
        place.push().await;
    }
    place.until_all_taken().await;
    assert!(cut >= 20, "{cut} connections were cut");
    place.flows_at_once().await;
}

#[actix::test]
async fn sessions_that_waited_when_their_connection_was_cut_are_served_at_once() {
    let mut place = Place::new(50, shared().heartbeat(NEVER)).await;
    place.flows_at_once().await;
    assert!(place.cut_lines().await > 0);
    place.flows_at_once().await;
}

#[actix::test]
async fn a_redis_that_stands_still_for_a_moment_is_waited_for() {
    let mut place = Place::new(50, shared()).await;
    for _ in 0..3 {
        place.redis.signal("-STOP");
        tokio::time::sleep(Duration::from_millis(500)).await;
        place.redis.signal("-CONT");
        place.flows().await;
    }
}

#[actix::test]
async fn a_redis_that_stands_still_for_longer_than_answers_may_take_is_found_again() {
    let mut place = Place::new(50, shared().heartbeat(Duration::from_secs(1))).await;
    place.flows().await;
    place.redis.signal("-STOP");
    tokio::time::sleep(Duration::from_secs(8)).await;
    place.redis.signal("-CONT");
    place.push_at_last().await;
    place.until_all_taken().await;
}

#[actix::test]
async fn scripts_that_redis_has_forgotten_are_loaded_again_within_a_round() {
    let mut place = Place::new(50, shared().heartbeat(NEVER)).await;
    for _ in 0..5 {
        let _: () = place.redis(&["SCRIPT", "FLUSH"]).await;
        place.flows_at_once().await;
    }
}

#[actix::test]
async fn g2_a_redis_that_is_restarted_over_its_data_gives_all_that_it_had() {
    let mut place = Place::with(RedisServer::durable(), 50, shared().heartbeat(Duration::from_secs(1))).await;
    for _ in 0..2 {
        place.push().await;
        place.redis.kill();
        place.redis.start_again();
        place.raw = place.redis.connection().await;
        place.push_at_last().await;
        place.until_all_taken().await;
    }
}

#[actix::test]
async fn a_redis_that_may_not_write_is_waited_for() {
    let mut place = Place::new(50, shared().heartbeat(Duration::from_secs(1))).await;
    place.flows().await;
    // Port 1: it is a replica that reaches no primary, and keeps what it has.
    let _: () = place.redis(&["REPLICAOF", "127.0.0.1", "1"]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let _: () = place.redis(&["REPLICAOF", "NO", "ONE"]).await;
    place.push_at_last().await;
    place.until_all_taken().await;
}
