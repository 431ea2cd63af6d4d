//! Faults that only Redis has: it forgets scripts, dies, runs out of memory, or stores another type under a key.
//! FastMCP also writes to it.

mod fixture;
mod keyed;

mod connecting;
mod cost;
mod expiry;
mod failures;
mod fastmcp;
mod fates;
mod upgrade;
