//! [`Shared`]: what the decorated manager, the session store and what goes on by itself share.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rmcp::transport::streamable_http_server::session::{SessionId as RmcpSessionId, SessionManager};
use tokio::sync::{Notify, watch};

use super::client::ClientSession;
use super::event_id::Epoch;
use super::gates::{Gates, after_rmcp};
use super::pending_ends::{PendingEnd, PendingEnds};
use super::settings::Settings;
use super::subscribers::Subscribers;
use crate::backend::questions::cancel_open;
use crate::backend::{Backend, ProcessId, Remembered};
use crate::config::Config;
use crate::failure::QueueError;
use crate::lock::lock;
use crate::recent::Recent;
use crate::session_id::SessionId;

/// Number of sessions that are remembered here after their end: of those that ended for good, whose end may be heard of
/// again, and of those that were served here.
const ENDED: usize = 1024;

pub(super) struct Shared<M> {
    pub(super) inner: M,
    pub(super) queue: Arc<dyn Backend>,
    pub(super) config: Config,
    settings: Settings,
    pub(super) process: ProcessId,
    pub(super) gates: Gates,
    pub(super) subscribers: Arc<dyn Subscribers>,
    pub(super) epoch: Epoch,
    clients: Mutex<HashMap<RmcpSessionId, Arc<ClientSession>>>,
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
        settings: Settings,
    ) -> Self {
        let epoch = if inner.event_store().is_some() { Epoch::of_event_store() } else { Epoch::new() };
        Self {
            inner,
            queue,
            config,
            settings,
            process: ProcessId::new(),
            gates: Gates::default(),
            subscribers,
            epoch,
            clients: Mutex::default(),
            ended: Mutex::new(Recent::new(ENDED)),
            closed: Mutex::new(Recent::new(ENDED)),
            pending_ends: Mutex::default(),
            made_room: AtomicU64::new(0),
            doubt: Arc::default(),
            alive: watch::Sender::default(),
        }
    }

    /// Closes a session here, as rmcp would: those that come for it wait until that is through. It may have been closed
    /// already, and begun anew: that one stays. `is_served` says whether rmcp runs its worker, and so closes it once more
    /// when that ends.
    pub(super) fn close(self: &Arc<Self>, id: &RmcpSessionId, client: &Arc<ClientSession>, is_served: bool) {
        if !self.known(id).is_some_and(|known| Arc::ptr_eq(&known, client)) {
            return;
        }
        // At once, before rmcp can close it by its id: it does so as soon as its worker ends, which may be now.
        self.gates.closing(id);
        self.end(id);
        let (shared, id, session) = (Arc::clone(self), Arc::clone(id), client.session_id().clone());
        // A task of its own: a worker that is stuck must not hold up what concerns others.
        tokio::spawn(async move {
            if let Err(error) = shared.inner.close_session(&id).await {
                tracing::warn!(?session, %error, "a session could not be closed");
            }
            if !is_served {
                after_rmcp(async move { shared.gates.closed(&id) });
            }
        });
    }
}

impl<M: SessionManager> Shared<M> {
    /// Closes a session that has ended for good at another server.
    pub(super) fn ended_elsewhere(self: &Arc<Self>, id: &RmcpSessionId, client: &Arc<ClientSession>) {
        self.close(id, client, true);
        self.tell_of_end(client.session_id());
    }

    /// Closes a session that was restored here and has ended meanwhile. Its end may have been heard of between the moment when
    /// Redis gave its state and the moment when it became known here, and is not told twice.
    pub(super) async fn check_end(self: &Arc<Self>, id: &RmcpSessionId, client: &Arc<ClientSession>) {
        match self.queue.look_up(std::slice::from_ref(client.session_id())).await.as_deref() {
            Ok([Remembered::Ended]) => self.ended_elsewhere(id, client),
            Ok(_) => {}
            Err(_) => self.doubt.notify_one(),
        }
    }

    /// Makes room for one more session: where there are as many as may be, the one that has been idle for longest is closed
    /// here, as an idle timeout would. Returns whether there is room.
    pub(super) fn make_room(self: &Arc<Self>) -> bool {
        let longest_idle = {
            let clients = self.clients();
            if clients.len() < self.config.session_limit() {
                return true;
            }
            let idle = clients.iter().filter(|(_, client)| client.is_initialized());
            let idle = idle.filter_map(|(id, client)| Some((client.idle_since()?, id, client)));
            idle.min_by_key(|(since, ..)| *since).map(|(_, id, client)| (Arc::clone(id), Arc::clone(client)))
        };
        let Some((id, client)) = longest_idle else { return false };
        let so_far = self.made_room.fetch_add(1, Ordering::Relaxed) + 1;
        if so_far.is_power_of_two() {
            let limit = self.config.session_limit();
            tracing::warn!(limit, so_far, "session_limit is reached; the longest idle session is ended here");
        }
        self.close(&id, &client, true);
        true
    }
}

impl<M> Shared<M> {
    pub(super) fn idle_timeout(&self) -> Duration {
        self.settings.idle_timeout
    }

    pub(super) fn reconnect_delay(&self) -> Duration {
        self.settings.reconnect_delay
    }

    pub(super) fn is_stored(&self) -> bool {
        self.settings.is_stored
    }

    /// Returns a receiver that gets nothing, and whose wait for a change ends when this goes away.
    pub(super) fn alive(&self) -> watch::Receiver<()> {
        self.alive.subscribe()
    }

    /// The sessions of this process.
    pub(super) fn sessions(&self) -> Vec<(RmcpSessionId, Arc<ClientSession>)> {
        self.clients().iter().map(|(id, client)| (Arc::clone(id), Arc::clone(client))).collect()
    }

    /// One of them.
    pub(super) fn known(&self, id: &str) -> Option<Arc<ClientSession>> {
        self.clients().get(id).map(Arc::clone)
    }

    /// Adds a session that is new here; `None` where there are too many.
    pub(super) fn begin(&self, id: &RmcpSessionId, session: SessionId) -> Option<Arc<ClientSession>> {
        let mut clients = self.clients();
        if clients.len() >= self.config.session_limit() && !clients.contains_key(id) {
            return None;
        }
        let new = || Arc::new(ClientSession::new(&self.config, session, self.process));
        Some(Arc::clone(clients.entry(Arc::clone(id)).or_insert_with(new)))
    }

    /// Ends a session in this process: its subscriber sees that, and stops.
    pub(super) fn end(&self, id: &RmcpSessionId) {
        let ended = self.clients().remove(id);
        if let Some(client) = ended {
            lock(&self.closed).insert(client.session_id().clone());
            client.end(self.is_stored());
        }
    }

    /// Returns whether a session is served here, or was not long ago.
    pub(super) fn was_served(&self, session: &SessionId) -> bool {
        let is_served = self.known(session.as_str()).is_some_and(|client| client.session_id() == session);
        is_served || lock(&self.closed).contains(session)
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

    /// Ends a session for all. Where Redis does not take that, housekeeping tries again.
    pub(super) async fn forget(&self, session: &SessionId, is_known: bool) -> Result<(), QueueError> {
        let forgotten = async {
            if self.queue.forget(session, self.process, is_known).await? {
                self.tell_of_end(session);
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

    fn clients(&self) -> MutexGuard<'_, HashMap<RmcpSessionId, Arc<ClientSession>>> {
        lock(&self.clients)
    }
}
