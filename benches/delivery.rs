//! How fast a notification gets from its push to a bare `McpSession`, beside a bare redis-rs `BRPOP` loop in the same
//! run: `cargo bench --bench delivery`. It starts a `redis-server` of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mcp_courier::{
    Config, Courier, HandOverError, ListSubscribers, McpSession, Notification, Outbound, Publisher, SessionId,
    SubscriberState, async_trait,
};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};

#[path = "../tests/support/redis_server.rs"]
mod redis_server;

use redis_server::RedisServer;

const ROUNDS: usize = 5;
const DRAINED: usize = 100_000;
const PACED: usize = 500;
const PACE: Duration = Duration::from_millis(10);
/// What makes a message 300 bytes, as a task's status is.
const PADDING: usize = 60;

fn main() {
    actix::System::new().block_on(async {
        let mut drains = (Vec::new(), Vec::new());
        let mut p50s = (Vec::new(), Vec::new());
        let mut p99s = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let redis = RedisServer::start();
            drains.0.push(drain_courier(&redis).await);
            drains.1.push(drain_brpop(&redis).await);
            let (ours, bare) = (paced_courier(&redis).await, paced_brpop(&redis).await);
            p50s.0.push(percentile(&ours, 50));
            p50s.1.push(percentile(&bare, 50));
            p99s.0.push(percentile(&ours, 99));
            p99s.1.push(percentile(&bare, 99));
        }
        println!("medians of {ROUNDS} rounds; messages of about 300 bytes");
        println!("{:<34}{:>14}{:>14}{:>9}", "", "mcp-courier", "bare BRPOP", "ratio");
        row(&format!("drain of {DRAINED}, messages a second"), &mut drains);
        row("push to deliver at 100/s, p50 µs", &mut p50s);
        row("push to deliver at 100/s, p99 µs", &mut p99s);
    });
}

fn row(name: &str, (ours, bare): &mut (Vec<f64>, Vec<f64>)) {
    let (ours, bare) = (median(ours), median(bare));
    println!("{name:<34}{ours:>14.0}{bare:>14.0}{:>9.2}", ours / bare);
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn percentile(sorted: &[u64], percent: usize) -> f64 {
    sorted[(sorted.len() - 1) * percent / 100] as f64 / 1000.0
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

fn id() -> SessionId {
    SessionId::new("bench").unwrap()
}

fn notification() -> Notification {
    let params = json!({"sent": now(), "padding": "x".repeat(PADDING)});
    Notification::new("notifications/bench").unwrap().with_params(params).unwrap()
}

fn config() -> Config {
    Config::builder().queue_max_messages(DRAINED).build().unwrap()
}

struct Counter(AtomicUsize, Notify);

#[async_trait]
impl McpSession for Counter {
    async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
        if self.0.fetch_add(1, Ordering::Relaxed) + 1 == DRAINED {
            self.1.notify_one();
        }
        Ok(())
    }
}

struct Clock(mpsc::UnboundedSender<u64>);

#[async_trait]
impl McpSession for Clock {
    async fn hand_over(&self, outbound: &Outbound) -> Result<(), HandOverError> {
        let took = now().saturating_sub(outbound.parse_params::<Value>().unwrap()["sent"].as_u64().unwrap());
        let _ = self.0.send(took);
        Ok(())
    }
}

async fn fill(publisher: &Publisher) {
    for _ in 0..DRAINED / 1000 {
        let many = (0..1000).map(|_| (id(), notification()));
        for result in publisher.push_many(many).await {
            result.unwrap();
        }
    }
}

async fn drain_courier(redis: &RedisServer) -> f64 {
    let courier = Courier::start(&redis.url(), config()).await.unwrap();
    fill(&courier.publisher()).await;
    let counter = Arc::new(Counter(AtomicUsize::new(0), Notify::new()));
    let begun = Instant::now();
    courier.ensure_subscriber(&id(), counter.clone()).await.unwrap();
    counter.1.notified().await;
    let rate = DRAINED as f64 / begun.elapsed().as_secs_f64();
    courier.shutdown(Duration::from_secs(5)).await;
    rate
}

async fn bare_connection(redis: &RedisServer) -> redis::aio::MultiplexedConnection {
    let mut connection = redis.connection().await;
    connection.set_response_timeout(Duration::from_secs(60));
    connection
}

async fn drain_brpop(redis: &RedisServer) -> f64 {
    let publisher = Publisher::connect(&redis.url(), config()).await.unwrap();
    fill(&publisher).await;
    let mut connection = bare_connection(redis).await;
    let begun = Instant::now();
    for _ in 0..DRAINED {
        pop(&mut connection).await;
    }
    DRAINED as f64 / begun.elapsed().as_secs_f64()
}

async fn pop(connection: &mut redis::aio::MultiplexedConnection) -> Value {
    let (_, raw): (String, Vec<u8>) =
        redis::cmd("BRPOP").arg("mcp-courier:notifications:bench").arg(30).query_async(connection).await.unwrap();
    serde_json::from_slice(&raw).unwrap()
}

/// Pushes at a steady pace from a thread of its own, by the same publisher for both.
fn pace(redis: &RedisServer) -> std::thread::JoinHandle<()> {
    let url = redis.url();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let publisher = Publisher::connect(&url, config()).await.unwrap();
            let mut ticks = tokio::time::interval(PACE);
            for _ in 0..PACED {
                ticks.tick().await;
                publisher.push(&id(), notification()).await.unwrap();
            }
        });
    })
}

async fn paced_courier(redis: &RedisServer) -> Vec<u64> {
    let courier = Courier::start(&redis.url(), config()).await.unwrap();
    let (sender, mut took) = mpsc::unbounded_channel();
    courier.ensure_subscriber(&id(), Arc::new(Clock(sender))).await.unwrap();
    // Connected and waiting, as the bare loop is.
    while courier.supervisor().send(ListSubscribers).await.unwrap()[0].state != SubscriberState::Waiting {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let pacer = pace(redis);
    let mut all = Vec::new();
    while all.len() < PACED {
        all.push(took.recv().await.unwrap());
    }
    pacer.join().unwrap();
    courier.shutdown(Duration::from_secs(5)).await;
    all.sort_unstable();
    all
}

async fn paced_brpop(redis: &RedisServer) -> Vec<u64> {
    let mut connection = bare_connection(redis).await;
    let pacer = pace(redis);
    let mut all = Vec::new();
    while all.len() < PACED {
        let message = pop(&mut connection).await;
        all.push(now().saturating_sub(message["notification"]["params"]["sent"].as_u64().unwrap()));
    }
    pacer.join().unwrap();
    all.sort_unstable();
    all
}
