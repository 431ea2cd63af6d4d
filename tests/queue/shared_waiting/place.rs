//! A Redis, and a courier all of whose sessions are shared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcp_courier::{
    Config, ConfigBuilder, Courier, ListSubscribers, Notification, Publisher, SessionId, SubscriberState,
};
use mcp_courier_testing::eventually::eventually;
use mcp_courier_testing::recorder::Recorder;
use mcp_courier_testing::redis_server::RedisServer;
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use serde_json::json;

/// More than any recovery takes: a silent connection has to be found out, and a lease to run out.
pub(crate) const RECOVERY: Duration = Duration::from_secs(30);

/// Heartbeat that no test waits for: a change that is noticed sooner was announced, and not found by a sweep.
pub(crate) const NEVER: Duration = Duration::from_secs(600);

/// Much less than [`NEVER`], and more than a busy machine takes.
pub(crate) const PROMPT: Duration = Duration::from_secs(5);

pub(crate) struct Place {
    pub(crate) redis: RedisServer,
    pub(crate) courier: Courier,
    /// Past the courier's connections, and never one of those that a test ends.
    pub(crate) raw: MultiplexedConnection,
    pub(crate) sessions: Vec<(SessionId, Arc<Recorder>)>,
    /// Number of notifications that each session was sent.
    pushed: usize,
}

impl Place {
    pub(crate) async fn new(sessions: usize, config: ConfigBuilder) -> Self {
        Self::with(RedisServer::start(), sessions, config).await
    }

    pub(crate) async fn with(redis: RedisServer, sessions: usize, config: ConfigBuilder) -> Self {
        let url = redis.url();
        Self::at(&url, redis, sessions, config).await
    }

    /// With this URL for the courier.
    pub(crate) async fn at(url: &str, redis: RedisServer, sessions: usize, config: ConfigBuilder) -> Self {
        let courier = Courier::start(url, config.build().unwrap()).await.unwrap();
        let raw = redis.connection().await;
        let mut place = Self { redis, courier, raw, sessions: Vec::new(), pushed: 0 };
        place.add(sessions).await;
        place
    }

    pub(crate) async fn add(&mut self, sessions: usize) {
        for _ in 0..sessions {
            let id = SessionId::new(format!("session-{}", self.sessions.len())).unwrap();
            let recorder = Recorder::new();
            self.courier.ensure_subscriber(&id, recorder.clone()).await.unwrap();
            self.sessions.push((id, recorder));
        }
        self.until_all_wait().await;
    }

    pub(crate) fn publisher(&self) -> Publisher {
        self.courier.publisher()
    }

    pub(crate) fn recorder(&self, n: usize) -> &Arc<Recorder> {
        &self.sessions[n].1
    }

    /// Pushes the next notification to each session.
    pub(crate) async fn push(&mut self) {
        let n = self.pushed;
        self.pushed += 1;
        let batch = self.sessions.iter().map(|(id, _)| (id.clone(), numbered(n)));
        for result in self.publisher().push_many(batch).await {
            result.unwrap();
        }
    }

    /// Pushes the next notification to each session, however often that takes.
    pub(crate) async fn push_at_last(&mut self) {
        let n = self.pushed;
        self.pushed += 1;
        let mut left: Vec<_> = self.sessions.iter().map(|(id, _)| (id.clone(), numbered(n))).collect();
        let begun = Instant::now();
        while !left.is_empty() {
            assert!(begun.elapsed() < RECOVERY, "{} pushes are still refused", left.len());
            // The same notification again is recognised by its id.
            let results = self.publisher().push_many(left).await;
            let refused = results.into_iter().filter_map(Result::err);
            left = refused.map(|error| (error.session, *error.notification)).collect();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until each session has all that was pushed to it, in order and once.
    pub(crate) async fn until_all_taken(&self) {
        for (_, recorder) in &self.sessions {
            recorder.until_taken(self.pushed).await;
        }
        self.all_is_in_order();
    }

    /// Waits until all that was delivered is acknowledged: the next owner of a session does not deliver it again.
    pub(crate) async fn until_all_acknowledged(&self) {
        let raw = &self.raw;
        eventually("all queues are empty", RECOVERY, async || {
            let mut raw = raw.clone();
            let mut keys = redis::cmd("KEYS");
            let queues: Vec<String> =
                keys.arg("mcp-courier:notifications:session-*").query_async(&mut raw).await.unwrap();
            queues.is_empty()
        })
        .await;
    }

    pub(crate) fn all_is_in_order(&self) {
        let expected: Vec<i64> = (0..self.pushed as i64).collect();
        for (id, recorder) in &self.sessions {
            assert_eq!(recorder.taken(), expected, "{id:?}");
        }
    }

    /// Pushes a notification to each session, and waits for all of them.
    pub(crate) async fn flows(&mut self) {
        self.push().await;
        self.until_all_taken().await;
    }

    /// Asserts as [`flows`](Self::flows) does, and that each notification is announced: no sweep finds it.
    pub(crate) async fn flows_at_once(&mut self) {
        self.push().await;
        tokio::time::timeout(PROMPT, self.until_all_taken()).await.expect("at once");
    }

    pub(crate) async fn states(&self) -> Vec<SubscriberState> {
        self.courier.supervisor().send(ListSubscribers).await.unwrap().iter().map(|info| info.state).collect()
    }

    pub(crate) async fn until_all_wait(&self) {
        eventually("all wait", RECOVERY, async || {
            let states = self.states().await;
            states.len() >= self.sessions.len() && states.iter().all(|state| *state == SubscriberState::Waiting)
        })
        .await;
    }

    pub(crate) async fn redis<T: FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.raw).await.unwrap()
    }

    /// Returns the ids of the connections that Redis tells of changes.
    pub(crate) async fn lines(&mut self) -> Vec<String> {
        let clients: String = self.redis(&["CLIENT", "LIST"]).await;
        let field = |line: &str, name: &str| {
            line.split(' ').find_map(|field| field.strip_prefix(name)).unwrap_or_default().to_owned()
        };
        clients.lines().filter(|line| field(line, "flags=").contains('t')).map(|line| field(line, "id=")).collect()
    }

    /// Ends the connections that Redis tells of changes, and returns their number.
    pub(crate) async fn cut_lines(&mut self) -> usize {
        let lines = self.lines().await;
        for id in &lines {
            // One that has ended meanwhile is no error.
            let _: usize = self.redis(&["CLIENT", "KILL", "ID", id]).await;
        }
        lines.len()
    }
}

/// Settings with which all sessions are shared.
pub(crate) fn shared() -> ConfigBuilder {
    Config::builder()
        .dedicated_limit(0)
        .backoff_initial(Duration::from_millis(5))
        .backoff_max(Duration::from_millis(200))
}

pub(crate) fn numbered(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n})).unwrap()
}
