//! A server with a publisher and an owner at it.

use std::sync::Arc;
use std::time::Duration;

use mcp_courier::testing::backend::{Backend, Consumer, Delivered, OwnerToken, Permit, Queues, Taken, connect};
use mcp_courier::{ConfigBuilder, Notification, Publisher, SessionId};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

/// Key of the queue of [`session`]. Workers in other languages rely on this key and on that of the lease.
pub(crate) const QUEUE: &str = "mcp-courier:notifications:s-1";
pub(crate) const LEASE: &str = "{mcp-courier:notifications:s-1}:lease";

pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) struct Fixture {
    pub(crate) server: RedisServer,
    pub(crate) publisher: Publisher,
    pub(crate) queue: Arc<dyn Backend>,
    /// The queues as owners reach them.
    pub(crate) owners: Arc<dyn Queues>,
    pub(crate) token: OwnerToken,
    pub(crate) permit: Arc<Permit>,
    pub(crate) consumer: Box<dyn Consumer>,
    /// To look at keys with, and to do to them what others do.
    pub(crate) raw: MultiplexedConnection,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(RedisServer::start(), waiting::config()).await
    }

    /// With the queue claimed.
    pub(crate) async fn with(server: RedisServer, config: ConfigBuilder) -> Self {
        let config = config.build().unwrap();
        let publisher = Publisher::connect(&server.url(), config.clone()).await.unwrap();
        let queue = connect(&server.url(), Arc::new(config)).await.unwrap();
        let (token, permit) = (OwnerToken::new(), Arc::new(Permit::new()));
        let owners =
            if waiting::is_shared() { Arc::clone(&queue).share() } else { Arc::clone(&queue) as Arc<dyn Queues> };
        let mut consumer = owners.open(&session(), token, Arc::clone(&permit)).await.unwrap();
        consumer.claim().await.unwrap();
        let raw = server.connection().await;
        Self { server, publisher, queue, owners, token, permit, consumer, raw }
    }

    /// Another connection of the same owner.
    pub(crate) async fn reopen(&mut self) {
        self.consumer = self.owners.open(&session(), self.token, Arc::clone(&self.permit)).await.unwrap();
    }

    pub(crate) async fn push(&self, numbers: impl IntoIterator<Item = usize>) {
        for n in numbers {
            self.publisher.push(&session(), note(n)).await.unwrap();
        }
    }

    pub(crate) async fn push_for(&self, n: usize, life: Duration) {
        self.publisher.push(&session(), note(n).with_time_to_live(life).unwrap()).await.unwrap();
    }

    pub(crate) async fn take(&mut self) -> Taken {
        self.consumer.take(None).await.unwrap()
    }

    pub(crate) async fn take_after(&mut self, taken: &Taken) -> Taken {
        let last = taken.items.last().unwrap().mark.clone();
        self.consumer
            .take(Some(&Delivered { count: taken.items.len(), last, questions: Vec::new(), outcomes: Vec::new() }))
            .await
            .unwrap()
    }

    /// A command by hand.
    pub(crate) async fn redis<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut self.raw).await.unwrap()
    }

    /// Returns the remaining life of the queue.
    pub(crate) async fn life(&mut self) -> Duration {
        let life: i64 = self.redis(&["PTTL", QUEUE]).await;
        Duration::from_millis(life.try_into().expect("the queue is there and has an expiry"))
    }

    /// Ends a test: nothing that would stay for ever may be left.
    pub(crate) async fn end(self) {
        self.server.assert_no_key_without_expiry().await;
    }
}

pub(crate) fn session() -> SessionId {
    SessionId::new("s-1").unwrap()
}

pub(crate) fn note(n: usize) -> Notification {
    Notification::new("notifications/test").unwrap().with_params(json!({ "n": n })).unwrap()
}

pub(crate) fn numbers(taken: &Taken) -> Vec<u64> {
    taken
        .items
        .iter()
        .map(|item| item.envelope.as_ref().unwrap().parse_params::<Value>().unwrap()["n"].as_u64().unwrap())
        .collect()
}
