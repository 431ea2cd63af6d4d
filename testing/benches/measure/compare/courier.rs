//! This crate's side of the comparison: the commands that every side knows, or refuses with the status 3.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Subcommand;
use mcp_courier::{
    Cause, Config, Courier, HandOverError, McpSession, MessageId, Notification, Outbound, Presence, PresenceSender,
    Publisher, SessionId, async_trait,
};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pushes so many notifications to the session.
    Push {
        count: usize,
        /// Milliseconds from one to the next. None: as fast as it goes.
        #[arg(long)]
        pace: Option<u64>,
        /// The number of the first.
        #[arg(long, default_value_t = 0)]
        from: usize,
    },
    /// Runs a subscriber. Its session writes what it gets to a file: the number, when it was pushed and when it came, and its id.
    /// The session says what the file has, as a client does by its `Last-Event-ID`.
    Serve {
        file: PathBuf,
        /// Fails to send the first time.
        #[arg(long)]
        fail_first: bool,
        /// Milliseconds that it takes to send one.
        #[arg(long, default_value_t = 0)]
        takes: u64,
    },
    /// Starts and stops a subscriber again and again until the queue is empty, and says how many were sent.
    Restart { count: usize },
    /// Pushes one a second with a time to live of two seconds. When five are pushed, runs a subscriber, and says how many were
    /// sent.
    Expire,
    /// Runs so many subscribers, pushes to each session, and says how many were pushed and how many came.
    Many { sessions: usize },
    /// Delivers a backlog, and says how many a second.
    Drain { count: usize },
    /// Pushes so many messages in turn to so many queues, all of which are consumed in this process, and says how many were
    /// handled a second.
    Through { count: usize, queues: usize },
}

/// Runs a command.
pub(crate) async fn run(redis: &str, command: Command) -> Result<(), Cause> {
    match command {
        Command::Push { count, pace, from } => {
            let publisher = Publisher::connect(redis, Config::default()).await?;
            push(&publisher, count, pace, from).await
        }
        Command::Serve { file, fail_first, takes } => serve(redis, file, fail_first, takes).await,
        Command::Restart { count } => restart(redis, count).await,
        Command::Expire => expire(redis).await,
        Command::Many { sessions } => many(redis, sessions).await,
        Command::Drain { count } => drain(redis, count).await,
        Command::Through { count, queues } => through(redis, count, queues).await,
    }
}

/// Number of messages that one call pushes, where a side can push many with one.
const CHUNK: usize = 100;

fn id() -> Result<SessionId, Cause> {
    Ok(SessionId::new("session")?)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// As FastMCP's tasks make them.
fn notification(n: usize) -> Result<Notification, Cause> {
    let at = OffsetDateTime::now_utc().format(&Rfc3339)?;
    let params = json!({
        "taskId": n.to_string(), "status": "working", "statusMessage": now().to_string(),
        "createdAt": at, "lastUpdatedAt": at, "ttl": 3_600_000,
    });
    Ok(Notification::new("notifications/tasks/status")?.with_params(params)?)
}

fn print(what: serde_json::Value) {
    println!("{what}");
}

async fn push(publisher: &Publisher, count: usize, pace: Option<u64>, from: usize) -> Result<(), Cause> {
    let mut ticks = tokio::time::interval(Duration::from_millis(pace.unwrap_or(1)));
    for n in from..from + count {
        if pace.is_some() {
            ticks.tick().await;
        }
        publisher.push(&id()?, notification(n)?).await?;
    }
    Ok(())
}

struct Writer {
    file: File,
    presence: PresenceSender,
    to_fail: AtomicUsize,
    takes: Duration,
}

#[async_trait]
impl McpSession for Writer {
    async fn hand_over(&self, outbound: &Outbound) -> Result<(), HandOverError> {
        if self.to_fail.swap(0, Ordering::Relaxed) > 0 {
            return Err(HandOverError::Transient("the pipe is broken".to_owned()));
        }
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        let params: Value = outbound.parse_params().map_err(|error| HandOverError::Rejected(error.to_string()))?;
        let text = |name: &str| params[name].as_str().unwrap_or_default();
        let id = outbound.message_id.map(|id| id.to_string()).unwrap_or_default();
        let line = format!("{} {} {} {id}\n", text("taskId"), text("statusMessage"), now());
        (&self.file).write_all(line.as_bytes()).map_err(|error| HandOverError::Transient(error.to_string()))
    }

    fn presence(&self) -> Presence {
        self.presence.presence()
    }
}

/// Returns the id of the newest message that a file has.
fn newest(file: &Path) -> Option<MessageId> {
    std::fs::read_to_string(file).ok()?.lines().last()?.split(' ').nth(3)?.parse().ok()
}

async fn serve(redis: &str, file: PathBuf, fail_first: bool, takes: u64) -> Result<(), Cause> {
    let courier = Courier::start(redis, Config::default()).await?;
    let presence = PresenceSender::new();
    presence.resumed(1, newest(&file));
    let file = OpenOptions::new().create(true).append(true).open(file)?;
    let takes = Duration::from_millis(takes);
    let session = Arc::new(Writer { file, presence, to_fail: AtomicUsize::new(usize::from(fail_first)), takes });
    courier.ensure_subscriber(&id()?, session).await?;
    println!("ready");
    // Whoever started it ends it.
    std::future::pending().await
}

/// Counts what it got. Each takes its time.
struct Counter(AtomicUsize, Duration);

#[async_trait]
impl McpSession for Counter {
    async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
        if !self.1.is_zero() {
            tokio::time::sleep(self.1).await;
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

async fn restart(redis: &str, count: usize) -> Result<(), Cause> {
    let courier = Courier::start(redis, Config::default()).await?;
    push(&courier.publisher(), count, None, 0).await?;
    let session = Arc::new(Counter(AtomicUsize::new(0), Duration::from_millis(10)));
    let begun = Instant::now();
    while session.0.load(Ordering::Relaxed) < count && begun.elapsed() < Duration::from_secs(20) {
        courier.ensure_subscriber(&id()?, session.clone()).await?;
        tokio::time::sleep(Duration::from_millis(15)).await;
        courier.stop_subscriber(&id()?, None).await;
    }
    print(json!({"sent": session.0.load(Ordering::Relaxed)}));
    Ok(())
}

async fn expire(redis: &str) -> Result<(), Cause> {
    let config = Config::builder().time_to_live(Duration::from_secs(2)).build()?;
    let courier = Courier::start(redis, config).await?;
    push(&courier.publisher(), 5, Some(1000), 0).await?;
    // Two are younger than two seconds now.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let session = Arc::new(Counter(AtomicUsize::new(0), Duration::ZERO));
    courier.ensure_subscriber(&id()?, session.clone()).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    print(json!({"sent": session.0.load(Ordering::Relaxed)}));
    Ok(())
}

fn ids(sessions: usize) -> Result<Vec<SessionId>, Cause> {
    (0..sessions).map(|n| Ok(SessionId::new(format!("session-{n}"))?)).collect()
}

async fn many(redis: &str, sessions: usize) -> Result<(), Cause> {
    let courier = Courier::start(redis, Config::default()).await?;
    let counter = Arc::new(Counter(AtomicUsize::new(0), Duration::ZERO));
    let ids = ids(sessions)?;
    for id in &ids {
        if let Err(error) = courier.ensure_subscriber(id, counter.clone()).await {
            eprintln!("{error}");
        }
    }
    let mut pushed = 0;
    for id in &ids {
        pushed += usize::from(courier.publisher().push(id, notification(0)?).await.is_ok());
    }
    let begun = Instant::now();
    while counter.0.load(Ordering::Relaxed) < sessions && begun.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    print(json!({"pushed": pushed, "came": counter.0.load(Ordering::Relaxed)}));
    Ok(())
}

async fn drain(redis: &str, count: usize) -> Result<(), Cause> {
    let courier = Courier::start(redis, Config::builder().queue_max_messages(count).build()?).await?;
    push(&courier.publisher(), count, None, 0).await?;
    let counter = Arc::new(Counter(AtomicUsize::new(0), Duration::ZERO));
    let begun = Instant::now();
    courier.ensure_subscriber(&id()?, counter.clone()).await?;
    while counter.0.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    print(json!({"rate": count as f64 / begun.elapsed().as_secs_f64()}));
    Ok(())
}

async fn through(redis: &str, count: usize, queues: usize) -> Result<(), Cause> {
    let courier = Courier::start(redis, Config::builder().queue_max_messages(count).build()?).await?;
    let counter = Arc::new(Counter(AtomicUsize::new(0), Duration::ZERO));
    let ids = ids(queues)?;
    for id in &ids {
        courier.ensure_subscriber(id, counter.clone()).await?;
    }
    let begun = Instant::now();
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(CHUNK) {
        let many: Vec<_> =
            some.iter().map(|n| Ok((ids[n % queues].clone(), notification(*n)?))).collect::<Result<_, Cause>>()?;
        for pushed in courier.publisher().push_many(many).await {
            pushed?;
        }
    }
    while counter.0.load(Ordering::Relaxed) < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    print(json!({"rate": count as f64 / begun.elapsed().as_secs_f64()}));
    Ok(())
}
