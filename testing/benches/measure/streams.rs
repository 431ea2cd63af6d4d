//! Ten thousand open streams in one server process: memory, and what a crash of the server costs its clients.
//! `cargo bench -p mcp-courier-testing -- streams`.
//!
//! Memory is that of a courier's server, of rmcp's own, and of actix with nothing but open responses. After a crash all clients
//! come at once to another server, with their session ids and their last event ids.

mod failover;
mod memory;

use crate::support::figures::Bench;

/// Number of streams.
const STREAMS: usize = 10_000;

pub(crate) fn run(bench: &Bench) {
    actix::System::new().block_on(async {
        memory::measure(bench).await;
        failover::measure(bench).await;
    });
}
