//! Wire of the HTTP server: framing, hosts, origins, versions, connections, unreadable answers and the shutdown.
mod answers;
mod ending;
mod framing;
mod limit;
mod origins;
mod own_retry;
mod serving;
mod unlayered;
mod who;

use mcp_courier::{Config, Courier};

/// A courier over a queue of its own.
async fn courier() -> Courier {
    static COURIERS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COURIERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let url = format!("memory://http-{}-{number}", std::process::id());
    Courier::start(&url, Config::default()).await.unwrap()
}
