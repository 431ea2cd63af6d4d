//! The MCP server over HTTP, in one process and as a fleet over one Redis.

#![cfg(feature = "rmcp")]

mod client_trouble;
mod failover;
mod failover_trouble;
mod health;
mod http;
mod inspecting;
#[cfg(feature = "metrics")]
mod metrics;
mod restoring;
mod rmcp_sessions;
#[cfg(all(feature = "elicitation", feature = "seal"))]
mod sealing;
mod story;
