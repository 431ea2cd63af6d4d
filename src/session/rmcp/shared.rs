//! [`Shared`]: state that the decorated manager, the session store and their background tasks share.
//!
//! *Order of an end*. A session is noted among the closed or ended ones first, and leaves the sessions of this process
//! only then. At each moment it is found in one of the two. A restore or a request in between would otherwise bring an
//! ended session back (`a_request_that_comes_as_its_session_ends_leaves_nothing`).
//!
//! *An end that Redis does not know* stays among the pending ends until it is stored. Otherwise another server would
//! restore a session that its client has deleted (`a_delete_while_redis_is_down_is_made_up_for`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::transport::streamable_http_server::session::{SessionId as RmcpSessionId, SessionManager};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::client::ClientSession;
use super::deferred_arrivals::DeferredArrivals;
use super::early_close::EarlyCloses;
use super::event_id::Epoch;
use super::other_servers::OtherServers;
use super::pending_ends::{PendingEnd, PendingEnds};
use super::sessions::{Moved, SessionPermit, Sessions};
use super::settings::{DELAY_ALONE, DELAY_IN_FLEET, Settings};
use super::stored_state::to_stored;
use super::subscribers::Subscribers;
use crate::backend::relay::cancel_open;
use crate::backend::{Backend, ProcessId};
use crate::config::Config;
use crate::failure::QueueError;
use crate::lock::lock;
use crate::recent_set::RecentSet;
use crate::seal::Refused;
use crate::session_id::SessionId;
use crate::story;

/// Number of ended sessions that are remembered in each of two lists: those that ended for good, whose end may be
/// announced again, and those that were served here.
const ENDED: usize = 1024;

/// Longest time that the decorated manager, or a restored handler, may take for one step.
pub(super) const STEP: Duration = Duration::from_secs(30);

/// State of a session manager, shared by all its tasks.
pub(super) struct Shared<M> {
    pub(super) inner: Arc<M>,
    /// Backend for stored sessions, open questions and news.
    pub(super) queue: Arc<dyn Backend>,
    pub(super) config: Config,
    pub(super) settings: Settings<M>,
    /// Identity of this process among the servers of the fleet.
    pub(super) process: ProcessId,
    pub(super) sessions: Arc<Sessions>,
    pub(super) subscribers: Arc<dyn Subscribers>,
    pub(super) epoch: Epoch,
    pub(super) deferred_arrivals: Arc<DeferredArrivals>,
    pub(super) early_closes: EarlyCloses,
    other_servers: OtherServers,
    /// Sessions that ended for good most recently.
    ended: Mutex<RecentSet<SessionId>>,
    /// Sessions that were closed here most recently, for good or not.
    closed: Mutex<RecentSet<SessionId>>,
    /// Sessions whose end Redis does not know yet.
    pending_ends: Mutex<PendingEnds>,
    /// Number of sessions that were closed to make room for others.
    made_room: AtomicU64,
    /// Number of stored sessions that were refused, as they could not be opened or should have been sealed.
    refused_states: AtomicU64,
    /// Notified when the knowledge about sessions may be wrong: housekeeping then looks all of them up.
    pub(super) recheck: Arc<Notify>,
    /// Dropped with this value, which ends the background tasks.
    alive: watch::Sender<()>,
}

impl<M: SessionManager> Shared<M> {
    pub(super) fn new(
        inner: M,
        queue: Arc<dyn Backend>,
        subscribers: Arc<dyn Subscribers>,
        config: Config,
        settings: Settings<M>,
    ) -> Self {
        let epoch = if inner.event_store().is_some() { Epoch::of_event_store() } else { Epoch::new() };
        let sessions = Sessions::new(config.session_limit());
        Self {
            inner: Arc::new(inner),
            queue,
            config,
            settings,
            other_servers: OtherServers::default(),
            process: ProcessId::new(),
            sessions,
            subscribers,
            epoch,
            deferred_arrivals: Arc::default(),
            early_closes: EarlyCloses::default(),
            ended: Mutex::new(RecentSet::new(ENDED)),
            closed: Mutex::new(RecentSet::new(ENDED)),
            pending_ends: Mutex::default(),
            made_room: AtomicU64::new(0),
            refused_states: AtomicU64::new(0),
            recheck: Arc::default(),
            alive: watch::Sender::default(),
        }
    }

    /// Closes a session here. Requests for the session wait until the decorated manager has closed it too, and so does
    /// the returned task. `None` where the session is closed already: another session of the same id that began since
    /// stays.
    pub(super) fn close(self: &Arc<Self>, id: &RmcpSessionId, client: &Arc<ClientSession>) -> Option<JoinHandle<()>> {
        // Noted first, so that at each moment the session is here or among the closed ones.
        lock(&self.closed).insert(client.session_id().clone());
        let mut leaving = self.sessions.begin_close(id, client)?;
        client.end(self.is_stored());
        let (shared, id, session) = (Arc::clone(self), Arc::clone(id), client.session_id().clone());
        // Runs in a task of its own: a stuck worker must not delay other sessions.
        Some(tokio::spawn(async move {
            leaving.predecessor().await;
            shared.close_inner(&id, &session).await;
            leaving.end(Moved::Done);
        }))
    }

    /// Makes the decorated manager close a session.
    pub(super) async fn close_inner(&self, id: &RmcpSessionId, session: &SessionId) {
        match tokio::time::timeout(STEP, self.inner.close_session(id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(
                    ?session,
                    error = session.shortened_in(error),
                    "closing a session in rmcp's session manager failed; the session is closed here all the same"
                )
            }
            Err(_) => {
                tracing::warn!(?session, limit = ?STEP,
                    "closing a session in rmcp's session manager took too long; the session is closed here all the \
                     same")
            }
        }
    }

    /// Closes a session that ended for good at another server.
    pub(super) fn close_ended_elsewhere(self: &Arc<Self>, id: &RmcpSessionId, client: &Arc<ClientSession>) {
        self.close(id, client);
        self.call_on_end(client.session_id());
    }

    /// Closes a session of this user, if it is here.
    pub(super) fn close_if_here(self: &Arc<Self>, session: &SessionId) {
        if let Some(client) = self.client_of(session) {
            self.close(&session.as_str().into(), &client);
        }
    }

    /// Returns a place for one more session. Where there is none, the session that has been idle for the longest time
    /// is closed here, as after an idle timeout. `None` where no session is idle.
    pub(super) fn make_room(self: &Arc<Self>) -> Option<SessionPermit> {
        loop {
            if let Some(place) = self.sessions.try_permit() {
                return Some(place);
            }
            let (id, client) = self.sessions.longest_idle()?;
            let so_far = self.made_room.fetch_add(1, Ordering::Relaxed) + 1;
            if so_far.is_power_of_two() {
                let limit = self.config.session_limit();
                tracing::warn!(limit, so_far, "session_limit is reached; the longest idle session is ended here");
            }
            self.close(&id, &client);
        }
    }

    /// Ends a session for all servers. Where Redis cannot store the end, housekeeping tries again.
    pub(super) async fn end_everywhere(
        self: &Arc<Self>,
        session: &SessionId,
        is_known: bool,
    ) -> Result<(), QueueError> {
        let ended = async {
            if self.queue.end_session(session, self.process, is_known).await? {
                story::moved(session, "ended everywhere");
                self.call_on_end(session);
                // A request may have restored the session before Redis stored its end.
                self.close_if_here(session);
                cancel_open(&*self.queue, session, "the session has ended").await?;
            }
            Ok(())
        };
        let ended = ended.await;
        if ended.is_err() {
            self.add_pending_end((session.clone(), is_known));
        }
        ended
    }
}

impl<M> Shared<M> {
    pub(super) fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }

    /// Returns the time for which a client whose stream begins now must wait before its next stream.
    pub(super) async fn reconnect_delay(&self) -> Duration {
        match self.settings.reconnect_delay {
            Some(delay) => delay,
            None if self.other_servers.exist(&*self.queue).await => DELAY_IN_FLEET,
            None => DELAY_ALONE,
        }
    }

    pub(super) fn is_stored(&self) -> bool {
        self.settings.restorer.is_some()
    }

    /// Returns a receiver that never gets a value. Its wait for a change ends when this value is dropped.
    pub(super) fn alive(&self) -> watch::Receiver<()> {
        self.alive.subscribe()
    }

    /// Returns the sessions of this process.
    pub(super) fn sessions(&self) -> Vec<(RmcpSessionId, Arc<ClientSession>)> {
        self.sessions.all()
    }

    /// Returns the session of an id, if it is here.
    pub(super) fn known(&self, id: &str) -> Option<Arc<ClientSession>> {
        self.sessions.known(id)
    }

    /// Returns a session of this user, if it is here.
    pub(super) fn client_of(&self, session: &SessionId) -> Option<Arc<ClientSession>> {
        self.known(session.as_str()).filter(|client| client.session_id() == session)
    }

    /// Makes the client of a session.
    pub(super) fn client(&self, session: SessionId) -> Arc<ClientSession> {
        Arc::new(ClientSession::new(&self.config, session, self.process))
    }

    /// Returns whether the session is served here, or was recently.
    pub(super) fn was_served(&self, session: &SessionId) -> bool {
        self.client_of(session).is_some() || lock(&self.closed).contains(session)
    }

    /// Calls the function for the end of a session that ended for good. Repeated news of the same end have no effect.
    pub(super) fn call_on_end(&self, session: &SessionId) {
        if !lock(&self.ended).insert(session.clone()) {
            return;
        }
        if let Some(on_end) = &self.settings.on_end
            && catch_unwind(AssertUnwindSafe(|| on_end(session))).is_err()
        {
            tracing::error!(
                ?session,
                "the callback for the end of a session panicked; the session has ended all the same"
            );
        }
    }

    /// Returns whether the session is known to have ended for good.
    pub(super) fn has_ended(&self, session: &SessionId) -> bool {
        lock(&self.ended).contains(session)
    }

    /// Stores an end, to be published later.
    pub(super) fn add_pending_end(&self, end: PendingEnd) {
        lock(&self.pending_ends).add(end);
    }

    /// Takes the ends that must be published once more.
    pub(super) fn take_pending_ends(&self) -> Vec<PendingEnd> {
        lock(&self.pending_ends).take()
    }

    /// Returns whether any end must be published once more.
    pub(super) fn has_pending_ends(&self) -> bool {
        !lock(&self.pending_ends).is_empty()
    }

    /// Logs that a stored session is refused. Its client begins anew, and one wrong key concerns all clients: the first
    /// line passes, then the second, the fourth, the eighth and so on.
    pub(super) fn log_refused_state(&self, session: &SessionId, why: &Refused) {
        let so_far = self.refused_states.fetch_add(1, Ordering::Relaxed) + 1;
        if so_far.is_power_of_two() {
            tracing::warn!(?session, %why, so_far, "a stored session is refused; its client must begin a new one");
        }
    }

    /// Stores a session in Redis, if that is not done yet. Returns `false` where the session has ended meanwhile.
    pub(super) async fn store_session(&self, client: &ClientSession) -> Result<bool, QueueError> {
        let Some(state) = client.state_to_store() else { return Ok(true) };
        let stored = to_stored(&self.config, client.session_id(), state)?;
        let is_stored = self.queue.store_session(client.session_id(), &stored).await?;
        client.set_stored(is_stored);
        Ok(is_stored)
    }
}
