//! Bare redis-rs: what a program does that has one queue, one connection, and no guarantee to keep.

use std::time::Duration;

use mcp_courier::SessionId;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::messages::{lease_of, queue_of};

/// Number of messages that one script takes, as `Config::batch_messages` has it by default.
pub(crate) const BATCH: usize = 100;

/// Acknowledges what was delivered, and reads the next batch, if the lease is the caller's.
const TAKE: &str = "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {} end
redis.call('LTRIM', KEYS[1], 0, -1 - ARGV[2])
return redis.call('LRANGE', KEYS[1], -ARGV[3], -1)";

/// Returns a connection whose answers may take long: the machine is busy.
pub(crate) async fn connect(url: &str) -> MultiplexedConnection {
    let patient = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(60)));
    redis::Client::open(url).unwrap().get_multiplexed_async_connection_with_config(&patient).await.unwrap()
}

/// Queues messages, in pipelines of `LPUSH`.
pub(crate) async fn fill(connection: &mut MultiplexedConnection, queue: &str, messages: &[Vec<u8>]) {
    for some in messages.chunks(100) {
        let () = redis::cmd("LPUSH").arg(queue).arg(some).query_async(connection).await.unwrap();
    }
}

/// Takes messages from a queue in batches until there were so many. The lease is taken first.
pub(crate) async fn drain(connection: &mut MultiplexedConnection, session: &SessionId, count: usize) {
    const OWNER: &str = "bare";
    let (queue, lease) = (queue_of(session), lease_of(session));
    let () = redis::cmd("SET").arg(&lease).arg(OWNER).query_async(connection).await.unwrap();
    let script = redis::Script::new(TAKE);
    let (mut drained, mut delivered) = (0, 0);
    while drained < count {
        let mut take = script.key(&queue);
        take.key(&lease).arg(OWNER).arg(delivered).arg(BATCH);
        let batch: Vec<Vec<u8>> = take.invoke_async(connection).await.unwrap();
        delivered = batch.len();
        drained += delivered;
    }
}
