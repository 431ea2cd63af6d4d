//! Way in which the subscribers of a test wait for messages.
//!
//! `TEST_WAITING=shared cargo nextest run subscriber::` runs a suite with shared waiting. Without the variable, or
//! with `dedicated`, each subscriber has an arbiter and a connection of its own. `scripts/test` runs each suite that
//! uses this module in both ways. Processes that a test starts inherit the variable.

use std::env::{VarError, var};

use mcp_courier::{Config, ConfigBuilder};

/// Returns whether subscribers share arbiters and connections.
pub fn is_shared() -> bool {
    match var("TEST_WAITING").as_deref() {
        Err(VarError::NotPresent) | Ok("dedicated") => false,
        Ok("shared") => true,
        other => panic!("TEST_WAITING is {other:?}, neither dedicated nor shared"),
    }
}

/// Returns the settings to begin with.
pub fn config() -> ConfigBuilder {
    let config = Config::builder();
    // More than any test has.
    if is_shared() { config.dedicated_limit(0) } else { config.dedicated_limit(2000).shared_limit(0) }
}
