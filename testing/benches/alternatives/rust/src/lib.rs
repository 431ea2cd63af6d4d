//! Side of a job queue in the comparison: the commands of `testing/benches/measure/compare/courier.rs`, as far as a job queue has such things.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use serde::{Deserialize, Serialize};

/// Exit status that says that the package has no such thing.
const REFUSED: i32 = 3;

/// Number of jobs that one call pushes, where many are pushed.
const CHUNK: usize = 100;

/// Payload of a job: as many bytes as a task's status has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    pub number: usize,
    pub pushed: u64,
    pub padding: String,
}

/// Failure of a session to take a job.
#[derive(Debug)]
pub struct Failed;

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the pipe is broken")
    }
}

impl std::error::Error for Failed {}

/// Session that takes each job.
#[derive(Debug, Default)]
pub struct Session {
    /// File that each job is written to.
    file: Option<File>,
    to_fail: AtomicBool,
    takes: Duration,
    taken: AtomicUsize,
}

impl Session {
    /// Takes a job.
    pub async fn take(&self, job: Job) -> Result<(), Failed> {
        if self.to_fail.swap(false, Ordering::Relaxed) {
            return Err(Failed);
        }
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        if let Some(mut file) = self.file.as_ref() {
            let line = format!("{} {} {}\n", job.number, job.pushed, now());
            file.write_all(line.as_bytes()).map_err(|_| Failed)?;
        }
        self.taken.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A job queue.
pub trait Package: Clone + Send + Sync + 'static {
    fn connect(redis: &str) -> impl Future<Output = Self>;
    /// Pushes jobs to one queue, with one call where there is such a call.
    fn push(&self, queue: &str, jobs: Vec<Job>) -> impl Future<Output = ()> + Send;
    /// Consumes a queue, for ever. In order, where that is asked for and possible.
    fn consume(&self, queue: String, in_order: bool, session: Arc<Session>) -> impl Future<Output = ()> + Send;
}

#[derive(Debug, Parser)]
struct Args {
    #[arg(long)]
    redis: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Push {
        count: usize,
        #[arg(long)]
        pace: Option<u64>,
        #[arg(long, default_value_t = 0)]
        from: usize,
    },
    Serve {
        file: PathBuf,
        #[arg(long)]
        fail_first: bool,
        #[arg(long, default_value_t = 0)]
        takes: u64,
    },
    Drain {
        count: usize,
    },
    Through {
        count: usize,
        queues: usize,
    },
    #[command(external_subcommand)]
    Other(#[allow(dead_code, reason = "clap wants it")] Vec<String>),
}

/// Runs the command of this process.
pub async fn run<P: Package>() {
    let Args { redis, command } = Args::parse();
    if matches!(command, Command::Other(_)) {
        exit(REFUSED);
    }
    let package = P::connect(&redis).await;
    match command {
        Command::Push { count, pace, from } => {
            let mut ticks = tokio::time::interval(Duration::from_millis(pace.unwrap_or(1)));
            for number in from..from + count {
                if pace.is_some() {
                    ticks.tick().await;
                }
                package.push("session", vec![job(number)]).await;
            }
        }
        Command::Serve { file, fail_first, takes } => serve(package, file, fail_first, takes).await,
        Command::Drain { count } => {
            push_to_all(&package, count, 1).await;
            rate(Instant::now(), &package, count, 1, async {}).await;
        }
        Command::Through { count, queues } => {
            let pushing = package.clone();
            rate(Instant::now(), &package, count, queues, async move { push_to_all(&pushing, count, queues).await })
                .await;
        }
        Command::Other(_) => {}
    }
    // Consumers may still run, and have nothing to say any more.
    exit(0);
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn job(number: usize) -> Job {
    Job { number, pushed: now(), padding: "x".repeat(120) }
}

fn queue(number: usize) -> String {
    format!("queue-{number}")
}

async fn push_to_all<P: Package>(package: &P, count: usize, queues: usize) {
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(CHUNK) {
        let mut by_queue: Vec<(usize, Vec<Job>)> = Vec::new();
        for number in some {
            match by_queue.iter_mut().find(|(queue, _)| *queue == number % queues) {
                Some((_, jobs)) => jobs.push(job(*number)),
                None => by_queue.push((number % queues, vec![job(*number)])),
            }
        }
        // To many queues at once, as this crate's `push_many` does.
        let pushes = by_queue.into_iter().map(|(number, jobs)| async move { package.push(&queue(number), jobs).await });
        futures_util::future::join_all(pushes).await;
    }
}

/// Consumes queues while `push` runs, and prints how many jobs were handled a second.
async fn rate<P: Package>(begun: Instant, package: &P, count: usize, queues: usize, push: impl Future<Output = ()>) {
    let session = Arc::new(Session::default());
    for number in 0..queues {
        let (package, session) = (package.clone(), Arc::clone(&session));
        tokio::spawn(async move { package.consume(queue(number), false, session).await });
    }
    push.await;
    while session.taken.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("{{\"rate\": {}}}", count as f64 / begun.elapsed().as_secs_f64());
}

async fn serve<P: Package>(package: P, file: PathBuf, fail_first: bool, takes: u64) {
    let file = OpenOptions::new().create(true).append(true).open(file).unwrap();
    let session = Session {
        file: Some(file),
        to_fail: AtomicBool::new(fail_first),
        takes: Duration::from_millis(takes),
        taken: AtomicUsize::new(0),
    };
    println!("ready");
    package.consume("session".to_owned(), true, Arc::new(session)).await;
}
