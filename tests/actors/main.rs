//! Subscribers, their supervisor, and questions of background tasks.

#![cfg(feature = "server")]

#[cfg(feature = "elicitation")]
mod elicitation;
#[cfg(feature = "elicitation")]
mod own_trouble;
mod parking;
mod placement;
mod resources;
mod subscriber;
mod supervision;
