//! The fleet: processes of this same program, each ended by its id, and the forwarders between them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_courier::Cause;
use mcp_courier_testing::child::{Child, PATIENCE};
use mcp_courier_testing::forwarder::{Forwarder, Route};

use crate::{Chaos, LeftOut};

pub(crate) type Shared<T> = Arc<Mutex<T>>;

pub(crate) fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Process of one part of the fleet, while it runs.
#[derive(Default)]
pub(crate) struct Slot(tokio::sync::Mutex<Option<Child>>);

pub(crate) struct Fleet {
    pub(crate) dir: PathBuf,
    chaos: Chaos,
    pub(crate) redis: Redis,
    /// Address of each server, if connections are to go to that server.
    pub(crate) addresses: Shared<Vec<Option<SocketAddr>>>,
    pub(crate) servers: Vec<Slot>,
    pub(crate) workers: Vec<Slot>,
    pub(crate) clients: Vec<Slot>,
    /// Of each server, and of each worker, to Redis.
    pub(crate) server_lines: Vec<Forwarder>,
    pub(crate) worker_lines: Vec<Forwarder>,
    /// Of each client, to a server.
    pub(crate) client_lines: Vec<Forwarder>,
    /// Server of each client.
    pub(crate) homes: Arc<Vec<AtomicUsize>>,
    sessions: Shared<BTreeMap<usize, String>>,
    /// Number of starts of each worker. A successor counts from the beginning, under another name.
    generations: Vec<AtomicUsize>,
    /// Processes that ended by themselves.
    pub(crate) surprises: Shared<Vec<String>>,
}

pub(crate) struct Redis {
    keeper: tokio::sync::Mutex<Child>,
    pub(crate) port: Arc<AtomicU16>,
    pid: AtomicUsize,
}

impl Fleet {
    /// Starts all, and waits until every client has its session.
    pub(crate) async fn start(dir: &Path, chaos: &Chaos, seed: u64) -> Result<Arc<Self>, Cause> {
        let Chaos { servers, workers, clients, .. } = *chaos;
        let (servers, workers, clients) = (usize::from(servers), usize::from(workers), usize::from(clients));
        let redis = Redis::start().await?;
        let addresses: Shared<Vec<Option<SocketAddr>>> = Arc::new(Mutex::new(vec![None; servers]));
        let homes: Arc<Vec<AtomicUsize>> = Arc::new((0..clients).map(|n| AtomicUsize::new(n % servers)).collect());
        let to_redis: Route = {
            let port = Arc::clone(&redis.port);
            Arc::new(move |opening| {
                let port = port.load(Ordering::Relaxed);
                (opening.refused == 0).then_some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            })
        };
        let (mut server_lines, mut worker_lines, mut client_lines) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..servers {
            server_lines.push(Forwarder::by(Arc::clone(&to_redis)));
        }
        for _ in 0..workers {
            worker_lines.push(Forwarder::by(Arc::clone(&to_redis)));
        }
        let without_ids = chaos.leave_out_ids == Some(LeftOut::Events);
        for client in 0..clients {
            let (addresses, homes) = (Arc::clone(&addresses), Arc::clone(&homes));
            let route: Route = Arc::new(move |opening| {
                let addresses = lock(&addresses);
                let home = homes[client].load(Ordering::Relaxed);
                // Its stream stays at home, and each of its POSTs goes to any server.
                let first = if opening.is_stream { home } else { fastrand::usize(..addresses.len()) };
                let mut up = (0..addresses.len())
                    .map(|n| (first + n) % addresses.len())
                    .filter_map(|n| Some((n, addresses[n]?)));
                let (server, address) = up.nth(opening.refused)?;
                if opening.is_stream {
                    homes[client].store(server, Ordering::Relaxed);
                }
                Some(address)
            });
            let line = if without_ids { Forwarder::by_without_event_ids(route) } else { Forwarder::by(route) };
            client_lines.push(line);
        }
        let slots = |n| (0..n).map(|_| Slot::default()).collect();
        let fleet = Arc::new(Self {
            dir: dir.to_owned(),
            chaos: chaos.clone(),
            redis,
            addresses,
            servers: slots(servers),
            workers: slots(workers),
            clients: slots(clients),
            server_lines,
            worker_lines,
            client_lines,
            homes,
            sessions: Shared::default(),
            generations: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
            surprises: Shared::default(),
        });
        for server in 0..servers {
            fleet.start_server(server).await?;
        }
        for client in 0..clients {
            fleet.start_client(client).await?;
        }
        let all = async {
            while lock(&fleet.sessions).len() < clients {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, all).await.map_err(|_| "the clients got no sessions")?;
        for worker in 0..workers {
            fleet.start_worker(worker, seed).await?;
        }
        Ok(fleet)
    }

    pub(crate) async fn start_server(&self, server: usize) -> Result<(), Cause> {
        let redis = self.server_lines[server].url();
        let mut args = vec!["server", "--redis", &redis];
        if self.chaos.at_most_once {
            args.push("--at-most-once");
        }
        if self.chaos.waiting.is_shared(server) {
            args.push("--shared");
        }
        let mut process = self.spawn(&format!("server-{server}"), &args)?;
        let line = process.line().await.ok_or("a server ended at its start")?;
        *self.servers[server].0.lock().await = Some(process);
        lock(&self.addresses)[server] = Some(line.parse()?);
        Ok(())
    }

    pub(crate) async fn start_worker(&self, worker: usize, seed: u64) -> Result<(), Cause> {
        let generation = self.generations[worker].fetch_add(1, Ordering::Relaxed);
        let name = format!("worker-{worker}.{generation}");
        let redis = self.worker_lines[worker].url();
        let record = self.dir.join(format!("{name}.record")).display().to_string();
        let seed = seed.wrapping_mul(31).wrapping_add((worker * 1000 + generation) as u64).to_string();
        let rate = self.chaos.rate.to_string();
        let args =
            ["worker", "--redis", &redis, "--name", &name, "--record", &record, "--rate", &rate, "--seed", &seed];
        let mut process = self.spawn(&name, &args)?;
        for (client, session) in &*lock(&self.sessions) {
            process.write_line(&format!("session client-{client} {session}"))?;
        }
        *self.workers[worker].0.lock().await = Some(process);
        Ok(())
    }

    pub(crate) async fn start_client(self: &Arc<Self>, client: usize) -> Result<(), Cause> {
        let url = format!("http://{}/mcp", self.client_lines[client].address());
        let record = self.dir.join(format!("client-{client}.record")).display().to_string();
        let mut args = vec!["client", "--url", &url, "--record", &record];
        let session = lock(&self.sessions).get(&client).cloned();
        if let Some(session) = &session {
            args.extend(["--session", session]);
        }
        if !self.chaos.resumes(client) || self.chaos.leave_out_ids == Some(LeftOut::Header) {
            args.push("--without-last-event-id");
        }
        let mut process = self.spawn(&format!("client-{client}"), &args)?;
        let mut lines = process.take_lines();
        *self.clients[client].0.lock().await = Some(process);
        let fleet = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                let Some(session) = line.strip_prefix("session ") else { continue };
                lock(&fleet.sessions).insert(client, session.to_owned());
                for worker in &fleet.workers {
                    worker.order(&format!("session client-{client} {session}")).await;
                }
            }
        });
        Ok(())
    }

    /// Starts a process of this program, whose log goes to a file.
    fn spawn(&self, name: &str, args: &[&str]) -> Result<Child, Cause> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join(format!("{name}.log")))?;
        spawn(args, Stdio::from(log))
    }

    /// Has all workers stop pushing.
    pub(crate) async fn stop_workers(&self) {
        for worker in &self.workers {
            worker.order("stop").await;
        }
    }

    /// Ends all, in order: nothing is pushed any more, and nobody looks for a server that is gone.
    pub(crate) async fn end(&self) -> Result<(), Cause> {
        for slot in self.workers.iter().chain(&self.clients).chain(&self.servers) {
            slot.end().await;
        }
        Ok(())
    }
}

impl Slot {
    /// Returns the process id, while the process runs.
    pub(crate) async fn pid(&self) -> Option<u32> {
        self.0.lock().await.as_ref().map(Child::id)
    }

    async fn order(&self, order: &str) {
        if let Some(process) = &mut *self.0.lock().await {
            // The successor of a process that was just killed gets the order at its start.
            let _ = process.write_line(order);
        }
    }

    /// Kills the process. Returns whether it had ended by itself before.
    pub(crate) async fn kill(&self) -> Result<bool, Cause> {
        let Some(mut process) = self.0.lock().await.take() else { return Ok(true) };
        let surprise = process.has_ended();
        process.kill();
        Ok(surprise)
    }

    /// Sends SIGTERM. Returns whether the process had ended by itself before, or ends badly.
    pub(crate) async fn terminate(&self) -> Result<bool, Cause> {
        let Some(mut process) = self.0.lock().await.take() else { return Ok(true) };
        Ok(process.has_ended() || !process.terminate().await.success())
    }

    /// Ends the process by the end of its orders.
    async fn end(&self) {
        if let Some(mut process) = self.0.lock().await.take() {
            process.close_input();
            process.ended().await;
        }
    }
}

impl Redis {
    async fn start() -> Result<Self, Cause> {
        // Not killed when dropped: the process ends by the end of its orders, and its `redis-server` with it.
        let mut keeper = spawn(&["redis"], Stdio::inherit())?.ending_with_its_input();
        let (port, pid) = Self::place(&mut keeper).await?;
        let keeper = tokio::sync::Mutex::new(keeper);
        Ok(Self { keeper, port: Arc::new(AtomicU16::new(port)), pid: AtomicUsize::new(pid) })
    }

    async fn place(keeper: &mut Child) -> Result<(u16, usize), Cause> {
        let line = keeper.line().await.ok_or("Redis did not start")?;
        let (port, pid) = line.split_once(' ').ok_or("it says where it is")?;
        Ok((port.parse()?, pid.parse()?))
    }

    pub(crate) async fn kill(&self) -> Result<(), Cause> {
        let mut keeper = self.keeper.lock().await;
        keeper.write_line("kill")?;
        keeper.said("killed").await;
        Ok(())
    }

    pub(crate) async fn start_again(&self) -> Result<(), Cause> {
        let mut keeper = self.keeper.lock().await;
        keeper.write_line("start")?;
        let (port, pid) = Self::place(&mut keeper).await?;
        self.port.store(port, Ordering::Relaxed);
        self.pid.store(pid, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed) as u32
    }

    /// A connection past all forwarders.
    pub(crate) async fn connection(&self) -> Result<redis::aio::MultiplexedConnection, Cause> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port.load(Ordering::Relaxed)))?;
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
        Ok(client.get_multiplexed_async_connection_with_config(&patient).await?)
    }
}

fn spawn(args: &[&str], log: Stdio) -> Result<Child, Cause> {
    // On Linux this is the program that runs, also when its file has been built anew meanwhile.
    let this = Path::new("/proc/self/exe");
    let this = if this.exists() { this.to_owned() } else { std::env::current_exe()? };
    Ok(Child::start(Command::new(this).args(args).stderr(log))?)
}

/// SIGSTOP, and SIGCONT later, by a process that goes on when this one is killed: what is stopped could not end.
pub(crate) async fn stop_for(pid: u32, lasts: Duration) -> Result<(), Cause> {
    let script = r#"kill -STOP "$0" && sleep "$1"; kill -CONT "$0""#;
    let mut shell = tokio::process::Command::new("sh");
    shell.args(["-c", script, &pid.to_string(), &lasts.as_secs_f64().to_string()]).kill_on_drop(false);
    shell.status().await?.success().then_some(()).ok_or_else(|| format!("{pid} cannot be stopped").into())
}
