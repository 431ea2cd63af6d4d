//! [`Shared`]: what the decorated manager, the session store and what goes on by itself share.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rmcp::transport::streamable_http_server::session::{SessionId as RmcpSessionId, SessionManager};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::client::ClientSession;
use super::early_close::EarlyCloses;
use super::event_id::Epoch;
use super::neighbours::Neighbours;
use super::newcomers::Newcomers;
use super::pending_ends::{PendingEnd, PendingEnds};
use super::sessions::{Moved, Place, Sessions};
use super::settings::{DELAY_ALONE, DELAY_IN_FLEET, Settings};
use super::subscribers::Subscribers;
use crate::backend::questions::cancel_open;
use crate::backend::{Backend, ProcessId};
use crate::config::Config;
use crate::failure::QueueError;
use crate::lock::lock;
use crate::recent::Recent;
use crate::session_id::SessionId;

/// Number of sessions that are remembered here after their end: of those that ended for good, whose end may be heard of
/// again, and of those that were served here.
const ENDED: usize = 1024;

/// Time that the decorated manager, or a handler that is restored, gets at most to do what it was asked for.
pub(super) const STEP: Duration = Duration::from_secs(30);

pub(super) struct Shared<M> {
    pub(super) inner: Arc<M>,
    pub(super) queue: Arc<dyn Backend>,
    pub(super) config: Config,
    pub(super) settings: Settings<M>,
    pub(super) process: ProcessId,
    pub(super) sessions: Arc<Sessions>,
    pub(super) subscribers: Arc<dyn Subscribers>,
    pub(super) epoch: Epoch,
    pub(super) newcomers: Arc<Newcomers>,
    pub(super) early_closes: EarlyCloses,
    neighbours: Neighbours,
    /// Sessions that ended for good last.
    ended: Mutex<Recent<SessionId>>,
    /// Sessions that were closed here last, for good or not.
    closed: Mutex<Recent<SessionId>>,
    /// Sessions whose end Redis does not know yet.
    pending_ends: Mutex<PendingEnds>,
    /// Number of sessions that made room for others.
    made_room: AtomicU64,
    /// What is known of sessions may be wrong: it is to be looked at.
    pub(super) doubt: Arc<Notify>,
    /// Goes away with this. What works for it beside the requests ends then.
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
            neighbours: Neighbours::default(),
            process: ProcessId::new(),
            sessions,
            subscribers,
            epoch,
            newcomers: Arc::default(),
            early_closes: EarlyCloses::default(),
            ended: Mutex::new(Recent::new(ENDED)),
            closed: Mutex::new(Recent::new(ENDED)),
            pending_ends: Mutex::default(),
            made_room: AtomicU64::new(0),
            doubt: Arc::default(),
            alive: watch::Sender::default(),
        }
    }

    /// Closes a session here. Requests for the session wait until the decorated manager has closed it too; the result is
    /// for whoever waits besides. `None` where it is closed already: a session of the same id that began since stays.
    pub(super) fn close(self: &Arc<Self>, id: &RmcpSessionId, client: &Arc<ClientSession>) -> Option<JoinHandle<()>> {
        // First, so that at each moment the session is here or was.
        lock(&self.closed).insert(client.session_id().clone());
        let mut leaving = self.sessions.leave(id, client)?;
        client.end(self.is_stored());
        let (shared, id, session) = (Arc::clone(self), Arc::clone(id), client.session_id().clone());
        // A task of its own: a worker that is stuck must not hold up what concerns others.
        Some(tokio::spawn(async move {
            leaving.predecessor().await;
            shared.close_inner(&id, &session).await;
            leaving.end(Moved::Through);
        }))
    }

    /// Has the decorated manager close a session.
    pub(super) async fn close_inner(&self, id: &RmcpSessionId, session: &SessionId) {
        match tokio::time::timeout(STEP, self.inner.close_session(id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(?session, %error, "the session manager failed to close a session"),
            Err(_) => tracing::warn!(?session, limit = ?STEP, "the session manager did not close a session in time"),
        }
    }

    /// Closes a session that has ended for good at another server.
    pub(super) fn ended_elsewhere(self: &Arc<Self>, id: &RmcpSessionId, client: &Arc<ClientSession>) {
        self.close(id, client);
        self.tell_of_end(client.session_id());
    }

    /// Closes a session of this user, if it is here.
    pub(super) fn close_known(self: &Arc<Self>, session: &SessionId) {
        if let Some(client) = self.client_of(session) {
            self.close(&session.as_str().into(), &client);
        }
    }

    /// Returns a place for one more session. Where there is none, the session that has been idle for longest is closed here,
    /// as an idle timeout would. `None` where no session is idle.
    pub(super) fn make_room(self: &Arc<Self>) -> Option<Place> {
        loop {
            if let Some(place) = self.sessions.place() {
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

    /// Ends a session for all. Where Redis does not take that, housekeeping tries again.
    pub(super) async fn forget(self: &Arc<Self>, session: &SessionId, is_known: bool) -> Result<(), QueueError> {
        let forgotten = async {
            if self.queue.forget(session, self.process, is_known).await? {
                self.tell_of_end(session);
                // A request may have had it restored before Redis forgot it.
                self.close_known(session);
                cancel_open(&*self.queue, session, "the session has ended").await?;
            }
            Ok(())
        };
        let forgotten = forgotten.await;
        if forgotten.is_err() {
            self.add_pending_end((session.clone(), is_known));
        }
        forgotten
    }
}

impl<M> Shared<M> {
    pub(super) fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }

    /// Returns how long a client whose stream begins now is to wait before the next.
    pub(super) async fn reconnect_delay(&self) -> Duration {
        match self.settings.reconnect_delay {
            Some(delay) => delay,
            None if self.neighbours.any(&*self.queue).await => DELAY_IN_FLEET,
            None => DELAY_ALONE,
        }
    }

    pub(super) fn is_stored(&self) -> bool {
        self.settings.restorer.is_some()
    }

    /// Returns a receiver that gets nothing, and whose wait for a change ends when this goes away.
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

    /// Makes the object of a session.
    pub(super) fn client(&self, session: SessionId) -> Arc<ClientSession> {
        Arc::new(ClientSession::new(&self.config, session, self.process))
    }

    /// Returns whether a session is served here, or was not long ago.
    pub(super) fn was_served(&self, session: &SessionId) -> bool {
        self.client_of(session).is_some() || lock(&self.closed).contains(session)
    }

    /// A session has ended for good. It may be heard of more than once, and is told once.
    pub(super) fn tell_of_end(&self, session: &SessionId) {
        if !lock(&self.ended).insert(session.clone()) {
            return;
        }
        if let Some(on_end) = &self.settings.on_end
            && catch_unwind(AssertUnwindSafe(|| on_end(session))).is_err()
        {
            tracing::error!(?session, "what is called at the end of a session has panicked");
        }
    }

    /// Whether it is known to have ended for good.
    pub(super) fn has_ended(&self, session: &SessionId) -> bool {
        lock(&self.ended).contains(session)
    }

    /// Has the end of a session published later.
    pub(super) fn add_pending_end(&self, end: PendingEnd) {
        lock(&self.pending_ends).add(end);
    }

    /// Takes the sessions whose end is to be published once more.
    pub(super) fn take_pending_ends(&self) -> Vec<PendingEnd> {
        lock(&self.pending_ends).take()
    }

    /// Returns whether there are any.
    pub(super) fn has_pending_ends(&self) -> bool {
        !lock(&self.pending_ends).is_empty()
    }

    /// Has a session remembered, if it is not. Returns `false` where the session has ended meanwhile.
    pub(super) async fn remember(&self, client: &ClientSession) -> Result<bool, QueueError> {
        let Some(state) = client.state_to_remember() else { return Ok(true) };
        let is_remembered = self.queue.remember(client.session_id(), &state).await?;
        client.set_remembered(is_remembered);
        Ok(is_remembered)
    }
}
