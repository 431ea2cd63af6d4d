//! Doing what the schedule says, and healing it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mcp_courier::Cause;
use mcp_courier_testing::forwarder::Mode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::fleet::{Fleet, Shared, lock, stop_for};
use crate::record::Clock;
use crate::schedule::{Fault, Kind, Part};

/// Delay of each piece on a slow line.
const LATE: Duration = Duration::from_millis(50);

/// A fault that was done.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) fault: Fault,
    pub(crate) begun: u64,
    pub(crate) healed: u64,
    /// The clients that it was felt by.
    pub(crate) clients: Vec<usize>,
}

/// Does all of them. Each is healed when this ends.
pub(crate) async fn inflict(fleet: &Arc<Fleet>, seed: u64, faults: Vec<Fault>) -> Result<Vec<Done>, Cause> {
    let (start, clock) = (Instant::now(), Clock::new());
    let done: Shared<Vec<Done>> = Shared::default();
    let mut under_way = JoinSet::new();
    // A part that takes longer to heal than planned is done one thing after another all the same.
    let mut busy: HashMap<Part, Arc<tokio::sync::Mutex<()>>> = HashMap::new();
    for fault in faults {
        sleep_until(start + fault.at).await;
        let (fleet, done) = (Arc::clone(fleet), Arc::clone(&done));
        let turn = Arc::clone(busy.entry(fault.part).or_default()).lock_owned();
        under_way.spawn(async move {
            let _turn = turn.await;
            let begun = clock.now();
            let clients = felt_by(&fleet, fault.part);
            inflict_one(&fleet, seed, fault).await.map_err(|error| format!("{fault}: {error}"))?;
            lock(&done).push(Done { fault, begun, healed: clock.now(), clients });
            Ok::<_, Cause>(())
        });
        while let Some(one) = under_way.try_join_next() {
            one??;
        }
    }
    while let Some(one) = under_way.join_next().await {
        one??;
    }
    let mut done = std::mem::take(&mut *lock(&done));
    done.sort_by_key(|done| done.begun);
    Ok(done)
}

fn felt_by(fleet: &Fleet, part: Part) -> Vec<usize> {
    let clients = 0..fleet.homes.len();
    match part {
        Part::Client(client) => vec![client],
        Part::Server(server) => clients.filter(|n| fleet.homes[*n].load(Ordering::Relaxed) == server).collect(),
        Part::Redis => clients.collect(),
        Part::Worker(_) => Vec::new(),
    }
}

async fn inflict_one(fleet: &Arc<Fleet>, seed: u64, fault: Fault) -> Result<(), Cause> {
    let Fault { part, kind, lasts, .. } = fault;
    match (part, kind) {
        (Part::Server(n), Kind::Kill | Kind::Terminate) => {
            let address = lock(&fleet.addresses)[n].take();
            let surprise = match kind {
                Kind::Terminate => fleet.servers[n].terminate().await?,
                _ => {
                    // Nobody knows of it before it is dead.
                    lock(&fleet.addresses)[n] = address;
                    let surprise = fleet.servers[n].kill().await?;
                    lock(&fleet.addresses)[n] = None;
                    surprise
                }
            };
            surprised(fleet, surprise, &fault);
            sleep(lasts).await;
            fleet.start_server(n).await?;
            // Its clients come back: else all would gather where nothing was done for a while.
            for (client, home) in fleet.homes.iter().enumerate().filter(|(client, _)| client % fleet.servers.len() == n)
            {
                home.store(n, Ordering::Relaxed);
                fleet.client_lines[client].cut();
            }
        }
        (Part::Server(n), Kind::Stop) => {
            let pid = fleet.servers[n].pid().await.ok_or("it does not run")?;
            let address = lock(&fleet.addresses)[n].take();
            // For some of its clients at once, for the others when they miss its keep-alives.
            for (client, home) in fleet.homes.iter().enumerate() {
                if home.load(Ordering::Relaxed) == n && client % 2 == 0 {
                    fleet.client_lines[client].cut();
                }
            }
            stop_for(pid, lasts).await?;
            lock(&fleet.addresses)[n] = address;
        }
        (Part::Worker(n), Kind::Kill) => {
            let surprise = fleet.workers[n].kill().await?;
            surprised(fleet, surprise, &fault);
            sleep(lasts).await;
            fleet.start_worker(n, seed).await?;
        }
        (Part::Client(n), Kind::Kill) => {
            let surprise = fleet.clients[n].kill().await?;
            surprised(fleet, surprise, &fault);
            sleep(lasts).await;
            fleet.start_client(n).await?;
        }
        (Part::Client(n), Kind::Move) => {
            let home = &fleet.homes[n];
            home.store((home.load(Ordering::Relaxed) + 1) % fleet.servers.len(), Ordering::Relaxed);
            fleet.client_lines[n].cut();
        }
        (Part::Redis, Kind::Kill) => {
            fleet.redis.kill().await?;
            sleep(lasts).await;
            fleet.redis.start_again().await?;
        }
        (Part::Redis, Kind::Stop) => stop_for(fleet.redis.pid(), lasts).await?,
        (Part::Redis, kind) => {
            let millis = lasts.as_millis().to_string();
            let command = match kind {
                Kind::PauseClients => &["CLIENT", "PAUSE", &millis][..],
                Kind::KillClients => &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"],
                _ => &["SCRIPT", "FLUSH"],
            };
            let mut words = redis::cmd(command[0]);
            words.arg(&command[1..]);
            let _: redis::Value = words.query_async(&mut fleet.redis.connection().await?).await?;
            sleep(lasts).await;
        }
        (part, kind) => {
            let line = match part {
                Part::Server(n) => &fleet.server_lines[n],
                Part::Worker(n) => &fleet.worker_lines[n],
                Part::Client(n) => &fleet.client_lines[n],
                Part::Redis => return Err("it has no line".into()),
            };
            match kind {
                Kind::Silence => line.set(Mode::Silent),
                Kind::Slow => line.set(Mode::Slow(LATE)),
                _ => line.cut(),
            }
            sleep(lasts).await;
            line.set(Mode::Pass);
        }
    }
    Ok(())
}

fn surprised(fleet: &Fleet, surprise: bool, fault: &Fault) {
    if surprise {
        lock(&fleet.surprises).push(format!("{} had ended by itself, or ended badly: {fault}", fault.part));
    }
}
