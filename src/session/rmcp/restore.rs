//! Restore of a session that another server began, in two steps.
//!
//! *Loading* brings the session here: its client is known then, and its streams are served. *Serving* makes rmcp create
//! the session's handler, in a [`Restorer`](super::restorer::Restorer). Serving costs several times as much, and only
//! requests need it. A session whose client has only opened a stream is served a little later: see
//! [`deferred_arrivals`](super::deferred_arrivals).
//!
//! Each session takes one step at a time, in a task of its own. The first request begins the step, and all others wait
//! for its outcome. None of them can disturb the step by hanging up.
//!
//! *Callers*. `manager` begins both steps for requests, `deferred_arrivals` begins the second one for streams.
//!
//! # Rules
//! - *An end during a step is not lost*. An end is noted first, and closes the session only then. A session that
//!   arrives is looked up among the noted ends. So one of the two sees the other
//!   (`a_session_that_ends_while_it_is_restored_is_not_restored`).
//! - *Nothing of a failed step stays*. A place is released, a worker of the decorated manager is closed, and the next
//!   request begins anew (`a_restore_that_failed_leaves_nothing_and_the_next_succeeds`).
//! - *A handler is user code*. It may panic or hang: its step ends after [`STEP`], and its session keeps its streams
//!   (`a_handler_that_never_answers_holds_a_session_up_for_so_long_and_no_longer`).
//!
//! `tests/server/restoring.rs` stalls the thread of a restore at each of its steps
//! (`a_restore_is_right_wherever_its_thread_stalls`).

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use http::request::Parts;
use rmcp::transport::streamable_http_server::session::store::SessionState;
use rmcp::transport::streamable_http_server::session::{SessionId as RmcpSessionId, SessionManager};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::client::ClientSession;
use super::deferred_arrivals::DueArrival;
use super::restorer::Restoring;
use super::sessions::{Found, Move, MoveOutcome, Moved, result_of};
use super::shared::{STEP, Shared};
use super::stored_state::{Loaded, from_stored};
use crate::backend::SessionRecord;
use crate::json;
use crate::metrics;
use crate::session_id::SessionId;
use crate::story;

/// Longest time for which the next session waits for a handler of user code, which may hang.
const HANDLER: Duration = Duration::from_millis(100);

/// Begins to load a session. `head` is the head of the request that needs the session.
pub(super) fn load<M: SessionManager>(
    shared: &Arc<Shared<M>>,
    id: &RmcpSessionId,
    session: SessionId,
    head: Option<Parts>,
    loading: Move,
) -> MoveOutcome {
    let outcome = loading.outcome();
    let (shared, id) = (Arc::clone(shared), Arc::clone(id));
    tokio::spawn(async move {
        let loaded = load_client(&shared, &session).await;
        let loaded = loaded.and_then(|client| Ok((client, shared.make_room().ok_or(Moved::NoPlace)?)));
        let moved = loaded.as_ref().map_or_else(|moved| *moved, |_| Moved::Done);
        metrics::RESTORED.add(moved.label(), 1);
        let Ok((client, place)) = loaded else { return loading.end(moved) };
        client.set_head(head);
        story::moved(&session, "loaded");
        loading.end_loaded(&id, Arc::clone(&client), place);
        // An end before the arrival found no session here to close.
        if shared.has_ended(&session) {
            shared.close(&id, &client);
        } else {
            shared.deferred_arrivals.add(&id, &client);
        }
    });
    outcome
}

/// Reads the stored state of a session, and makes its client.
async fn load_client<M: SessionManager>(
    shared: &Arc<Shared<M>>,
    session: &SessionId,
) -> Result<Arc<ClientSession>, Moved> {
    let client = match shared.queue.load_session(session).await {
        Ok(Some(stored)) => match from_stored(&shared.config, session, stored) {
            Ok(Loaded { state, is_current }) => {
                let client = shared.client(session.clone());
                // Housekeeping stores anew, under the primary key, what is not current.
                let loaded = client.loaded(state, is_current);
                loaded.map(|()| client).map_err(|error| json::fault(&error))
            }
            Err(why) => {
                shared.log_refused_state(session, &why);
                return Err(Moved::Absent);
            }
        },
        Ok(None) => return Err(Moved::Absent),
        Err(error) => Err(error.to_string()),
    };
    client.map_err(|error| {
        tracing::warn!(?session, %error, "loading a session failed; its requests are refused");
        Moved::Failed
    })
}

/// Begins to have rmcp serve a session that is here, with a handler, on a runtime. `head` is the head of the request
/// that needs the handler.
pub(super) fn serve<M: SessionManager>(
    shared: &Arc<Shared<M>>,
    runtime: &Handle,
    client: Arc<ClientSession>,
    head: Option<Parts>,
    serving: Move,
) -> MoveOutcome {
    let outcome = serving.outcome();
    let shared = Arc::clone(shared);
    runtime.spawn(async move {
        let id = client.session_id().as_str().into();
        match restore_handler(&shared, &id, &client, head).await {
            None => serving.end(Moved::Failed),
            Some(restoring) => {
                story::moved(client.session_id(), "served");
                serving.end_served(&client);
                // An end of the handler before this point did not end the session, which had no handler yet.
                if restoring.has_ended() {
                    shared.close(&id, &client);
                }
                attach(&shared, &id, &client).await;
            }
        }
    });
    outcome
}

/// Makes rmcp serve a session. Returns `None` where that fails.
async fn restore_handler<M: SessionManager>(
    shared: &Arc<Shared<M>>,
    id: &RmcpSessionId,
    client: &Arc<ClientSession>,
    head: Option<Parts>,
) -> Option<Arc<Restoring<M>>> {
    let restorer = shared.settings.restorer.as_ref()?;
    let state: Result<SessionState, _> = serde_json::from_str(&client.state()?);
    let on_end = {
        let (shared, id, client) = (Arc::downgrade(shared), Arc::clone(id), Arc::clone(client));
        move || {
            if let Some(shared) = shared.upgrade().filter(|shared| shared.sessions.has_handler(&client)) {
                shared.close(&id, &client);
            }
        }
    };
    let restoring = Arc::new(Restoring::new(&shared.inner, Arc::clone(client), head, on_end));
    let answer = match state {
        Ok(state) => {
            // The handler is user code: it may panic, or never return.
            let run = AssertUnwindSafe(restorer.run(&restoring, state)).catch_unwind();
            format!("{:?}", tokio::time::timeout(STEP, run).await)
        }
        Err(error) => json::fault(&error),
    };
    if restoring.is_served() {
        return Some(restoring);
    }
    // Too late, panicked, or refused: rmcp logs the reason.
    let session = client.session_id();
    let answer = session.shortened_in(answer);
    tracing::warn!(?session, %answer, "restoring a session failed; its requests are refused");
    if restoring.has_worker() {
        shared.close_inner(id, session).await;
    }
    None
}

/// Connects rmcp's own events with the newest stream, if that was opened before rmcp served the session.
pub(super) async fn attach<M: SessionManager>(
    shared: &Arc<Shared<M>>,
    id: &RmcpSessionId,
    client: &Arc<ClientSession>,
) {
    let Some(stream) = client.stream_to_fill() else { return };
    match shared.inner.create_standalone_stream(id).await {
        Ok(rmcp) => stream.fill(rmcp),
        Err(error) => {
            let session = client.session_id();
            tracing::warn!(
                ?session,
                error = session.shortened_in(error),
                "rmcp has no stream for a session; what the session's handler sends by itself waits for the client's next stream"
            );
        }
    }
}

/// Performs the delayed steps of restored sessions, for as long as the manager lives.
pub(super) async fn complete_arrivals<M: SessionManager>(shared: Weak<Shared<M>>, mut alive: watch::Receiver<()>) {
    let Some(deferred_arrivals) = shared.upgrade().map(|shared| Arc::clone(&shared.deferred_arrivals)) else { return };
    loop {
        let due = tokio::select! {
            due = deferred_arrivals.next_due() => due,
            _ = alive.changed() => return,
        };
        let Some(shared) = shared.upgrade() else { return };
        check_ends(&shared, &due).await;
        for arrival in due {
            serve_stream(&shared, arrival).await;
        }
    }
}

/// Closes the sessions that have ended since their state was read, where the news of the end were lost.
async fn check_ends<M: SessionManager>(shared: &Arc<Shared<M>>, arrivals: &[DueArrival]) {
    let sessions: Vec<_> = arrivals.iter().map(|arrival| arrival.client.session_id().clone()).collect();
    match shared.queue.look_up_sessions(&sessions).await {
        Ok(known) => {
            let ended = arrivals.iter().zip(known).filter(|(_, known)| *known == SessionRecord::Ended);
            ended.for_each(|(arrival, _)| shared.close_ended_elsewhere(&arrival.id, &arrival.client));
        }
        Err(_) => shared.recheck.notify_one(),
    }
}

/// Makes rmcp serve a session whose client has an open stream.
async fn serve_stream<M: SessionManager>(shared: &Arc<Shared<M>>, DueArrival { id, client, runtime }: DueArrival) {
    if !client.has_stream() {
        return;
    }
    if let Found::Unserved(client, serving) = shared.sessions.find(&id, client.session_id(), false, true) {
        let head = client.take_head();
        let outcome = serve(shared, &runtime, client, head, serving);
        let _ = tokio::time::timeout(HANDLER, result_of(outcome)).await;
    }
}
