//! Sealed payloads beside plain ones: `cargo bench -p mcp-courier-testing -- seal`.
//!
//! The first rows make and read the text of a message, without Redis. Sealing is added to what a plain message costs
//! there. The last rows push to a session over a `redis-server` of their own, until all is delivered.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mcp_courier::testing::envelope::{Draft, Timestamp, decode_with, draft_with};
use mcp_courier::testing::notification_id;
use mcp_courier::{
    Config, Courier, HandOverError, McpSession, Notification, Outbound, SealingKey, SealingKeys, async_trait,
};
use mcp_courier_testing::redis_server::RedisServer;
use serde_json::json;
use tokio::sync::Notify;

use crate::support::figures::{Bench, Row, Wanted, print_head, print_row};
use crate::support::messages::session;

/// Sizes of the payloads, in bytes.
const SIZES: [(usize, &str); 2] = [(200, "200 B"), (10 * 1024, "10 KiB")];
/// Number of messages in one round of the first rows.
const TEXTS: usize = 50_000;
/// Number of bytes that one round of the last rows pushes.
const PUSHED: usize = 20_000_000;
const QUEUE: &str = "mcp-courier:notifications:bench";

pub(crate) fn run(bench: &Bench) {
    print_head("plain");
    for (bytes, name) in SIZES {
        texts(bench, bytes, name);
    }
    for (bytes, name) in SIZES {
        let bench = bench.clone();
        actix::System::new().block_on(async move { delivered(&bench, bytes, name).await });
    }
}

/// Returns the settings of a process that seals, or of one that does not.
fn config(seals: bool) -> Config {
    let keys = SealingKeys::sealing("bench", SealingKey::generate().unwrap()).unwrap();
    let config = Config::builder().queue_max_bytes(1 << 30).queue_max_messages(1_000_000);
    if seals { config.sealing(keys) } else { config.prefix("plain") }.build().unwrap()
}

fn notification(bytes: usize) -> Notification {
    let empty = r#"{"method":"notifications/bench","params":{"text":""}}"#.len();
    let params = json!({"text": "x".repeat(bytes.saturating_sub(empty))});
    Notification::new("notifications/bench").unwrap().with_params(params).unwrap()
}

/// Measures the making and the reading of the text of a message.
fn texts(bench: &Bench, bytes: usize, name: &str) {
    let mut sealing = Row::new(format!("making a message, payload of {name}"), "µs");
    let mut opening = Row::new(format!("reading a message, payload of {name}"), "µs");
    let (configs, notification, count) = ([true, false].map(config), notification(bytes), bench.count(TEXTS));
    for _ in bench.rounds([&sealing, &opening]) {
        let [sealed, plain] = configs.each_ref().map(|config| {
            let draft =
                || -> Draft { draft_with(black_box(&notification), notification_id(7), QUEUE, config).unwrap() };
            let making = each(count, || drop(black_box(draft())));
            let raw = draft().stamp(Timestamp(1_795_428_000_000_000));
            let reading = each(count, || drop(black_box(decode_with(QUEUE, raw.clone(), config).unwrap())));
            (making, reading)
        });
        sealing.add(sealed.0, plain.0);
        opening.add(sealed.1, plain.1);
    }
    [sealing, opening].iter().for_each(print_row);
}

/// Returns the time of one call in µs, over many calls.
fn each(count: usize, call: impl Fn()) -> f64 {
    let began = Instant::now();
    (0..count).for_each(|_| call());
    began.elapsed().as_secs_f64() * 1e6 / count as f64
}

/// Measures notifications a second from the first push to the last delivery.
async fn delivered(bench: &Bench, bytes: usize, name: &str) {
    let mut row =
        Row::new(format!("push to delivery over Redis, payload of {name}"), "/s").wanted(Wanted::AtLeast(0.5));
    let count = bench.count(PUSHED / bytes.max(1000));
    for _ in bench.rounds([&row]) {
        let server = RedisServer::start();
        let mut figures = [0.0; 2];
        for (figure, seals) in figures.iter_mut().zip([true, false]) {
            let courier = Courier::start(&server.url(), config(seals)).await.unwrap();
            let client = Arc::new(Client::default());
            courier.ensure_subscriber(&session(0), client.clone()).await.unwrap();
            let (publisher, notification) = (courier.publisher(), notification(bytes));
            let began = Instant::now();
            for _ in 0..count.div_ceil(100) {
                let batch = (0..100).map(|_| (session(0), notification.clone()));
                publisher.push_many(batch).await.into_iter().for_each(|pushed| assert!(pushed.is_ok()));
            }
            while client.count.load(Ordering::Relaxed) < count.div_ceil(100) * 100 {
                client.changed.notified().await;
            }
            *figure = count as f64 / began.elapsed().as_secs_f64();
            courier.shutdown(Duration::from_secs(5)).await;
        }
        row.add(figures[0], figures[1]);
    }
    print_row(&row);
}

/// Session that counts.
#[derive(Default)]
struct Client {
    count: AtomicUsize,
    changed: Notify,
}

#[async_trait]
impl McpSession for Client {
    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        black_box(notification.to_json());
        self.count.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_one();
        Ok(())
    }
}
