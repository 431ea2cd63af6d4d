//! What one subscriber is given, and what it says at its end.

use std::any::Any;
use std::sync::Arc;

use actix::prelude::*;
use tokio::sync::watch;

use super::guarded::Guarded;
use super::stats::Stats;
use crate::config::Config;
use crate::queue::{OwnerToken, Queue};
use crate::session_id::SessionId;

/// All that one subscriber needs.
#[derive(Clone)]
pub(super) struct Post {
    pub(super) session_id: SessionId,
    pub(super) session: Guarded,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) config: Arc<Config>,
    pub(super) owner: OwnerToken,
    pub(super) epoch: u64,
    pub(super) stats: Arc<Stats>,
    pub(super) supervisor: Recipient<Ended>,
    pub(super) stop: watch::Receiver<bool>,
}

/// Why a subscriber ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// It was asked to.
    Stopped,
    /// The session is over.
    Closed,
    /// The session is over here, and may go on at another server.
    Left,
    /// It panicked, with this text.
    Panicked(String),
    /// Its arbiter was stopped under it.
    Dropped,
}

/// A subscriber has ended, and why: from the subscriber to its supervisor.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct Ended {
    pub(super) session: SessionId,
    pub(super) epoch: u64,
    pub(super) reason: StopReason,
}

/// A subscriber did not end by itself: its arbiter was stopped under it.
#[derive(Debug)]
pub(super) struct Forced;

/// What a panic said.
pub(super) fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
