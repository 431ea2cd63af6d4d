//! Restoring a session that another server began: the steps around what rmcp does in a [`Restorer`](super::restorer::Restorer).
//!
//! Each session has one restore at a time, in a task of its own. The first request begins it, all others wait for its outcome,
//! and none of them can disturb it by hanging up.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use http::request::Parts;
use rmcp::transport::streamable_http_server::session::{SessionId as RmcpSessionId, SessionManager};

use super::client::ClientSession;
use super::restorer::Restoring;
use super::sessions::{Move, Moved, Outcome};
use super::shared::{STEP, Shared};
use crate::backend::Remembered;
use crate::session_id::SessionId;

/// Begins to restore a session. `head` is of the request that asks for it.
pub(super) fn begin<M: SessionManager>(
    shared: &Arc<Shared<M>>,
    id: &RmcpSessionId,
    session: SessionId,
    head: Option<Parts>,
    restoring: Move,
) -> Outcome {
    let outcome = restoring.outcome();
    let (shared, id) = (Arc::clone(shared), Arc::clone(id));
    tokio::spawn(async move {
        if let Some(client) = restore(&shared, &id, session, head, restoring).await {
            check_end(&shared, &id, &client).await;
        }
    });
    outcome
}

/// Restores a session. Returns its client where that has succeeded.
async fn restore<M: SessionManager>(
    shared: &Arc<Shared<M>>,
    id: &RmcpSessionId,
    session: SessionId,
    head: Option<Parts>,
    moving: Move,
) -> Option<Arc<ClientSession>> {
    let stored = match shared.queue.recall(&session).await {
        Ok(Some(stored)) => serde_json::from_str(&stored).map_err(|error| error.to_string()),
        Ok(None) => {
            moving.end(Moved::Absent);
            return None;
        }
        Err(error) => Err(error.to_string()),
    };
    let (state, restorer) = match (stored, &shared.settings.restorer) {
        (Ok(state), Some(restorer)) => (state, restorer),
        (Err(error), _) => {
            tracing::warn!(?session, %error, "loading a session failed; its requests are refused");
            moving.end(Moved::Failed);
            return None;
        }
        (_, None) => return None,
    };
    let Some(place) = shared.make_room() else {
        moving.end(Moved::NoPlace);
        return None;
    };
    let client = shared.client(session.clone());
    let on_end = {
        let (shared, id, client) = (Arc::downgrade(shared), Arc::clone(id), Arc::clone(&client));
        move || drop(shared.upgrade().and_then(|shared| shared.close(&id, &client)))
    };
    let restoring = Arc::new(Restoring::new(&shared.inner, Arc::clone(&client), head, on_end));
    // The handler is the user's: it may panic, or never return.
    let run = AssertUnwindSafe(restorer.run(&restoring, state)).catch_unwind();
    let answer = tokio::time::timeout(STEP, run).await;
    let has_ended = shared.has_ended(&session);
    if !restoring.is_served() || has_ended {
        if !has_ended {
            // Late, panicked, or refused: rmcp logs why.
            tracing::warn!(?session, ?answer, "restoring a session failed; its requests are refused");
        }
        if restoring.has_worker() {
            shared.close_inner(id, &session).await;
        }
        moving.end(if has_ended { Moved::Absent } else { Moved::Failed });
        return None;
    }
    moving.arrive(id, Arc::clone(&client), place);
    // Again: what happened before the arrival found no session here to close.
    if restoring.has_ended() || shared.has_ended(&session) {
        shared.close(id, &client);
    }
    Some(client)
}

/// Closes a session that has ended since its state was read, where the news of that were lost.
async fn check_end<M: SessionManager>(shared: &Arc<Shared<M>>, id: &RmcpSessionId, client: &Arc<ClientSession>) {
    match shared.queue.look_up(std::slice::from_ref(client.session_id())).await.as_deref() {
        Ok([Remembered::Ended]) => shared.ended_elsewhere(id, client),
        Ok(_) => {}
        Err(_) => shared.doubt.notify_one(),
    }
}
