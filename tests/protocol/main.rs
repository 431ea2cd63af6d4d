//! The protocol and its code: generated inputs, schedules and faults, and the order of the source itself.

#[cfg(all(feature = "elicitation", feature = "rmcp"))]
mod agreement;
#[cfg(feature = "server")]
mod bad_input;
mod documents;
mod layers;
#[cfg(feature = "server")]
mod lua;
#[cfg(all(feature = "metrics", feature = "server"))]
mod metrics_documents;
#[cfg(feature = "server")]
mod simulation;
