//! The head of the request that is served, for handlers of sessions that are restored.
//!
//! rmcp gives a session manager the id of a session, and not the request. A handler may want the request at `initialize`,
//! which is replayed at a restore. So the HTTP server leads the head past rmcp, as a task-local.

use std::cell::RefCell;
use std::future::Future;

use http::request::Parts;

type Head = Box<dyn Fn() -> Option<Parts>>;

tokio::task_local! {
    static HEAD: RefCell<Option<Head>>;
}

/// Serves a request within which the head can be [offered](offer).
///
/// # Cancellation
/// That of the request.
pub(crate) async fn with_head<F: Future>(request: F) -> F::Output {
    HEAD.scope(RefCell::default(), request).await
}

/// Offers the head of the current request. Most requests need none, so it is made when it is needed.
pub(crate) fn offer(head: impl Fn() -> Option<Parts> + 'static) {
    // Without the layer nobody wants it.
    let _ = HEAD.try_with(|offered| offered.replace(Some(Box::new(head))));
}

/// Returns the head of the current request, if it was offered.
pub(super) fn head() -> Option<Parts> {
    HEAD.try_with(|offered| offered.borrow().as_ref().and_then(|head| head())).ok().flatten()
}
