//! The protocol and its code: generated inputs, schedules and faults, and the order of the source itself.

mod agreement;
mod bad_input;
mod documents;
mod layers;
mod lua;
mod simulation;
