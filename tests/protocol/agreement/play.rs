//! Plays schedules in both worlds, compares, and shortens what fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcp_courier::ConfigBuilder;
use mcp_courier::testing::envelope::Timestamp;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;

use super::step::{At, Kind, OWNERS, SESSIONS, Step, Steps};
use super::world::{SOON, Setting, World};

const STEPS: usize = 60;

/// Prefixes and names that no other schedule has.
static NAMES: AtomicU64 = AtomicU64::new(0);

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

/// Seeds of so many schedules: always the same ones, unless the environment asks for others. A change is then judged by what it
/// changes.
pub(crate) fn seeds(runs: u64) -> Vec<u64> {
    match (from_environment("AGREEMENT_SEED"), from_environment("AGREEMENT_RUNS")) {
        (Some(seed), _) => vec![seed],
        (None, Some(runs)) => (0..runs).map(|_| fastrand::u64(..)).collect(),
        (None, None) => (0..runs).collect(),
    }
}

/// The steps to play: all, unless the environment says otherwise.
pub(crate) fn chosen(count: usize) -> Vec<usize> {
    match std::env::var("AGREEMENT_STEPS") {
        Ok(steps) => steps.split(',').map(|step| step.trim().parse().unwrap()).collect(),
        Err(_) => (0..count).collect(),
    }
}

fn name() -> String {
    format!("a{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// Bounds so low that schedules reach them.
pub(crate) fn bounds() -> ConfigBuilder {
    waiting::config()
        .prefix(name())
        .batch_messages(5)
        .batch_bytes(2400)
        .message_max_bytes(2000)
        .queue_max_messages(9)
        .dead_letters(4)
        .deduplication_keys(2)
}

fn setting() -> Setting {
    let config = bounds().time_to_live(Duration::from_secs(300));
    let lives = [Duration::from_secs(200), Duration::from_secs(600)];
    Setting::new(config.build().unwrap(), lives, Duration::from_secs(100))
}

/// Plays random schedules of this kind.
pub(crate) async fn agree(kind: Kind, runs: u64) {
    let server = RedisServer::start();
    let (seeds, begun) = (seeds(runs), Instant::now());
    for seed in &seeds {
        let steps = Steps::new(kind, *seed).schedule(STEPS);
        let all = chosen(steps.len());
        let Err(story) = play(&server, &steps, &all).await else { continue };
        // A step that a busy machine makes late is no disagreement, and does not recur.
        if play(&server, &steps, &all).await.is_ok() {
            println!("a disagreement that did not come again, seed {seed}:\n{story}");
        } else {
            let (shortest, story) = shortest(&server, &steps, all).await;
            let shortest: Vec<_> = shortest.iter().map(ToString::to_string).collect();
            panic!(
                "memory and Redis disagree:\n{story}\nAGREEMENT_SEED={seed} AGREEMENT_STEPS={} replays this",
                shortest.join(",")
            );
        }
    }
    println!("{kind:?}: {} schedules of {STEPS} steps in {:?}", seeds.len(), begun.elapsed());
}

/// Leaves out what is not needed for the worlds to disagree.
async fn shortest(server: &RedisServer, steps: &[Step], mut kept: Vec<usize>) -> (Vec<usize>, String) {
    let mut story = String::from("(not again: it depends on time)");
    let mut size = kept.len().div_ceil(2);
    loop {
        let mut at = 0;
        while at < kept.len() {
            let mut fewer = kept.clone();
            fewer.drain(at..(at + size).min(kept.len()));
            match play(server, steps, &fewer).await {
                Err(told) => (kept, story) = (fewer, told),
                Ok(()) => at += size,
            }
        }
        if size == 1 {
            if let Err(told) = play(server, steps, &kept).await {
                story = told;
            }
            return (kept, story);
        }
        size = size.div_ceil(2);
    }
}

/// Plays the chosen steps. The error tells what was done until the worlds disagreed.
async fn play(server: &RedisServer, steps: &[Step], chosen: &[usize]) -> Result<(), String> {
    let setting = setting();
    let mut memory = World::memory(&setting, setting.config.prefix()).await;
    let mut redis = World::redis(&setting, server).await;
    let mut story = String::new();
    for index in chosen {
        let step = &steps[*index];
        let now = Timestamp::of_this_host();
        let (ours, theirs) = answers(&mut memory, &mut redis, step, now).await;
        story += &format!("{index:3}. {step:?}\n");
        if ours != theirs {
            return Err(format!("{story}     memory: {ours}\n     Redis:  {theirs}\n"));
        }
        story += &format!("     {ours}\n");
        if let Some(trouble) = compare_permits(step, &memory, &redis).await {
            return Err(format!("{story}     {trouble}\n"));
        }
    }
    Ok(())
}

pub(crate) async fn answers(
    memory: &mut World<'_>,
    redis: &mut World<'_>,
    step: &Step,
    now: Timestamp,
) -> (String, String) {
    let ours = memory.play(step, now, false).await;
    let is_due = ours != "nothing";
    let theirs = redis.play(step, now, is_due).await;
    (ours, theirs)
}

/// Compares what the owners know of their leases. Redis tells that beside its answers.
async fn compare_permits(step: &Step, memory: &World<'_>, redis: &World<'_>) -> Option<String> {
    let all = (0..OWNERS).flat_map(|owner| (0..SESSIONS).map(move |session| At { owner, session }));
    for at in all {
        let permits = || (memory.is_permitted(at), redis.is_permitted(at));
        // Redis may cast a doubt that the next take settles: tracking says that a lease changed, and not how.
        let agrees = |(memory, redis): (bool, bool)| match step {
            Step::Claim(by) | Step::Renew(by) if *by == at => memory == redis,
            _ => memory || !redis,
        };
        let begun = Instant::now();
        while !agrees(permits()) {
            if begun.elapsed() > SOON {
                return Some(format!("permit of {at:?}: memory {}, Redis {}", permits().0, permits().1));
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
    None
}
