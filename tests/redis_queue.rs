//! What only Redis can do to a queue: forget scripts, die, run out of memory, hold something else under the key, be
//! written to by FastMCP.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "redis_queue/fixture.rs"]
mod fixture;

#[path = "redis_queue/connecting.rs"]
mod connecting;
#[path = "redis_queue/cost.rs"]
mod cost;
#[path = "redis_queue/expiry.rs"]
mod expiry;
#[path = "redis_queue/failures.rs"]
mod failures;
#[path = "redis_queue/fastmcp.rs"]
mod fastmcp;
#[path = "redis_queue/fates.rs"]
mod fates;
#[path = "redis_queue/upgrade.rs"]
mod upgrade;
