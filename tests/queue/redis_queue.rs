//! What only Redis can do to a queue: forget scripts, die, run out of memory, hold something else under the key, be
//! written to by FastMCP.

mod fixture;

mod connecting;
mod cost;
mod expiry;
mod failures;
mod fastmcp;
mod fates;
mod upgrade;
