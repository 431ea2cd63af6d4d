//! User on whose behalf a request is served.

use std::future::Future;

use crate::principal::Principal;
use crate::session_id::{InvalidSessionId, SessionId};

tokio::task_local! {
    /// User of the current request. Unset outside a request.
    static ACTING: Option<Principal>;
}

/// Serves a request on behalf of an authenticated user, or of nobody. For the middleware that authenticates: put this
/// call around the rest of the service, on every route that leads to MCP.
///
/// A session that is initialised within the call is bound to that user. From then on every server of the fleet checks
/// each request for the session against the user. To anyone else the session does not exist (404), and their DELETE
/// does nothing. Workers push to [`SessionId::bound_to`] the user. A handler finds that whole id in the extensions of
/// its request.
///
/// ```
/// # async fn service() -> u16 { 200 }
/// # async fn middleware() -> Result<(), mcp_courier::InvalidPrincipal> {
/// use mcp_courier::Principal;
/// use mcp_courier::acting_as;
///
/// let subject = "alice@example.com"; // of a token that has been verified
/// let response = acting_as(Some(Principal::new(subject)?), service()).await;
/// # Ok(())
/// # }
/// ```
///
/// # Cancellation
/// The same as of the request.
pub async fn acting_as<F: Future>(principal: Option<Principal>, request: F) -> F::Output {
    ACTING.scope(principal, request).await
}

/// Returns the acting user of the current request; `None` outside a request, as for work that rmcp does by itself.
pub(super) fn acting() -> Option<Option<Principal>> {
    ACTING.try_with(Clone::clone).ok()
}

/// Returns the session with that id, bound to the acting user.
pub(super) fn session_of(id: &str) -> Result<SessionId, InvalidSessionId> {
    let session = SessionId::new(id)?;
    Ok(match acting().flatten() {
        Some(principal) => session.bound_to(principal),
        None => session,
    })
}
