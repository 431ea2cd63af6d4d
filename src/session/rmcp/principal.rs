//! On whose behalf a request is served.

use std::future::Future;

use crate::principal::Principal;
use crate::session_id::{InvalidSessionId, SessionId};

tokio::task_local! {
    static ACTING: Option<Principal>;
}

/// Serves a request on behalf of an authenticated user, or of nobody. For the middleware that authenticates: put it around
/// the rest of the service, on every route that leads to MCP.
///
/// A session that is initialised within is bound to that user. From then on each request for it is checked against that,
/// at every server of the fleet: to anyone else it does not exist (404), and a DELETE of theirs does nothing. Workers push
/// to [`SessionId::bound_to`] the user; a handler finds that whole id in the extensions of its request.
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
/// That of the request.
pub async fn acting_as<F: Future>(principal: Option<Principal>, request: F) -> F::Output {
    ACTING.scope(principal, request).await
}

/// Whose request this is, if it is one: what rmcp does by itself is nobody's.
pub(super) fn acting() -> Option<Option<Principal>> {
    ACTING.try_with(Clone::clone).ok()
}

/// The session of that id which is the acting user's.
pub(super) fn session_of(id: &str) -> Result<SessionId, InvalidSessionId> {
    let session = SessionId::new(id)?;
    Ok(match acting().flatten() {
        Some(principal) => session.bound_to(principal),
        None => session,
    })
}
