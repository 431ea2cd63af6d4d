//! Many messages under continual trouble: none is lost, reordered or stuck.
//!
//! `SHARED_WAITING_MESSAGES=1000000 cargo test --release --test queue endurance -- --nocapture` is a long run, which
//! nextest might end.

use std::time::{Duration, Instant};

use mcp_courier_testing::redis_server::RedisServer;

use super::place::{Place, shared};

const SESSIONS: usize = 1000;

/// Number of messages of all sessions together.
fn messages() -> usize {
    let wanted = std::env::var("SHARED_WAITING_MESSAGES").ok().map(|count| count.parse().expect("a number"));
    wanted.unwrap_or(20_000)
}

/// Pushes to all sessions in turn, causes trouble between, and sees that all arrives.
async fn endures(mut place: Place, mut trouble: impl AsyncFnMut(&mut Place) -> usize) {
    let (begun, rounds) = (Instant::now(), messages() / SESSIONS);
    let mut troubles = 0;
    for _ in 0..rounds {
        place.push_at_last().await;
        if fastrand::bool() {
            troubles += trouble(&mut place).await;
        }
        // The queues are bounded: who is behind is waited for.
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..10))).await;
    }
    place.until_all_taken().await;
    println!(
        "{} messages, {troubles} troubles, none lost, reordered or stuck, in {:?}",
        rounds * SESSIONS,
        begun.elapsed()
    );
}

#[actix::test]
async fn endurance_g1_g2_of_many_messages_under_random_cuts_none_is_lost_reordered_or_stuck() {
    let place = Place::new(SESSIONS, shared().heartbeat(Duration::from_secs(2))).await;
    endures(place, async |place| place.cut_lines().await).await;
}

#[actix::test]
async fn endurance_g1_g2_with_a_full_table_of_tracked_keys_none_is_lost_reordered_or_stuck() {
    let redis = RedisServer::with(&["--tracking-table-max-keys", "100"]);
    let place = Place::with(redis, SESSIONS, shared().heartbeat(Duration::from_secs(2))).await;
    endures(place, async |_| 0).await;
}
