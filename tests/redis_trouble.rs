//! Each trouble with Redis that `docs/redis-trouble.md` lists, and what it says of it: for whoever pushes, for twenty
//! subscribers at once, for what is under way, for the operator, and for the processor.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "redis_trouble/place.rs"]
mod place;

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
