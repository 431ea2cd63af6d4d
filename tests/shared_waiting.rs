//! Shared waiting over a real Redis: many sessions on few connections, through everything that may happen to those.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "shared_waiting/place.rs"]
mod place;

#[path = "shared_waiting/connections.rs"]
mod connections;
#[path = "shared_waiting/endurance.rs"]
mod endurance;
#[path = "shared_waiting/neighbours.rs"]
mod neighbours;
#[path = "shared_waiting/outages.rs"]
mod outages;
#[path = "shared_waiting/tracking.rs"]
mod tracking;
