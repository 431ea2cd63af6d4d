//! The time from the death of a server to the next delivery at another one.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mcp_courier::Cause;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::fleet::{Fleet, lock};
use crate::record::Clock;
use crate::run::unless_interrupted;
use crate::{Chaos, Waiting};

/// Longest time for which a client may get no notification.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn measure(rounds: u32) -> Result<(), Cause> {
    crate::block_on(true, unless_interrupted(run(rounds)))
}

async fn run(rounds: u32) -> Result<(), Cause> {
    let dir = TempDir::new()?;
    let chaos = Chaos {
        seconds: 0,
        seed: None,
        servers: 2,
        workers: 1,
        clients: 1,
        rate: 200,
        every: 1,
        drain: 0,
        waiting: Waiting::Dedicated,
        without_last_event_id: 0,
        leave_out_ids: None,
        kill_every: None,
        at_most_once: false,
        keep: None,
    };
    let fleet = Fleet::start(dir.path(), &chaos, 1).await?;
    println!("from the death of a server to the next delivery at another one, {rounds} rounds each, in ms:");
    println!("{:<10}{:>10}{:>10}", "", "median", "worst");
    for (name, kill) in [("SIGTERM", false), ("SIGKILL", true)] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            times.push(round(&fleet, dir.path(), kill).await?);
        }
        times.sort_unstable();
        let [median, worst] = [times.len() / 2, times.len() - 1].map(|n| times[n] as f64 / 1000.0);
        println!("{name:<10}{median:>10.1}{worst:>10.1}");
    }
    fleet.end().await
}

async fn round(fleet: &Arc<Fleet>, dir: &Path, kill: bool) -> Result<u64, Cause> {
    let record = dir.join("client-0.record");
    // It must be at home, and getting something, to be put out.
    delivered_after(&record, Clock::new().now(), false).await?;
    let home = fleet.homes[0].load(Ordering::Relaxed);
    let died = Clock::new().now();
    let address = lock(&fleet.addresses)[home];
    let badly = if kill {
        fleet.servers[home].kill().await?;
        lock(&fleet.addresses)[home] = None;
        false
    } else {
        // Whoever sends SIGTERM knows, and sends no one there any more.
        lock(&fleet.addresses)[home] = None;
        fleet.servers[home].terminate().await?
    };
    if badly {
        return Err(format!("the server at {address:?} ended badly").into());
    }
    let next = delivered_after(&record, died, true).await?;
    fleet.start_server(home).await?;
    Ok(next - died)
}

/// When the first delivery came after a time, on a stream that was opened after it.
async fn delivered_after(record: &Path, after: u64, on_new_stream: bool) -> Result<u64, Cause> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let mut opened = !on_new_stream;
        for line in std::fs::read_to_string(record)?.lines() {
            let mut words = line.split(' ');
            let (kind, at) = (words.next(), words.next().and_then(|at| at.parse::<u64>().ok()).unwrap_or(0));
            match kind {
                Some("O") if at > after => opened = true,
                Some("G") if at > after && opened => return Ok(at),
                _ => {}
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err("nothing was delivered any more".into())
}
