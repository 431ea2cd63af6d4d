//! Places of the tests, and the owners that act there.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mcp_courier::testing::backend::{
    Backend, Consumer, Delivered, LeaseState, OwnerToken, Permit, Queues, Taken, connect,
};
use mcp_courier::testing::envelope::{Envelope, decode_with};
use mcp_courier::{Config, ConfigBuilder, Notification, Publisher, Pushed, Question, QueueError, SessionId};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::redis_server::RedisServer;
use serde_json::{Value, json};

/// A backend that nobody else uses.
pub(crate) struct Place {
    url: String,
    servers: Servers,
    /// Set where owners share connections.
    is_shared: bool,
    is_sealed: bool,
}

/// The Redis servers of a place.
enum Servers {
    None,
    One(RedisServer),
    #[cfg(feature = "cluster")]
    Cluster(mcp_courier_testing::redis_cluster::RedisCluster),
}

impl Servers {
    fn all(&self) -> &[RedisServer] {
        match self {
            Self::None => &[],
            Self::One(server) => std::slice::from_ref(server),
            #[cfg(feature = "cluster")]
            Self::Cluster(cluster) => cluster.nodes(),
        }
    }
}

/// The backend as one process has it. Owners reach their queues as its subscribers do: over connections of their own, or over
/// shared ones.
#[derive(Clone)]
pub(crate) struct Queue {
    backend: Arc<dyn Backend>,
    queues: Arc<dyn Queues>,
}

impl Deref for Queue {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        &*self.backend
    }
}

impl Queue {
    pub(crate) async fn open(
        &self,
        session: &SessionId,
        owner: OwnerToken,
        permit: Arc<Permit>,
    ) -> Result<Box<dyn Consumer>, QueueError> {
        self.queues.open(session, owner, permit).await
    }

    pub(crate) async fn claim_if_absent(
        &self,
        session: &SessionId,
        owner: OwnerToken,
    ) -> Result<LeaseState, QueueError> {
        self.queues.claim_if_absent(session, owner).await
    }

    pub(crate) async fn release(&self, session: &SessionId, owner: OwnerToken) -> Result<bool, QueueError> {
        self.queues.release(session, owner).await
    }

    pub(crate) async fn open_questions(&self, session: &SessionId) -> Result<Vec<Question>, QueueError> {
        self.queues.open_questions(session).await
    }
}

impl Place {
    pub(crate) fn in_memory() -> Self {
        static NAMES: AtomicU64 = AtomicU64::new(0);
        Self {
            url: format!("memory://{}", NAMES.fetch_add(1, Ordering::Relaxed)),
            servers: Servers::None,
            is_shared: false,
            is_sealed: false,
        }
    }

    pub(crate) fn in_redis() -> Self {
        let server = RedisServer::start();
        Self { url: server.url(), servers: Servers::One(server), is_shared: false, is_sealed: false }
    }

    pub(crate) fn in_redis_shared() -> Self {
        Self { is_shared: true, ..Self::in_redis() }
    }

    #[cfg(feature = "cluster")]
    pub(crate) async fn in_cluster() -> Self {
        let cluster = mcp_courier_testing::redis_cluster::RedisCluster::start().await;
        Self { url: cluster.url(), servers: Servers::Cluster(cluster), is_shared: false, is_sealed: false }
    }

    #[cfg(feature = "cluster")]
    pub(crate) async fn in_cluster_shared() -> Self {
        Self { is_shared: true, ..Self::in_cluster().await }
    }

    /// Has all processes of the place seal what they queue.
    #[cfg(feature = "seal")]
    pub(crate) fn sealed(self) -> Self {
        Self { is_sealed: true, ..self }
    }

    /// Adds the settings that all processes of the place share.
    fn common(&self, config: ConfigBuilder) -> ConfigBuilder {
        #[cfg(feature = "seal")]
        if self.is_sealed {
            return config.sealing(sealing_keys());
        }
        config
    }

    /// Returns whether all processes of the place seal.
    pub(crate) fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    pub(crate) async fn queue(&self, config: ConfigBuilder) -> Queue {
        let backend = connect(&self.url, Arc::new(self.common(config).build().unwrap())).await.unwrap();
        let queues =
            if self.is_shared { Arc::clone(&backend).share() } else { Arc::clone(&backend) as Arc<dyn Queues> };
        Queue { backend, queues }
    }

    pub(crate) async fn publisher(&self, config: ConfigBuilder) -> Publisher {
        Publisher::connect(&self.url, self.common(config).build().unwrap()).await.unwrap()
    }

    /// A publisher and an owner of one session, as most claims need them.
    pub(crate) async fn pair(&self, config: ConfigBuilder) -> (Publisher, Queue, Owner) {
        let queue = self.queue(config.clone()).await;
        let owner = Owner::claiming(&queue).await;
        (self.publisher(config).await, queue, owner)
    }

    /// Until that many wait. In memory whoever was polled waits.
    pub(crate) async fn until_waiting(&self, count: usize) {
        tokio::task::yield_now().await;
        // Over shared connections nobody blocks: a wait begins where it is polled.
        let servers = self.servers.all();
        if !self.is_shared && !servers.is_empty() {
            let blocked = async || {
                let mut blocked = 0;
                for server in servers {
                    blocked += server.blocked_clients().await;
                }
                blocked
            };
            eventually("clients that block", SOON, async || blocked().await >= count).await;
        }
    }

    /// Until no more connections are left than these: what was sent over others is done or never will be.
    pub(crate) async fn until_connections(&self, count: usize) {
        if let Servers::One(server) = &self.servers {
            eventually("the end of connections", SOON, async || server.connected_clients().await <= count).await;
        }
    }

    /// Removes what one claim left behind, before the next one.
    #[cfg(feature = "cluster")]
    pub(crate) async fn empty(&self) {
        for server in self.servers.all() {
            eventually("the end of all waits", SOON, async || server.blocked_clients().await == 0).await;
            let () = server.command(&["FLUSHALL"]).await;
        }
    }

    pub(crate) async fn assert_no_key_without_expiry(&self) {
        for server in self.servers.all() {
            server.assert_no_key_without_expiry().await;
        }
    }
}

#[cfg(feature = "seal")]
fn sealing_keys() -> mcp_courier::SealingKeys {
    let key = mcp_courier::SealingKey::from_bytes(&[7; 32]).unwrap();
    mcp_courier::SealingKeys::sealing("contract", key).unwrap()
}

/// Reads a message of the queue of [`session`], sealed or not.
pub(crate) fn opened(raw: &[u8]) -> Envelope {
    let config = config();
    #[cfg(feature = "seal")]
    let config = config.sealing(sealing_keys());
    let queue = format!("mcp-courier:notifications:{}", session());
    decode_with(&queue, raw.to_vec(), &config.build().unwrap()).unwrap()
}

pub(crate) fn config() -> ConfigBuilder {
    Config::builder()
}

pub(crate) fn session() -> SessionId {
    SessionId::new("1f0c2f6e-7a52-4c5e-9a3c-2f0f4a0c9a11").unwrap()
}

pub(crate) fn note(n: usize) -> Notification {
    Notification::new("notifications/test").unwrap().with_params(json!({ "n": n })).unwrap()
}

pub(crate) async fn push(publisher: &Publisher, numbers: impl IntoIterator<Item = usize>) {
    for pushed in publisher.push_many(numbers.into_iter().map(|n| (session(), note(n)))).await {
        pushed.unwrap();
    }
}

/// Owner of the queue of [`session`], or one that would own it.
pub(crate) struct Owner {
    pub(crate) token: OwnerToken,
    pub(crate) permit: Arc<Permit>,
    pub(crate) consumer: Box<dyn Consumer>,
}

impl Owner {
    pub(crate) async fn opening(queue: &Queue) -> Self {
        let (token, permit) = (OwnerToken::new(), Arc::new(Permit::new()));
        let consumer = queue.open(&session(), token, Arc::clone(&permit)).await.unwrap();
        Self { token, permit, consumer }
    }

    pub(crate) async fn claiming(queue: &Queue) -> Self {
        let mut owner = Self::opening(queue).await;
        owner.consumer.claim().await.unwrap();
        owner
    }

    pub(crate) async fn take(&mut self) -> Taken {
        self.consumer.take(None).await.unwrap()
    }

    pub(crate) async fn take_after(&mut self, delivered: &Delivered) -> Taken {
        self.consumer.take(Some(delivered)).await.unwrap()
    }

    pub(crate) async fn wait(&mut self, block: Duration) -> Taken {
        self.consumer.wait(block).await.unwrap()
    }

    pub(crate) fn is_permitted(&self) -> bool {
        self.permit.holds(Instant::now())
    }

    /// Renews until no doubt is left of what happened before.
    pub(crate) async fn settle(&mut self) {
        let begun = Instant::now();
        while !self.is_permitted() {
            assert!(self.consumer.renew().await.unwrap().is_held());
            assert!(begun.elapsed() < SOON, "a renewed lease permits nothing");
        }
    }

    pub(crate) async fn until_not_permitted(&self) {
        eventually("the loss of the permit", SOON, async || !self.is_permitted()).await;
    }
}

/// Returns the acknowledgement of the `count` oldest messages of a batch, all of them delivered.
pub(crate) fn delivered(taken: &Taken, count: usize) -> Delivered {
    Delivered { count, last: taken.items[count - 1].mark.clone(), questions: Vec::new(), outcomes: Vec::new() }
}

pub(crate) fn envelopes(taken: &Taken) -> Vec<&Envelope> {
    taken.items.iter().map(|item| item.envelope.as_ref().unwrap()).collect()
}

/// The numbers that were pushed, as they came.
pub(crate) fn numbers(taken: &Taken) -> Vec<usize> {
    envelopes(taken)
        .iter()
        .map(|e| usize::try_from(e.parse_params::<Value>().unwrap()["n"].as_u64().unwrap()).unwrap())
        .collect()
}

/// Pushes a notification to the session.
pub(crate) async fn push_one(publisher: &Publisher, notification: Notification) -> Pushed {
    publisher.push(&session(), notification).await.unwrap()
}
