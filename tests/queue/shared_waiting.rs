//! Shared waiting over a real Redis: many sessions on few connections, through everything that may happen to those.

mod place;

mod connections;
mod endurance;
mod neighbours;
mod outages;
mod tracking;
