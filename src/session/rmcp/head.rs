//! Head of the current request, for handlers of sessions that are restored.
//!
//! rmcp gives a session manager the id of a session, and not the request. A handler may read the request at
//! `initialize`, which is replayed at a restore. Therefore the HTTP server passes the head to the manager by a
//! task-local.

use std::cell::RefCell;
use std::future::Future;

use http::request::Parts;

/// Function that makes the head of the current request.
type Head = Box<dyn Fn() -> Option<Parts>>;

tokio::task_local! {
    static HEAD: RefCell<Option<Head>>;
}

/// Serves a request within which the head can be [offered](offer).
///
/// # Cancellation
/// The same as of the request.
pub(crate) async fn with_head<F: Future>(request: F) -> F::Output {
    HEAD.scope(RefCell::default(), request).await
}

/// Offers the head of the current request. The head is made only on demand, as most requests need none.
pub(crate) fn offer(head: impl Fn() -> Option<Parts> + 'static) {
    // Without the layer nobody takes the head.
    let _ = HEAD.try_with(|offered| offered.replace(Some(Box::new(head))));
}

/// Returns the head of the current request, if it was offered.
pub(super) fn head() -> Option<Parts> {
    HEAD.try_with(|offered| offered.borrow().as_ref().and_then(|head| head())).ok().flatten()
}
