//! The queue, in memory and in a real Redis, whole and in trouble of every kind.

mod bounds;
mod clock_steps;
mod fates;
mod numbers;
mod one_owner;
mod producers;
mod queue_contract;
mod redis_queue;
mod redis_trouble;
mod shared_waiting;
