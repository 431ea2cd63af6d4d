//! Handing a request's stream to the HTTP layer, past rmcp.
//!
//! rmcp's handler awaits the methods of the session manager within the task of the request, so a task-local leads from
//! the manager to the layer that is mounted around the handler.

use std::future::Future;
use std::sync::{Arc, Mutex};

use super::stream::Standalone;
use crate::lock::lock;

/// What the layer knows of a request.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Demand {
    /// The request opens a stream or answers something, so that no handler of rmcp's is needed.
    pub(crate) is_for_courier: bool,
    /// The stream is not to be closed early.
    pub(crate) is_decided: bool,
}

/// Parts of the response to one request that the session manager hands over.
#[derive(Debug, Default)]
pub(crate) struct Handoff {
    demand: Demand,
    /// Protocol version that the session negotiated.
    pub(crate) version: Option<String>,
    /// Standalone stream that the layer writes.
    pub(crate) standalone: Option<Standalone>,
    /// The request was refused because the process holds as many sessions as it may.
    pub(crate) is_full: bool,
}

tokio::task_local! {
    static HANDOFF: Arc<Mutex<Handoff>>;
}

/// Serves a request within the HTTP layer. Returns what the session manager handed over beside the response.
///
/// # Cancellation
/// That of the request.
pub(crate) async fn collect<F: Future>(request: F, demand: Demand) -> (F::Output, Handoff) {
    let handoff = Arc::new(Mutex::new(Handoff { demand, ..Handoff::default() }));
    let response = HANDOFF.scope(Arc::clone(&handoff), request).await;
    let handoff = std::mem::take(&mut *lock(&handoff));
    (response, handoff)
}

/// Hands something over, if the HTTP layer is mounted.
pub(super) fn hand(give: impl FnOnce(&mut Handoff)) {
    // Without the layer nobody wants it.
    let _ = HANDOFF.try_with(|handoff| give(&mut lock(handoff)));
}

/// Returns whether the current request needs a handler of rmcp's, as far as is known.
pub(super) fn needs_handler() -> bool {
    HANDOFF.try_with(|handoff| !lock(handoff).demand.is_for_courier).unwrap_or(true)
}

/// Returns whether the layer has decided that the stream of the current request is not closed early.
pub(super) fn is_decided() -> bool {
    HANDOFF.try_with(|handoff| lock(handoff).demand.is_decided).unwrap_or(false)
}

/// Returns whether the HTTP layer is mounted around the current request.
pub(super) fn is_layered() -> bool {
    HANDOFF.try_with(|_| ()).is_ok()
}
