//! [`Sessions`]: sessions of this process, and their moves: restores and closes in progress.
//!
//! A session never stays between two states:
//!
//! ```text
//!            create_session                                        close
//!   absent ───────────────────────────────► here, with a handler ─────────► moving ──► absent
//!     │                                      ▲                             (closed)      ▲
//!     └─► moving ──► here, without a handler │ moving (served)                           │ close
//!        (loaded)     │  └───────────────────┘                                           │
//!                     └──────────────────────────────────────────────────────────────────┘
//! ```
//!
//! While a session moves, the requests that need the outcome wait for it. A loaded session is here once its client has
//! been introduced, and its streams are served from then on. Everything else waits until rmcp serves the session with a
//! handler. So no request reaches a session half-way. A close waits until a handler that is being made is complete.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use rmcp::transport::streamable_http_server::session::SessionId as RmcpSessionId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::client::ClientSession;
use crate::health::Room;
use crate::lock::lock;
use crate::metrics::{self, Level};
use crate::session_id::SessionId;

/// Sessions of this process, bounded in number.
pub(super) struct Sessions {
    state: Mutex<State>,
    /// Permits: one for each session that may be here.
    places: Arc<Semaphore>,
}

/// Sessions that are here by rmcp's id, and moves by the whole session id.
#[derive(Default)]
struct State {
    here: HashMap<RmcpSessionId, Entry>,
    moving: HashMap<SessionId, MoveOutcome>,
}

struct Entry {
    client: Arc<ClientSession>,
    /// Set where the session was restored here. rmcp's main service serves the others, and closes them by their id.
    is_restored: bool,
    /// Set where rmcp serves the session.
    has_handler: bool,
    /// Permit of this session, released when the entry is dropped.
    _place: SessionPermit,
    /// Share of this session in the metric of sessions.
    _counted: Level,
}

/// Permit to hold one more session.
pub(super) type SessionPermit = OwnedSemaphorePermit;

/// State of a session, as a request finds it.
pub(super) enum Found {
    /// The session is here, and the acting user's. The flag says whether rmcp serves it.
    Here(Arc<ClientSession>, bool),
    /// The session is here, but rmcp does not serve it, and the caller needs that. The caller must begin the move.
    Unserved(Arc<ClientSession>, Move),
    /// The session is being restored or closed.
    Moving(MoveOutcome),
    /// The session with this id belongs to another user.
    Another,
    /// The session is not here. Where sessions are restored, the caller must begin the move.
    Absent(Option<Move>),
}

/// Outcome of a move, once there is one.
pub(super) type MoveOutcome = watch::Receiver<Option<Moved>>;

/// Result of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// The session is loaded, served, or closed.
    Done,
    /// No such session is stored.
    Absent,
    /// The process holds as many sessions as it may.
    NoPlace,
    /// The restore failed, or Redis did not answer whether the session exists.
    Failed,
}

impl Moved {
    /// Returns the value of the label `outcome`, for a session that was loaded.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Done => "restored",
            Self::Absent => "unknown",
            Self::NoPlace => "no_room",
            Self::Failed => "failed",
        }
    }
}

/// Waits for the end of a move, and returns its result.
pub(super) async fn result_of(mut outcome: MoveOutcome) -> Moved {
    // The sender was dropped: the task of the move panicked, or its thread has ended.
    outcome.wait_for(Option::is_some).await.map_or(Moved::Failed, |moved| moved.unwrap_or(Moved::Failed))
}

/// Session that moves. Dropping this value ends the move as failed.
pub(super) struct Move {
    sessions: Arc<Sessions>,
    session: SessionId,
    outcome: watch::Sender<Option<Moved>>,
    /// Earlier move of the same session, which ends first.
    before: Option<MoveOutcome>,
    has_ended: bool,
}

impl Sessions {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        let places = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { state: Mutex::default(), places })
    }

    /// Returns the permit to hold one more session, if there is room.
    pub(super) fn try_permit(&self) -> Option<SessionPermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Returns all sessions that are here.
    pub(super) fn all(&self) -> Vec<(RmcpSessionId, Arc<ClientSession>)> {
        self.state().here.iter().map(|(id, entry)| (Arc::clone(id), Arc::clone(&entry.client))).collect()
    }

    /// Returns the session that has been idle for the longest time, if any is idle.
    pub(super) fn longest_idle(&self) -> Option<(RmcpSessionId, Arc<ClientSession>)> {
        let state = self.state();
        let initialized = state.here.iter().filter(|(_, entry)| entry.client.is_initialized());
        let idle = initialized.filter_map(|(id, entry)| Some((entry.client.idle_since()?, id, entry)));
        idle.min_by_key(|(since, ..)| *since).map(|(_, id, entry)| (Arc::clone(id), Arc::clone(&entry.client)))
    }

    /// Returns the session of an id, if it is here.
    pub(super) fn known(&self, id: &str) -> Option<Arc<ClientSession>> {
        self.state().here.get(id).map(|entry| Arc::clone(&entry.client))
    }

    /// Returns the session of an id, if it is here and was not restored here.
    pub(super) fn created(&self, id: &str) -> Option<Arc<ClientSession>> {
        let state = self.state();
        state.here.get(id).filter(|entry| !entry.is_restored).map(|entry| Arc::clone(&entry.client))
    }

    /// Returns whether rmcp serves a session that is here.
    pub(super) fn has_handler(&self, client: &Arc<ClientSession>) -> bool {
        let entry = |entry: &Entry| entry.has_handler && Arc::ptr_eq(&entry.client, client);
        self.state().here.get(client.session_id().as_str()).is_some_and(entry)
    }

    /// Finds the session of an id. The result tells the caller to begin a move in two cases. In the first the session
    /// is not here, and sessions are restored. In the second rmcp does not serve the session, and the caller needs
    /// that.
    pub(super) fn find(
        self: &Arc<Self>,
        id: &str,
        session: &SessionId,
        are_restored: bool,
        needs_handler: bool,
    ) -> Found {
        let mut state = self.state();
        let of_id = state.here.get(id);
        let here = of_id.filter(|entry| entry.client.session_id() == session);
        if let Some(entry) = here.filter(|entry| entry.has_handler || !needs_handler) {
            return Found::Here(Arc::clone(&entry.client), entry.has_handler);
        }
        if let Some(outcome) = state.moving.get(session) {
            return Found::Moving(outcome.clone());
        }
        if let Some(client) = here.map(|entry| Arc::clone(&entry.client)) {
            return Found::Unserved(client, self.begin(&mut state, session));
        }
        if of_id.is_some() {
            return Found::Another;
        }
        Found::Absent(are_restored.then(|| self.begin(&mut state, session)))
    }

    /// Adds a session that was created here.
    pub(super) fn add(&self, id: &RmcpSessionId, client: Arc<ClientSession>, place: SessionPermit) {
        let counted = Level::of(&metrics::SESSIONS);
        let entry = Entry { client, is_restored: false, has_handler: true, _place: place, _counted: counted };
        self.state().here.insert(Arc::clone(id), entry);
    }

    /// Begins to close a session. `None` where the session with this id is no longer this one.
    pub(super) fn begin_close(self: &Arc<Self>, id: &str, client: &Arc<ClientSession>) -> Option<Move> {
        let mut state = self.state();
        state.here.get(id).filter(|entry| Arc::ptr_eq(&entry.client, client))?;
        state.here.remove(id);
        Some(self.begin(&mut state, client.session_id()))
    }

    fn begin(self: &Arc<Self>, state: &mut State, session: &SessionId) -> Move {
        let (sender, outcome) = watch::channel(None);
        let before = state.moving.insert(session.clone(), outcome);
        Move { sessions: Arc::clone(self), session: session.clone(), outcome: sender, before, has_ended: false }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Room for Sessions {
    fn shortage(&self) -> Option<String> {
        // An idle session makes room for the next.
        let is_full = self.places.available_permits() == 0 && self.longest_idle().is_none();
        is_full.then(|| "session_limit is reached, and no session is idle".to_owned())
    }
}

impl Move {
    /// Returns the receiver of the result.
    pub(super) fn outcome(&self) -> MoveOutcome {
        self.outcome.subscribe()
    }

    /// Waits until the move before this one has ended. A session may be closed while rmcp begins to serve it.
    pub(super) async fn predecessor(&mut self) {
        if let Some(before) = self.before.take() {
            result_of(before).await;
        }
    }

    /// Ends the move: the session was loaded, and is here without a handler. From now on its streams are served.
    pub(super) fn end_loaded(self, id: &RmcpSessionId, client: Arc<ClientSession>, place: SessionPermit) {
        let counted = Level::of(&metrics::SESSIONS);
        let entry = Entry { client, is_restored: true, has_handler: false, _place: place, _counted: counted };
        self.end_with(Moved::Done, |state| drop(state.here.insert(Arc::clone(id), entry)));
    }

    /// Ends the move: rmcp serves the session. From now on all its requests are served. A session that was closed
    /// meanwhile stays closed.
    pub(super) fn end_served(self, client: &Arc<ClientSession>) {
        self.end_with(Moved::Done, |state| {
            let entry = state.here.get_mut(client.session_id().as_str());
            if let Some(entry) = entry.filter(|entry| Arc::ptr_eq(&entry.client, client)) {
                entry.has_handler = true;
            }
        });
    }

    /// Ends the move with this result.
    pub(super) fn end(self, moved: Moved) {
        self.end_with(moved, |_| {});
    }

    /// Changes the state and ends the move under one lock. After the lock is released the session may be found here,
    /// and may leave again.
    fn end_with(mut self, moved: Moved, change: impl FnOnce(&mut State)) {
        let mut state = self.sessions.state();
        self.remove_move(&mut state);
        change(&mut state);
        drop(state);
        self.has_ended = true;
        self.outcome.send_replace(Some(moved));
    }

    /// Removes the move, unless a later one has taken its place.
    fn remove_move(&self, state: &mut State) {
        let outcome = self.outcome();
        if state.moving.get(&self.session).is_some_and(|current| current.same_channel(&outcome)) {
            state.moving.remove(&self.session);
        }
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        if !self.has_ended {
            let sessions = Arc::clone(&self.sessions);
            self.remove_move(&mut sessions.state());
        }
    }
}

#[cfg(test)]
mod tests;
