//! A worker: pushes numbered notifications to all sessions, some one by one and some many at once. The worker records
//! each notification before its push, and the outcome of the push.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use mcp_courier::{Cause, Notification, Publisher, SessionId};
use serde_json::json;
use tokio::time::Instant;

use crate::record::Record;
use crate::roles::{orders, say};

#[derive(Debug, Clone, Args)]
pub(crate) struct WorkerArgs {
    #[arg(long)]
    redis: String,
    #[arg(long)]
    name: String,
    #[arg(long)]
    record: PathBuf,
    #[arg(long)]
    rate: u32,
    #[arg(long)]
    seed: u64,
}

struct Session {
    id: SessionId,
    /// The number of the last one.
    last: u64,
}

pub(crate) fn run(args: WorkerArgs) -> Result<(), Cause> {
    crate::block_on(false, work(args))
}

async fn work(WorkerArgs { redis, name, record, rate, seed }: WorkerArgs) -> Result<(), Cause> {
    let mut orders = orders();
    let mut random = fastrand::Rng::with_seed(seed);
    let record = Record::append(&record)?;
    let publisher = loop {
        match Publisher::connect(&redis, crate::config().build()?).await {
            Ok(publisher) => break publisher,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let mut sessions: BTreeMap<String, Session> = BTreeMap::new();
    let mut stopped = false;
    let mut next = Instant::now();
    loop {
        // Without a session, and at its end, it has nothing to do but to listen.
        while let Some(order) = match stopped || sessions.is_empty() {
            true => orders.recv().await,
            false => orders.try_recv().ok(),
        } {
            match order.split(' ').collect::<Vec<_>>()[..] {
                ["session", client, id] => {
                    let id = SessionId::new(id)?;
                    let session =
                        sessions.entry(client.to_owned()).or_insert_with(|| Session { id: id.clone(), last: 0 });
                    session.id = id;
                }
                ["stop"] => {
                    stopped = true;
                    say("stopped")?;
                }
                _ => return Err(format!("no such order: {order}").into()),
            }
        }
        let many = if random.u8(..10) < 7 { 1 } else { random.usize(2..=40) };
        push(&publisher, &record, &name, &mut sessions, many, &mut random).await?;
        next += Duration::from_secs(1) * many as u32 / rate;
        // What a fault held up is not made good by a burst.
        next = next.max(Instant::now() - Duration::from_millis(100));
        tokio::time::sleep_until(next).await;
    }
}

async fn push(
    publisher: &Publisher,
    record: &Record,
    name: &str,
    sessions: &mut BTreeMap<String, Session>,
    many: usize,
    random: &mut fastrand::Rng,
) -> Result<(), Cause> {
    let clients: Vec<String> = sessions.keys().cloned().collect();
    let (mut batch, mut tried, mut lines) = (Vec::new(), Vec::new(), String::new());
    for _ in 0..many {
        let client = &clients[random.usize(..clients.len())];
        let Some(session) = sessions.get_mut(client) else { continue };
        session.last += 1;
        let params = json!({"worker": name, "n": session.last, "padding": "x".repeat(random.usize(..200))});
        batch.push((session.id.clone(), Notification::new("notifications/chaos")?.with_params(params)?));
        tried.push((client, session.last));
        writeln!(lines, "T {} {client} {}", record.clock.now(), session.last)?;
    }
    record.write(&lines)?;
    let results = match <[_; 1]>::try_from(batch) {
        Ok([(session, notification)]) => vec![publisher.push(&session, notification).await],
        Err(batch) => publisher.push_many(batch).await,
    };
    lines.clear();
    for ((client, n), result) in tried.into_iter().zip(results) {
        let now = record.clock.now();
        match result {
            Ok(pushed) => writeln!(lines, "K {now} {client} {n} {}", pushed.id)?,
            Err(error) => {
                let outcome = if error.reason.may_have_been_queued() { 'U' } else { 'R' };
                let why = error.reason.to_string().replace('\n', " ");
                writeln!(lines, "{outcome} {now} {client} {n} {why}")?;
            }
        }
    }
    record.write(&lines)?;
    Ok(())
}
