//! ChasquiMQ's side of the comparison: Redis streams with consumer groups, at least once, without an order among retries. It needs
//! Redis 8.6 or newer.

use std::collections::HashMap;
use std::sync::Arc;

use alternatives::{Job, Package, Session, run};
use bytes::Bytes;
use chasquimq::{Consumer, ConsumerConfig, HandlerError, Producer, ProducerConfig};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

#[derive(Clone)]
struct Chasqui {
    redis: String,
    /// A producer is made for one queue.
    producers: Arc<Mutex<HashMap<String, Arc<Producer<Job>>>>>,
}

impl Package for Chasqui {
    async fn connect(redis: &str) -> Self {
        Self { redis: redis.trim_end_matches('/').to_owned(), producers: Arc::default() }
    }

    async fn push(&self, queue: &str, jobs: Vec<Job>) {
        let mut producers = self.producers.lock().await;
        let producer = match producers.get(queue) {
            Some(producer) => Arc::clone(producer),
            None => {
                let config = ProducerConfig { queue_name: queue.to_owned(), pool_size: 1, ..ProducerConfig::default() };
                let producer = Arc::new(Producer::connect(&self.redis, config).await.unwrap());
                producers.insert(queue.to_owned(), Arc::clone(&producer));
                producer
            }
        };
        drop(producers);
        producer.add_bulk(jobs).await.unwrap();
    }

    async fn consume(&self, queue: String, in_order: bool, session: Arc<Session>) {
        let default = ConsumerConfig::default();
        let concurrency = if in_order { 1 } else { default.concurrency };
        let config = ConsumerConfig { queue_name: queue, concurrency, ..default };
        let consumer = Consumer::<Job>::new(&self.redis, config);
        let handle = move |job: chasquimq::Job<Job>| {
            let session = Arc::clone(&session);
            async move { session.take(job.payload).await.map(|()| Bytes::new()).map_err(HandlerError::new) }
        };
        consumer.run(handle, CancellationToken::new()).await.unwrap();
    }
}

#[tokio::main]
async fn main() {
    run::<Chasqui>().await;
}
