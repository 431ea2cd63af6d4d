//! Fixtures of this repository's tests and benchmarks. The package is not published.
//!
//! - Servers: [`redis_server`] starts a real `redis-server`, [`mcp_server`] an MCP server in this process, [`examples`]
//!   the
//!   examples as processes of their own.
//! - Clients: [`raw_client`] shows events and can misbehave, [`wire`] shows bytes.
//! - Sessions: [`recorder`] records notifications and fails by a script, [`staged_manager`] holds a session at any
//!   step.
//! - Faults: [`forwarder`] is a network between two processes that delays, cuts and narrows.
//! - Time and observation: [`eventually`], [`paused`], [`waiting`], [`log`], [`readme`].

pub mod eventually;
pub mod examples;
pub mod forwarder;
pub mod log;
#[cfg(feature = "rmcp")]
pub mod mcp_server;
pub mod own_process;
pub mod paused;
pub mod raw_client;
pub mod readme;
pub mod recorder;
pub mod redis_server;
pub mod staged_manager;
pub mod waiting;
pub mod wire;
