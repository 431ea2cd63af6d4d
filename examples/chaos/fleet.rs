//! The fleet: processes of this same program, each ended by its id, and the forwarders between them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcp_courier::Cause;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::forwarder::{Forwarder, Route};
use crate::{Chaos, LeftOut};

/// Longest time that a process may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) type Shared<T> = Arc<Mutex<T>>;

pub(crate) fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process, if it runs, and how to speak to it.
#[derive(Default)]
pub(crate) struct Slot(tokio::sync::Mutex<Option<Process>>);

struct Process {
    child: Child,
    orders: ChildStdin,
}

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
    /// At which server each client is.
    pub(crate) homes: Arc<Vec<AtomicUsize>>,
    sessions: Shared<BTreeMap<usize, String>>,
    /// Number of starts of each worker. A successor counts from the beginning, under another name.
    generations: Vec<AtomicUsize>,
    /// Processes that ended by themselves.
    pub(crate) surprises: Shared<Vec<String>>,
}

pub(crate) struct Redis {
    keeper: tokio::sync::Mutex<(Process, Lines<BufReader<ChildStdout>>)>,
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
            Arc::new(move |_, failed| {
                let port = port.load(Ordering::Relaxed);
                (failed == 0).then_some(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            })
        };
        let (mut server_lines, mut worker_lines, mut client_lines) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..servers {
            server_lines.push(Forwarder::start(Arc::clone(&to_redis), false).await?);
        }
        for _ in 0..workers {
            worker_lines.push(Forwarder::start(Arc::clone(&to_redis), false).await?);
        }
        let without_ids = chaos.leave_out_ids == Some(LeftOut::Events);
        for client in 0..clients {
            let (addresses, homes) = (Arc::clone(&addresses), Arc::clone(&homes));
            let route: Route = Arc::new(move |is_stream, failed| {
                let addresses = lock(&addresses);
                let home = homes[client].load(Ordering::Relaxed);
                // Its stream stays at home, and each of its POSTs goes to any server.
                let first = if is_stream { home } else { fastrand::usize(..addresses.len()) };
                let mut up = (0..addresses.len())
                    .map(|n| (first + n) % addresses.len())
                    .filter_map(|n| Some((n, addresses[n]?)));
                let (server, address) = up.nth(failed)?;
                if is_stream {
                    homes[client].store(server, Ordering::Relaxed);
                }
                Some(address)
            });
            client_lines.push(Forwarder::start(route, without_ids).await?);
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
        let redis = format!("redis://{}/", self.server_lines[server].address);
        let mut args = vec!["server", "--redis", &redis];
        if self.chaos.at_most_once {
            args.push("--at-most-once");
        }
        if self.chaos.waiting.is_shared(server) {
            args.push("--shared");
        }
        let (process, mut says) = self.spawn(&format!("server-{server}"), &args)?;
        *self.servers[server].0.lock().await = Some(process);
        let line = tokio::time::timeout(PATIENCE, says.next_line()).await??.ok_or("a server ended at its start")?;
        lock(&self.addresses)[server] = Some(line.parse()?);
        Ok(())
    }

    pub(crate) async fn start_worker(&self, worker: usize, seed: u64) -> Result<(), Cause> {
        let generation = self.generations[worker].fetch_add(1, Ordering::Relaxed);
        let name = format!("worker-{worker}.{generation}");
        let redis = format!("redis://{}/", self.worker_lines[worker].address);
        let record = self.dir.join(format!("{name}.record")).display().to_string();
        let seed = seed.wrapping_mul(31).wrapping_add((worker * 1000 + generation) as u64).to_string();
        let rate = self.chaos.rate.to_string();
        let args =
            ["worker", "--redis", &redis, "--name", &name, "--record", &record, "--rate", &rate, "--seed", &seed];
        let (mut process, says) = self.spawn(&name, &args)?;
        let mut orders = String::new();
        for (client, session) in &*lock(&self.sessions) {
            orders.push_str(&format!("session client-{client} {session}\n"));
        }
        process.orders.write_all(orders.as_bytes()).await?;
        *self.workers[worker].0.lock().await = Some(process);
        drain(says);
        Ok(())
    }

    pub(crate) async fn start_client(self: &Arc<Self>, client: usize) -> Result<(), Cause> {
        let url = format!("http://{}/mcp", self.client_lines[client].address);
        let record = self.dir.join(format!("client-{client}.record")).display().to_string();
        let mut args = vec!["client", "--url", &url, "--record", &record];
        let session = lock(&self.sessions).get(&client).cloned();
        if let Some(session) = &session {
            args.extend(["--session", session]);
        }
        if !self.chaos.resumes(client) || self.chaos.leave_out_ids == Some(LeftOut::Header) {
            args.push("--without-last-event-id");
        }
        let (process, mut says) = self.spawn(&format!("client-{client}"), &args)?;
        *self.clients[client].0.lock().await = Some(process);
        let fleet = Arc::clone(self);
        tokio::spawn(async move {
            while let Ok(Some(line)) = says.next_line().await {
                let Some(session) = line.strip_prefix("session ") else { continue };
                lock(&fleet.sessions).insert(client, session.to_owned());
                for worker in &fleet.workers {
                    worker.order(&format!("session client-{client} {session}")).await;
                }
            }
        });
        Ok(())
    }

    /// A process of this program. What it logs goes to a file.
    fn spawn(&self, name: &str, args: &[&str]) -> Result<(Process, Lines<BufReader<ChildStdout>>), Cause> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join(format!("{name}.log")))?;
        spawn(args, Stdio::from(log), true)
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
            slot.end().await?;
        }
        Ok(())
    }
}

impl Slot {
    /// Returns the process id, while the process runs.
    pub(crate) async fn pid(&self) -> Option<u32> {
        self.0.lock().await.as_ref()?.child.id()
    }

    async fn order(&self, order: &str) {
        if let Some(process) = &mut *self.0.lock().await {
            // One that was just killed hears it from its successor's start.
            let _ = process.orders.write_all(format!("{order}\n").as_bytes()).await;
        }
    }

    /// SIGKILL. Whether it had ended by itself before.
    pub(crate) async fn kill(&self) -> Result<bool, Cause> {
        let Some(mut process) = self.0.lock().await.take() else { return Ok(true) };
        let surprise = process.child.try_wait()?.is_some();
        process.child.kill().await?;
        Ok(surprise)
    }

    /// SIGTERM, and how it ends.
    pub(crate) async fn terminate(&self) -> Result<bool, Cause> {
        let Some(mut process) = self.0.lock().await.take() else { return Ok(true) };
        if process.child.try_wait()?.is_some() {
            return Ok(true);
        }
        signal("TERM", process.child.id().ok_or("it has no id")?).await?;
        match tokio::time::timeout(PATIENCE, process.child.wait()).await {
            Ok(status) => Ok(!status?.success()),
            Err(_) => Ok(true),
        }
    }

    /// Ends it by the end of its orders.
    async fn end(&self) -> Result<(), Cause> {
        let Some(Process { mut child, orders }) = self.0.lock().await.take() else { return Ok(()) };
        drop(orders);
        tokio::time::timeout(PATIENCE, child.wait()).await??;
        Ok(())
    }
}

impl Redis {
    async fn start() -> Result<Self, Cause> {
        // Not killed when dropped: it ends by the end of its orders, and its `redis-server` with it.
        let (process, mut says) = spawn(&["redis"], Stdio::inherit(), false)?;
        let (port, pid) = Self::here(&mut says).await?;
        let keeper = tokio::sync::Mutex::new((process, says));
        Ok(Self { keeper, port: Arc::new(AtomicU16::new(port)), pid: AtomicUsize::new(pid) })
    }

    async fn here(says: &mut Lines<BufReader<ChildStdout>>) -> Result<(u16, usize), Cause> {
        let line = tokio::time::timeout(PATIENCE, says.next_line()).await??.ok_or("Redis did not start")?;
        let (port, pid) = line.split_once(' ').ok_or("it says where it is")?;
        Ok((port.parse()?, pid.parse()?))
    }

    pub(crate) async fn kill(&self) -> Result<(), Cause> {
        let (process, says) = &mut *self.keeper.lock().await;
        process.orders.write_all(b"kill\n").await?;
        tokio::time::timeout(PATIENCE, says.next_line()).await??;
        Ok(())
    }

    pub(crate) async fn start_again(&self) -> Result<(), Cause> {
        let (process, says) = &mut *self.keeper.lock().await;
        process.orders.write_all(b"start\n").await?;
        let (port, pid) = Self::here(says).await?;
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

fn spawn(args: &[&str], log: Stdio, kill_on_drop: bool) -> Result<(Process, Lines<BufReader<ChildStdout>>), Cause> {
    // On Linux this is what runs, also when its file has been built anew meanwhile.
    let this = Path::new("/proc/self/exe");
    let this = if this.exists() { this.to_owned() } else { std::env::current_exe()? };
    let mut child = Command::new(this)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(kill_on_drop)
        .spawn()?;
    let orders = child.stdin.take().ok_or("it takes no orders")?;
    let says = BufReader::new(child.stdout.take().ok_or("it says nothing")?).lines();
    Ok((Process { child, orders }, says))
}

fn drain(mut says: Lines<BufReader<ChildStdout>>) {
    tokio::spawn(async move { while let Ok(Some(_)) = says.next_line().await {} });
}

async fn signal(name: &str, pid: u32) -> Result<(), Cause> {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().await?;
    status.success().then_some(()).ok_or_else(|| format!("no {name} for {pid}").into())
}

/// SIGSTOP, and SIGCONT later, by a process that goes on when this one is killed: what is stopped could not end.
pub(crate) async fn stop_for(pid: u32, lasts: Duration) -> Result<(), Cause> {
    let script = r#"kill -STOP "$0" && sleep "$1"; kill -CONT "$0""#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script, &pid.to_string(), &lasts.as_secs_f64().to_string()]).kill_on_drop(false);
    shell.status().await?.success().then_some(()).ok_or_else(|| format!("{pid} cannot be stopped").into())
}
