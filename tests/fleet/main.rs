//! Programs as processes of their own: the examples, chaos, and servers that are killed.

#![cfg(feature = "rmcp")]

mod chaos;
mod chat;
mod chat_fleet;
mod chat_operations;
mod chat_trouble;
mod examples;
mod faults;
mod fleet_example;
mod mixed_versions;
mod poll;
mod secrets;
#[cfg(feature = "opentelemetry")]
mod traces;
