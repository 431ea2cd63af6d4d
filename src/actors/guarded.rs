//! A user's session in our hands. Its code may panic, also at its end, and must not take an actor with it: least of all
//! the supervisor, which is everybody's.

use std::any::Any;
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use async_trait::async_trait;

use crate::session::{HandOverError, McpSession, Outbound};

#[derive(Clone)]
pub(super) struct Guarded(Arc<dyn McpSession>);

impl Guarded {
    pub(super) fn new(session: Arc<dyn McpSession>) -> Self {
        Self(session)
    }

    /// Whether both are one object. Addresses are compared, not the tables of its functions, of which one type can have
    /// several.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

impl Deref for Guarded {
    type Target = dyn McpSession;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let session = std::mem::replace(&mut self.0, Arc::new(Nobody));
        drop_guarded(session);
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

/// Drops what is a user's.
pub(super) fn drop_guarded<T>(theirs: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(theirs))) {
        tracing::error!(panic = text_of(&*panic), "a session panicked when it, or what it did, was dropped");
    }
}

/// Stands where a session was.
struct Nobody;

#[async_trait]
impl McpSession for Nobody {
    async fn hand_over(&self, _: &Outbound) -> Result<(), HandOverError> {
        Err(HandOverError::Closed)
    }
}
