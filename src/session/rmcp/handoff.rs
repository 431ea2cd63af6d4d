//! Handing a request's stream to the HTTP layer, past rmcp.
//!
//! rmcp's handler awaits the methods of the session manager within the task of the request, so a task-local leads from
//! the manager to the layer that is mounted around the handler.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::stream::Messages;
use crate::lock::lock;

/// What the session manager says about the response to one request.
#[derive(Debug, Default)]
pub(crate) struct Handoff {
    /// Protocol version that the session negotiated.
    pub(crate) version: Option<String>,
    /// What the layer adds to rmcp's part of a standalone stream.
    pub(crate) standalone: Option<(PrimingEvent, Messages)>,
}

/// First event of a standalone stream: it has no data.
#[derive(Debug)]
pub(crate) struct PrimingEvent {
    /// Event id that the client sends back as `Last-Event-ID` when it has seen no other.
    pub(crate) id: String,
    /// Time that the client is to wait before it opens its next stream.
    pub(crate) retry: Duration,
    /// The event takes the place of the one that rmcp begins with: its own, or the last one again.
    pub(crate) replaces: bool,
}

tokio::task_local! {
    static HANDOFF: Arc<Mutex<Handoff>>;
}

/// Serves a request within the HTTP layer. Returns what the session manager handed over beside the response.
///
/// # Cancellation
/// That of the request.
pub(crate) async fn collect<F: Future>(request: F) -> (F::Output, Handoff) {
    let handoff = Arc::default();
    let response = HANDOFF.scope(Arc::clone(&handoff), request).await;
    let handoff = std::mem::take(&mut *lock(&handoff));
    (response, handoff)
}

/// Hands something over, if the HTTP layer is mounted.
pub(super) fn hand(give: impl FnOnce(&mut Handoff)) {
    // Without the layer nobody wants it.
    let _ = HANDOFF.try_with(|handoff| give(&mut lock(handoff)));
}

/// Returns whether the HTTP layer is mounted around the current request.
pub(super) fn is_layered() -> bool {
    HANDOFF.try_with(|_| ()).is_ok()
}
