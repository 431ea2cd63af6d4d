//! The queue, in memory and in a real Redis, whole and in trouble of every kind.

#[cfg(feature = "server")]
mod bounds;
#[cfg(all(feature = "elicitation", feature = "server"))]
mod clock_steps;
#[cfg(all(feature = "cluster", feature = "server"))]
mod cluster;
#[cfg(all(feature = "elicitation", feature = "server"))]
mod fates;
mod inspecting;
#[cfg(feature = "server")]
mod numbers;
#[cfg(feature = "server")]
mod one_owner;
#[cfg(feature = "server")]
mod producers;
#[cfg(all(feature = "elicitation", feature = "rmcp"))]
mod queue_contract;
#[cfg(all(feature = "elicitation", feature = "server"))]
mod redis_queue;
#[cfg(all(feature = "elicitation", feature = "rmcp"))]
mod redis_trouble;
#[cfg(all(feature = "elicitation", feature = "seal", feature = "server"))]
mod sealing;
#[cfg(feature = "server")]
mod shared_waiting;
#[cfg(feature = "server")]
mod ways;
mod worker_alone;
