//! Notifications over real HTTP to raw clients, confirmed, beside a null courier: `cargo bench --bench http`.
//!
//! A null courier has no queue, no rmcp and no Redis, and sends the same frames and pings: see `web/null.rs`. The queues are full
//! when the clients open their streams, so that batches are full too.

#[path = "http/calls.rs"]
mod calls;
#[path = "http/drain.rs"]
mod drain;
#[path = "http/latency.rs"]
mod latency;
mod support;
mod web;

use mcp_courier_testing::redis_server::RedisServer;
use support::figures::print_head;
use support::messages::message;
use web::{Client, Frames, Server};

fn main() {
    let Some(bench) = web::begin() else { return };
    print_head("null courier");
    actix::System::new().block_on(async {
        let frames = frames().await;
        drain::measure(&bench, &frames).await;
        latency::measure(&bench, &frames).await;
        calls::measure(&bench, &frames).await;
    });
}

/// Returns what a courier writes into a stream.
async fn frames() -> Frames {
    let redis = RedisServer::start();
    let server = Server::courier(&redis.url());
    let (mut client, sessions) = Client::begin(server.address(), 1);
    support::load::fill(&redis.url(), &sessions, 1, || message(support::load::SIZE)).await;
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
