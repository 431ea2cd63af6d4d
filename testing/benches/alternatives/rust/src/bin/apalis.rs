//! Side of apalis-redis in the comparison: a job queue of lists and hashes, at least once, with retries in the worker.

use std::sync::Arc;
use std::time::Duration;

use alternatives::{Job, Package, Session, run};
use apalis::prelude::*;
use apalis_redis::{Config, ConnectionManager, RedisStorage};

/// Pause between two looks at an empty queue. In version 1.0.0 neither this nor the publications of `RedisStorageFactory` wake a
/// worker that found nothing: the worker looks again with its next heartbeat, after 30 s.
const INTERVAL: Duration = Duration::from_millis(10);

#[derive(Clone)]
struct Apalis(ConnectionManager);

impl Apalis {
    fn storage(&self, queue: &str) -> RedisStorage<Job> {
        // As many at once as this crate takes, and no results, which nobody reads.
        let config = Config::default().queue(queue).batch_size(100).persist_results(false);
        RedisStorage::new(self.0.clone()).with_config(config)
    }
}

impl Package for Apalis {
    async fn connect(redis: &str) -> Self {
        Self(apalis_redis::connect(redis).await.unwrap())
    }

    async fn push(&self, queue: &str, jobs: Vec<Job>) {
        self.storage(queue).push_bulk(jobs).await.unwrap();
    }

    async fn consume(&self, queue: String, _in_order: bool, session: Arc<Session>) {
        let worker = WorkerBuilder::new(format!("{queue}-worker-{}", std::process::id()))
            .backend(self.storage(&queue).poll_with_interval(INTERVAL))
            .data(session)
            .retry(RetryPolicy::retries(3))
            .build(handle);
        worker.run().await.unwrap();
    }
}

async fn handle(job: Job, session: Data<Arc<Session>>) -> Result<(), BoxDynError> {
    Ok(session.take(job).await?)
}

#[tokio::main]
async fn main() {
    run::<Apalis>().await;
}
