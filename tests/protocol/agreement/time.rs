//! Schedules in which leases, messages, receipts, letters and sessions run out.
//!
//! All steps between two pauses are done at once, a whole number of ticks after the beginning. Each life, and each sum of
//! lives, ends at least a quarter of a tick away from those moments. A schedule during which the machine was slower than
//! that says nothing and is played again.

use std::time::{Duration, Instant};

use mcp_courier::testing::envelope::Timestamp;
use mcp_courier_testing::redis_server::RedisServer;

use super::play::{answers, bounds, chosen, seeds};
use super::step::{Kind, Step, Steps};
use super::world::{Setting, World};

const TICK: Duration = Duration::from_millis(800);
const STEPS: usize = 48;
/// Schedules that are played at the same time: their pauses are the most of them.
const AT_ONCE: usize = 12;

/// This many thirds of a tick.
fn thirds(count: u32) -> Duration {
    TICK * count / 3
}

fn setting() -> Setting {
    let config = bounds()
        // A lease is two heartbeats: a tick and a third.
        .heartbeat(thirds(2))
        .time_to_live(thirds(4))
        // The lives of the kinds of keys, and their sums, are all one or two thirds beyond a whole tick.
        .expiry_grace(thirds(3))
        .receipt_life(thirds(4))
        .deduplication_window(thirds(4))
        .dead_letter_life(thirds(4))
        .session_time_to_live(thirds(4));
    Setting::new(config.build().unwrap(), [thirds(1), thirds(7)], TICK)
}

enum Played {
    Agreed,
    Disagreed(String),
    TooSlow,
}

/// Plays random schedules with pauses.
pub(crate) async fn agree(runs: u64) {
    let server = RedisServer::start();
    let (mut seeds, begun) = (seeds(runs), Instant::now());
    // Time for all, one and a half times over.
    let budget = TICK * 8 * (3 * seeds.len().div_ceil(AT_ONCE) as u32).div_ceil(2).max(4);
    let (mut agreed, mut slow, mut at_once) = (0, 0, AT_ONCE);
    while !seeds.is_empty() && begun.elapsed() < budget {
        let some: Vec<_> = seeds.drain(..seeds.len().min(at_once)).collect();
        let played = some.iter().map(|seed| play(&server, *seed));
        for (seed, played) in some.iter().zip(futures_util::future::join_all(played).await) {
            match played {
                Played::Agreed => agreed += 1,
                Played::Disagreed(story) => {
                    panic!("memory and Redis disagree:\n{story}\nAGREEMENT_SEED={seed} replays this")
                }
                Played::TooSlow => {
                    slow += 1;
                    // Fewer together are less work between two pauses.
                    at_once = at_once.div_ceil(2);
                    seeds.push(*seed);
                }
            }
        }
    }
    assert!(agreed > 0, "the machine is too slow for schedules with pauses");
    println!("{agreed} schedules of {STEPS} steps; {slow} times the machine was too slow, {} are left", seeds.len());
}

async fn play(server: &RedisServer, seed: u64) -> Played {
    let steps = Steps::new(Kind::Time, seed).schedule(STEPS);
    let setting = setting();
    let mut memory = World::memory(&setting, setting.config.prefix()).await;
    let mut redis = World::redis(&setting, server).await;
    // Connections take their time.
    answers(&mut memory, &mut redis, &Step::Hear, Timestamp::of_this_host()).await;
    let (begun, mut ticks, mut story) = (Instant::now(), 0, String::new());
    for index in chosen(steps.len()) {
        let step = &steps[index];
        if matches!(step, Step::Sleep) {
            ticks += 1;
            tokio::time::sleep_until((begun + TICK * ticks).into()).await;
        }
        let now = Timestamp::of_this_host();
        let (ours, theirs) = answers(&mut memory, &mut redis, step, now).await;
        if begun.elapsed() > TICK * ticks + TICK / 4 {
            return Played::TooSlow;
        }
        story += &format!("{index:3}. {step:?}\n");
        if ours != theirs {
            return Played::Disagreed(format!("{story}     memory: {ours}\n     Redis:  {theirs}\n"));
        }
        story += &format!("     {ours}\n");
    }
    Played::Agreed
}
