//! Couriers whose subscribers run on the test's own thread, in paused time.
//!
//! The time jumps to the next timer whenever nothing is left to do. So a test takes as long as its work, and its
//! figures do not depend on how busy the machine is.

use std::cell::Cell;

use mcp_courier::{Config, Courier};

/// Starts a courier over a queue in memory. Pauses the time of this thread at the first call.
pub async fn start(url: &str, config: Config) -> Courier {
    thread_local!(static IS_PAUSED: Cell<bool> = const { Cell::new(false) });
    if !IS_PAUSED.replace(true) {
        tokio::time::pause();
    }
    mcp_courier::testing::start_here(url, config).await.unwrap()
}
