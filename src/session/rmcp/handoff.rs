//! Hand-off of a request's stream to the HTTP layer, past rmcp.
//!
//! rmcp would make an event of its own type of each message, and the layer would take those apart again. rmcp's handler
//! awaits the methods of the session manager within the task of the request. Therefore a task-local connects the
//! manager with the layer that is mounted around the handler.
//!
//! *What breaks without it*: numbers beyond 64 bits, as rmcp's values hold none, and a copy of each message for rmcp's
//! event and another for the layer's. A manager without the layer works that way (`numbers_arrive_as_they_were_pushed`,
//! `a_manager_without_the_layer_delivers_and_has_the_delivery_confirmed`).

use std::future::Future;
use std::sync::{Arc, Mutex};

use super::stream::Standalone;
use crate::lock::lock;

/// Knowledge of the layer about a request.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Demand {
    /// Set where the request opens a stream or answers something, so that no handler of rmcp's is needed.
    pub(crate) is_for_courier: bool,
    /// Set where the layer has decided already that the stream is not closed early.
    pub(crate) is_decided: bool,
}

/// Parts of the response to one request that the session manager hands over.
#[derive(Debug, Default)]
pub(crate) struct Handoff {
    demand: Demand,
    /// Negotiated protocol version of the session.
    pub(crate) version: Option<String>,
    /// Standalone stream that the layer writes.
    pub(crate) standalone: Option<Standalone>,
    /// Set where the request was refused because the process holds as many sessions as it may.
    pub(crate) is_full: bool,
}

tokio::task_local! {
    /// Parts that the current request's session manager hands to the layer.
    static HANDOFF: Arc<Mutex<Handoff>>;
}

/// Serves a request within the HTTP layer. Returns its output, and the parts that the session manager handed over
/// beside it.
///
/// # Cancellation
/// The same as of the request.
pub(crate) async fn collect<F: Future>(request: F, demand: Demand) -> (F::Output, Handoff) {
    let handoff = Arc::new(Mutex::new(Handoff { demand, ..Handoff::default() }));
    let response = HANDOFF.scope(Arc::clone(&handoff), request).await;
    let handoff = std::mem::take(&mut *lock(&handoff));
    (response, handoff)
}

/// Hands parts over, if the HTTP layer is mounted.
pub(super) fn hand(give: impl FnOnce(&mut Handoff)) {
    // Without the layer nobody takes the parts.
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
