//! Helpers that the benchmarks share.

#![allow(dead_code)] // each benchmark uses a part of it

pub(crate) mod bare;
pub(crate) mod courier;
pub(crate) mod figures;
pub(crate) mod load;
pub(crate) mod messages;
pub(crate) mod process;
pub(crate) mod sessions;
pub(crate) mod tracking;
