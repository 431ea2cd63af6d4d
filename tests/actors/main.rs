//! Subscribers, their supervisor, and questions of background tasks.

mod elicitation;
mod own_trouble;
mod parking;
mod placement;
mod resources;
mod subscriber;
mod supervision;
