//! Places of the tests: a queue, a server of its fleet, and a worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mcp_courier::testing::backend::{Backend, connect};
use mcp_courier::{
    Answer, ConfigBuilder, Courier, ElicitError, Elicitation, Elicitor, McpSession, Publisher, SessionId, TaskKey,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;

/// Longer than any test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) redis: Option<RedisServer>,
    pub(crate) courier: Courier,
    pub(crate) publisher: Publisher,
    pub(crate) elicitor: Elicitor,
    pub(crate) queue: Arc<dyn Backend>,
}

impl Place {
    pub(crate) async fn in_memory() -> Self {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        let url = format!("memory://elicitation-{}", NAMES.fetch_add(1, Ordering::Relaxed));
        Self::at(url, None).await
    }

    pub(crate) async fn in_redis() -> Self {
        Self::in_this(RedisServer::start()).await
    }

    pub(crate) async fn in_this(redis: RedisServer) -> Self {
        Self::at(redis.url(), Some(redis)).await
    }

    async fn at(url: String, redis: Option<RedisServer>) -> Self {
        let courier = Courier::start(&url, config().build().unwrap()).await.unwrap();
        // A worker has a connection of its own, as it runs in another process.
        let publisher = Publisher::connect(&url, config().build().unwrap()).await.unwrap();
        let queue = connect(&url, Arc::new(config().build().unwrap())).await.unwrap();
        Self { elicitor: publisher.elicitor(), publisher, courier, queue, url, redis }
    }

    /// Another server of the fleet.
    pub(crate) async fn another_server(&self) -> Courier {
        Courier::start(&self.url, config().build().unwrap()).await.unwrap()
    }

    pub(crate) async fn serve(&self, session: Arc<dyn McpSession>) {
        self.courier.ensure_subscriber(&id(), session).await.unwrap();
    }

    /// A worker that asks in the background.
    pub(crate) fn ask(&self, task: &TaskKey, question: Elicitation) -> JoinHandle<Result<Answer, ElicitError>> {
        self.ask_for(task, question, PATIENCE)
    }

    pub(crate) fn ask_for(
        &self,
        task: &TaskKey,
        question: Elicitation,
        timeout: Duration,
    ) -> JoinHandle<Result<Answer, ElicitError>> {
        let (elicitor, task) = (self.elicitor.clone(), task.clone());
        tokio::spawn(async move { elicitor.elicit(&id(), &task, question, timeout).await })
    }

    /// Waits until the task has no question, and the session has no open one.
    pub(crate) async fn until_nothing_is_left(&self, task: &TaskKey) {
        eventually("no open question", SOON, || async { self.queue.open_questions(&id()).await.unwrap().is_empty() })
            .await;
        if let Some(redis) = &self.redis {
            let pattern = format!("mcp-courier:task:*{}:*", task.id());
            let raw = redis.connection().await;
            eventually("no key of the task", SOON, || {
                let (mut command, mut raw) = (redis::cmd("KEYS"), raw.clone());
                command.arg(&pattern);
                async move { command.query_async::<Vec<String>>(&mut raw).await.unwrap().is_empty() }
            })
            .await;
            redis.assert_no_key_without_expiry().await;
        }
    }
}

pub(crate) fn config() -> ConfigBuilder {
    waiting::config()
        .backoff_initial(Duration::from_millis(5))
        .backoff_max(Duration::from_millis(100))
        .hand_over_timeout(Duration::from_secs(2))
}

pub(crate) fn id() -> SessionId {
    SessionId::new("the-session").unwrap()
}

pub(crate) fn task(name: &str) -> TaskKey {
    TaskKey::anonymous(name).unwrap()
}

/// A question for a number of at least 0.
pub(crate) fn form(message: &str) -> Elicitation {
    let schema = json!({"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "minimum": 0}}});
    Elicitation::form(message, schema).unwrap()
}

pub(crate) fn content(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

pub(crate) fn accept(n: u64) -> Answer {
    Answer::Accept(content(json!({ "n": n })))
}

/// Why a question was cancelled.
pub(crate) fn reason(answer: Answer) -> String {
    match answer {
        Answer::Cancel { reason: Some(reason) } => reason,
        other => panic!("not cancelled for a reason: {other:?}"),
    }
}

/// A worker's outcome, which is there soon.
pub(crate) async fn outcome(worker: JoinHandle<Result<Answer, ElicitError>>) -> Answer {
    tokio::time::timeout(SOON * 2, worker).await.expect("an outcome in time").unwrap().unwrap()
}
