//! Helpers that the benchmarks share.

pub(crate) mod bare;
pub(crate) mod courier;
pub(crate) mod figures;
pub(crate) mod load;
pub(crate) mod messages;
pub(crate) mod sessions;
pub(crate) mod tracking;
