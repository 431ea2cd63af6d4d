//! Notifications over real HTTP to raw clients, confirmed, beside a null courier: `cargo bench -p mcp-courier-testing -- http`.
//!
//! A null courier has no queue, no rmcp and no Redis, and sends the same frames and pings: see `web/null.rs`. The queues are full
//! when the clients open their streams, so that batches are full too.

mod calls;
mod drain;
mod latency;

use mcp_courier_testing::redis_server::RedisServer;

use crate::support::figures::{Bench, print_head};
use crate::support::load;
use crate::support::messages::message;
use crate::web::{Client, Frames, Server};

pub(crate) fn run(bench: &Bench) {
    print_head("null courier");
    actix::System::new().block_on(async {
        let frames = frames().await;
        drain::measure(bench, &frames).await;
        latency::measure(bench, &frames).await;
        calls::measure(bench, &frames).await;
    });
}

/// Returns what a courier writes into a stream.
async fn frames() -> Frames {
    let redis = RedisServer::start();
    let server = Server::courier(&redis.url());
    let (mut client, sessions) = Client::begin(server.address(), 1);
    load::fill(&redis.url(), &sessions, 1, || message(load::SIZE)).await;
    client.open();
    client.until(1);
    // The ping comes behind the message, perhaps in another piece.
    loop {
        let frames = client.frames();
        if !frames.ping.is_empty() {
            return frames;
        }
    }
}
