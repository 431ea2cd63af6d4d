//! Each trouble with Redis that `docs/redis-trouble.md` lists, and what it says of it: for whoever pushes, for twenty
//! subscribers at once, for what is under way, for the operator, and for the processor.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "support/eventually.rs"]
mod eventually;
#[path = "support/forwarder.rs"]
mod forwarder;
#[path = "support/log.rs"]
mod log;
#[path = "redis_trouble/place.rs"]
mod place;
#[path = "support/redis_server.rs"]
mod redis_server;
#[path = "support/session.rs"]
mod session;
#[path = "support/waiting.rs"]
mod waiting;

#[path = "redis_trouble/line.rs"]
mod line;
#[path = "redis_trouble/narrow.rs"]
mod narrow;
#[path = "redis_trouble/one.rs"]
mod one;
#[path = "redis_trouble/planned.rs"]
mod planned;
#[path = "redis_trouble/refusing.rs"]
mod refusing;
#[path = "redis_trouble/unreachable.rs"]
mod unreachable;
