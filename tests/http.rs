//! What goes over the wire: framing, hosts, origins, versions, connections, unreadable answers and the shutdown.
#![cfg(feature = "rmcp")]

#[path = "http/answers.rs"]
mod answers;
#[path = "http/ending.rs"]
mod ending;
#[path = "http/framing.rs"]
mod framing;
#[path = "http/limit.rs"]
mod limit;
#[path = "http/own_retry.rs"]
mod own_retry;
#[path = "http/serving.rs"]
mod serving;
#[path = "http/unlayered.rs"]
mod unlayered;
#[path = "http/who.rs"]
mod who;

use mcp_courier::{Config, Courier};

/// A courier over a queue of its own.
async fn courier() -> Courier {
    static COURIERS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    let number = COURIERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let url = format!("memory://http-{}-{number}", std::process::id());
    Courier::start(&url, Config::default()).await.unwrap()
}
