//! Fixtures of this repository's tests and measurements. The package is not published.
//!
//! - Servers: [`redis_server`] starts a real `redis-server`, [`sentinels`] a primary with replicas and Sentinels, and
//!   [`redis_cluster`] a cluster. [`certificates`] makes what a server with TLS needs. [`mcp_server`] starts an MCP
//!   server in this process.
//! - Processes: [`child`] is a process that talks in lines, [`examples`] has those of the repository, [`process`] counts
//!   the threads and memory of one, and [`own_process`] gives a test a process.
//! - Clients: [`raw_client`] shows events and can misbehave, [`wire`] shows bytes, and [`sse`] parses events.
//! - Judges: [`received`] says whether all came, in order and once.
//! - Sessions: [`recorder`] records notifications and fails by a script. [`staged_manager`] holds a session at any step.
//! - Faults: [`forwarder`] is a network between two processes that delays, cuts and narrows.
//! - Time and observation: [`eventually`], [`paused`], [`waiting`], [`log`], [`scrape`], [`readme`].

#[cfg(feature = "tls")]
pub mod certificates;
pub mod child;
pub mod eventually;
pub mod examples;
pub mod forwarder;
pub mod log;
#[cfg(feature = "rmcp")]
pub mod mcp_server;
pub mod own_process;
#[cfg(feature = "server")]
pub mod paused;
pub mod process;
pub mod raw_client;
pub mod readme;
pub mod received;
#[cfg(feature = "server")]
pub mod recorder;
pub mod redis_cluster;
pub mod redis_server;
pub mod scrape;
#[cfg(feature = "sentinel")]
pub mod sentinels;
pub mod sse;
pub mod staged_manager;
pub mod waiting;
pub mod wire;
