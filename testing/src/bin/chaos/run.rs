//! Run: start, inflict, heal, drain, check.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_courier::Cause;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use crate::fleet::{Fleet, lock};
use crate::schedule::schedule;
use crate::{Chaos, PREFIX};
use crate::{check, faults, report};

/// Runs the schedule. Returns whether the checker found no violation.
pub(crate) fn chaos(chaos: Chaos) -> Result<bool, Cause> {
    crate::block_on(true, unless_interrupted(run(chaos)))
}

/// Runs a future until a signal comes. A future that is dropped half-way ends its processes.
pub(crate) async fn unless_interrupted<T>(what: impl Future<Output = Result<T, Cause>>) -> Result<T, Cause> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = what => done,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
        _ = terminate.recv() => Err("terminated".into()),
    }
}

async fn run(chaos: Chaos) -> Result<bool, Cause> {
    let seed = chaos.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let faults = schedule(seed, &chaos);
    let Chaos { seconds, servers, workers, clients, waiting, .. } = chaos;
    println!(
        "seed {seed}: {} faults in {seconds} s; {servers} servers, {workers} workers, {clients} clients, {waiting:?} waiting",
        faults.len()
    );
    let temporary = TempDir::new()?;
    let dir = chaos.keep.as_deref().unwrap_or(temporary.path());
    std::fs::create_dir_all(dir)?;
    if std::fs::read_dir(dir)?.next().is_some() {
        return Err(format!("{} is not empty", dir.display()).into());
    }
    let (done, pushing, drained, surprises) = {
        let fleet = Fleet::start(dir, &chaos, seed).await?;
        let begun = Instant::now();
        let done = faults::inflict(&fleet, seed, faults).await?;
        // The last fault may be over long before the end.
        sleep(Duration::from_secs(seconds).saturating_sub(begun.elapsed())).await;
        fleet.stop_workers().await;
        let pushing = begun.elapsed();
        let drained = drain(&fleet, Duration::from_secs(chaos.drain)).await?;
        fleet.end().await?;
        let surprises = std::mem::take(&mut *lock(&fleet.surprises));
        (done, pushing, drained, surprises)
    };
    let text: String = done.iter().map(|done| format!("{} {} {}\n", done.begun, done.healed, done.fault)).collect();
    std::fs::write(dir.join("faults.txt"), text)?;
    let mut checked = check::check(dir, &chaos, &done)?;
    // First: what is still queued is named as lost too.
    let late = drained.is_none().then(|| format!("the queues are not empty within {} s of quiet", chaos.drain));
    checked.violations.splice(0..0, late.into_iter().chain(surprises));
    report::print(&checked, &done, pushing, drained);
    if checked.violations.is_empty() {
        return Ok(true);
    }
    let kept = if chaos.keep.is_some() { dir.to_owned() } else { temporary.keep() };
    report::complain(&checked.violations, &kept);
    Ok(false)
}

/// Waits until nothing is queued any more, and says how long that took. What is off the queue was confirmed by its
/// client, which had written it down.
async fn drain(fleet: &Arc<Fleet>, limit: Duration) -> Result<Option<Duration>, Cause> {
    let begun = Instant::now();
    let mut connection = fleet.redis.connection().await?;
    let mut empty = 0;
    while begun.elapsed() < limit {
        let keys: Vec<String> =
            redis::cmd("KEYS").arg(format!("{PREFIX}:notifications:*")).query_async(&mut connection).await?;
        let mut left = 0;
        for key in keys {
            let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await?;
            left += usize::from(kind == "list");
        }
        // A worker's last push may be open when the worker is asked to stop, so once is not enough.
        empty = if left == 0 { empty + 1 } else { 0 };
        if empty == 5 {
            return Ok(Some(begun.elapsed()));
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(None)
}
