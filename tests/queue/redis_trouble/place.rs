//! Twenty subscribers, a publisher, and a Redis to be troubled, reached through a forwarder.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mcp_courier::{
    Courier, ListSubscribers, Notification, Publisher, PushError, PushRefusal, SessionId, SubscriberInfo,
    SubscriberState,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::forwarder::Forwarder;
use mcp_courier_testing::log;
use mcp_courier_testing::process::Process;
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use redis::aio::MultiplexedConnection;
use serde_json::json;

/// Number of subscribers that are in trouble at the same time.
const SUBSCRIBERS: usize = 20;

/// The longest pause between two attempts. The default is five times as long.
pub(crate) const BACKOFF: Duration = Duration::from_secs(1);

/// Time between two renewals of a lease, and so the longest wait. By default a wait lasts ten times as long.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);

/// Longest time that an answer or a connection may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// More than any recovery takes: a silent connection has to be found out, and another one may fail for lack of an answer.
pub(crate) const RECOVERY: Duration = Duration::from_secs(30);

/// Of one processor, for all of them together.
const SHARE: f64 = 0.3;

pub(crate) struct Place {
    pub(crate) redis: RedisServer,
    pub(crate) forwarder: Forwarder,
    pub(crate) publisher: Publisher,
    pub(crate) courier: Courier,
    /// Past the forwarder.
    pub(crate) raw: MultiplexedConnection,
    sessions: Vec<(SessionId, Arc<Recorder>)>,
    /// Number of notifications that each session has got.
    delivered: usize,
    /// Processor time of this process without work, in processors.
    idle: f64,
}

impl Place {
    pub(crate) async fn new() -> Self {
        Self::with(RedisServer::durable(), "").await
    }

    /// With a login like `:password@`.
    pub(crate) async fn with(redis: RedisServer, login: &str) -> Self {
        log::begin();
        let forwarder = Forwarder::to(redis.port());
        let url = forwarder.url().replace("//", &format!("//{login}"));
        let config = waiting::config().heartbeat(HEARTBEAT).backoff_max(BACKOFF).build().unwrap();
        let publisher = Publisher::connect(&url, config.clone()).await.unwrap();
        let courier = Courier::start(&url, config).await.unwrap();
        let mut sessions = Vec::new();
        // No two ids begin alike, because lines of the log show only the first eight characters.
        static PLACES: AtomicUsize = AtomicUsize::new(0);
        let place = PLACES.fetch_add(1, Ordering::Relaxed);
        for n in 0..SUBSCRIBERS {
            let id = SessionId::new(format!("s{place:03}-{n:03}-and-so-on")).unwrap();
            let recorder = Recorder::new();
            courier.ensure_subscriber(&id, recorder.clone()).await.unwrap();
            sessions.push((id, recorder));
        }
        let raw = redis.connection().await;
        let mut place = Self { redis, forwarder, publisher, courier, raw, sessions, delivered: 0, idle: 0.0 };
        place.flows().await;
        place.until_all_wait().await;
        place.idle = share_during(Duration::from_secs(1)).await;
        place
    }

    /// Returns the id of one of the sessions.
    pub(crate) fn id(&self) -> &SessionId {
        &self.sessions[0].0
    }

    /// As it stands in keys.
    pub(crate) fn whole_id(&self) -> &str {
        self.id().as_str()
    }

    pub(crate) fn sessions(&self) -> &[(SessionId, Arc<Recorder>)] {
        &self.sessions
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.sessions[0].1
    }

    pub(crate) async fn command<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.raw).await.unwrap()
    }

    /// Has one notification for each session queued, however often it takes, and waits until each has it: no more and no
    /// fewer than what was pushed, in order.
    pub(crate) async fn flows(&mut self) -> Duration {
        let begun = Instant::now();
        let mut outstanding: Vec<_> =
            self.sessions.iter().map(|(id, _)| (id.clone(), numbered(self.delivered))).collect();
        while !outstanding.is_empty() {
            assert!(begun.elapsed() < RECOVERY, "pushes are still refused");
            let results = self.publisher.push_many(outstanding).await;
            // The same notification again, as after an answer that was lost: it is recognised by its id.
            let refused = results.into_iter().filter_map(Result::err);
            outstanding = refused.map(|error| (error.session, *error.notification)).collect();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.delivered += 1;
        for (_, recorder) in &self.sessions {
            recorder.until_taken(self.delivered).await;
        }
        let took = begun.elapsed();
        let expected: Vec<i64> = (0..self.delivered as i64).collect();
        for (_, recorder) in &self.sessions {
            assert_eq!(recorder.taken(), expected);
        }
        took
    }

    /// Queues one for each session, and does not wait for it.
    pub(crate) async fn queue(&mut self) {
        for result in
            self.publisher.push_many(self.sessions.iter().map(|(id, _)| (id.clone(), numbered(self.delivered)))).await
        {
            result.unwrap();
        }
        self.delivered += 1;
    }

    pub(crate) async fn push(&self) -> (Result<(), PushError>, Duration) {
        let begun = Instant::now();
        // Never one of those that are counted.
        let result = self.publisher.push(&SessionId::new("nobody").unwrap(), numbered(0)).await.map(drop);
        (result, begun.elapsed())
    }

    /// Why a push is refused, and how soon.
    pub(crate) async fn refusal(&self) -> (PushRefusal, Duration) {
        let (result, took) = self.push().await;
        (result.expect_err("it is in trouble").reason, took)
    }

    pub(crate) async fn subscribers(&self) -> Vec<SubscriberInfo> {
        self.courier.supervisor().send(ListSubscribers).await.unwrap()
    }

    /// To the first session; it must be refused, or the count is wrong.
    pub(crate) async fn push_to_the_first(&self) -> Result<(), PushError> {
        self.publisher.push(self.id(), numbered(self.delivered)).await.map(drop)
    }

    pub(crate) async fn until_one_says(&self, error: &str) {
        eventually("an error", RECOVERY, async || {
            let said = |info: &SubscriberInfo| info.last_error.as_deref().is_some_and(|said| said.contains(error));
            self.subscribers().await.iter().any(said)
        })
        .await;
    }

    /// Waits until every subscriber backs off or tries, and says why.
    pub(crate) async fn until_all_say(&self, error: &str) {
        let mut last = Vec::new();
        let begun = Instant::now();
        while begun.elapsed() < RECOVERY {
            last = self.subscribers().await;
            if last.iter().all(|info| {
                matches!(info.state, SubscriberState::BackingOff | SubscriberState::Connecting)
                    && info.last_error.as_deref().is_some_and(|said| said.contains(error))
            }) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("they do not all say {error:?}, as {:?}", last.iter().map(|info| (info.state, &info.last_error)).next());
    }

    pub(crate) async fn until_all_wait(&self) {
        eventually("that all wait", RECOVERY, async || {
            self.subscribers().await.iter().all(|info| info.state == SubscriberState::Waiting)
        })
        .await;
    }

    /// Asserts that this process, and Redis where it still counts, have little work in this trouble.
    pub(crate) async fn assert_calm(&mut self, trouble: &str, span: Duration) {
        let (before, begun) = (self.commands().await, Instant::now());
        let share = share_during(span).await;
        let commands = match (before, self.commands().await) {
            (Some(before), Some(after)) => {
                let each = (after - before) as f64 / begun.elapsed().as_secs_f64() / SUBSCRIBERS as f64;
                // An attempt a second is some ten commands, and each heartbeat five.
                assert!(each < 60.0, "{each} commands a second for each subscriber: {trouble}");
                format!("{each:.1}")
            }
            _ => "-".to_owned(),
        };
        println!(
            "| {trouble} | {share:.3} of a processor (nothing to do: {:.3}) | {commands} commands a second each |",
            self.idle
        );
        assert!(share < SHARE + self.idle, "{share} of a processor: {trouble}");
    }

    /// Returns the number of commands that Redis has performed, if it answers.
    async fn commands(&mut self) -> Option<u64> {
        let mut command = redis::cmd("INFO");
        let info = command.arg("stats").query_async::<String>(&mut self.raw);
        let info = tokio::time::timeout(Duration::from_millis(200), info).await.ok()?.ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("total_commands_processed:"))?;
        line.trim().parse().ok()
    }

    /// After Redis was started again.
    pub(crate) async fn reconnect(&mut self) {
        self.raw = self.redis.connection().await;
    }

    /// Trouble was logged for a session, and then its end.
    pub(crate) async fn assert_logged(&self, error: &str) {
        // A fault that many shared sessions meet is logged for a few of them, whichever these are and whatever each met.
        let (id, error) = if waiting::is_shared() { (String::new(), "") } else { (format!("{:?}", self.id()), error) };
        let said = log::lines(&[&id, "WARN", "the queue failed; trying again", error]);
        assert!(!said.is_empty(), "{error:?} was not logged: {:?}", log::lines(&[&id]));
        eventually("a word of the end in the log", SOON, async || {
            !log::lines(&[&id, "INFO", "the subscriber is at work again"]).is_empty()
        })
        .await;
    }
}

fn numbered(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}

async fn share_during(span: Duration) -> f64 {
    let (process, begun) = (Process::this(), Instant::now());
    let before = process.processor_time();
    tokio::time::sleep(span).await;
    (process.processor_time() - before) / begun.elapsed().as_secs_f64()
}
