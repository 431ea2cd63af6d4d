//! [`IsolatedSession`]: a user's session, whose panics stay contained.
//!
//! A session is a user's code, and may panic in a call or when it is dropped. Such a panic must not end an actor. The
//! supervisor's panic would be the worst: all sessions of the process depend on that actor.

use std::any::Any;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_trait::async_trait;

use crate::session::{HandOverError, McpSession, Outbound};

/// Session of a user. Dropping the last reference catches a panic of the session's own `drop`.
#[derive(Clone)]
pub(super) struct IsolatedSession(Arc<dyn McpSession>);

impl IsolatedSession {
    pub(super) fn new(session: Arc<dyn McpSession>) -> Self {
        Self(session)
    }

    /// Returns whether both hold the same object. The addresses of the objects are compared and not their vtables,
    /// because one type can have several vtables.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

impl Deref for IsolatedSession {
    type Target = dyn McpSession;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Drop for IsolatedSession {
    fn drop(&mut self) {
        let session = std::mem::replace(&mut self.0, Arc::new(Nobody));
        drop_isolated(session);
    }
}

/// Returns the text of a panic.
pub(super) fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

/// Drops a value that holds a user's code, and logs a panic of its `drop`.
pub(super) fn drop_isolated<T>(theirs: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(theirs))) {
        tracing::error!(
            panic = text_of(&*panic),
            "dropping a session, or a future of it, panicked; the panic is ignored"
        );
    }
}

/// Placeholder for a session that was moved out of its [`IsolatedSession`].
struct Nobody;

#[async_trait]
impl McpSession for Nobody {
    async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
        Err(HandOverError::Closed)
    }
}
