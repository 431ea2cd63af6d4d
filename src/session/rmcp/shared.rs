//! [`Shared`]: what the decorated manager, the session store and what goes on by itself share.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rmcp::transport::streamable_http_server::session::{SessionId as RmcpSessionId, SessionManager};
use tokio::sync::Notify;

use super::client::ClientSession;
use super::event_id::Epoch;
use super::gates::Gates;
use super::keep;
use super::restoring::after_rmcp;
use crate::config::Config;
use crate::error::QueueError;
use crate::lock::lock;
use crate::queue::questions::cancel_open;
use crate::queue::{ProcessId, Queue};
use crate::recent::Recent;
use crate::session::Subscribers;
use crate::session_id::SessionId;

/// How long clients wait by default before they open another stream: rmcp's own.
const RECONNECT_DELAY: Duration = Duration::from_secs(3);

/// How many sessions are kept in mind that ended last: their end may be heard of again.
const ENDED: usize = 1024;

/// How many sessions that their clients have ended wait at most for Redis to be told so.
const UNTOLD: usize = 10_000;

/// Who is told that a session has ended.
pub(super) type OnEnd = Arc<dyn Fn(&SessionId) + Send + Sync>;

pub(super) struct Shared<M> {
    pub(super) inner: M,
    pub(super) queue: Arc<dyn Queue>,
    pub(super) config: Config,
    pub(super) process: ProcessId,
    pub(super) gates: Gates,
    pub(super) subscribers: Arc<dyn Subscribers>,
    pub(super) epoch: Epoch,
    clients: Mutex<HashMap<RmcpSessionId, Arc<ClientSession>>>,
    /// Whether sessions are remembered: then they end for all, or not at all.
    is_stored: AtomicBool,
    idle_timeout: Mutex<Duration>,
    reconnect_delay: Mutex<Duration>,
    on_end: Mutex<Option<OnEnd>>,
    /// Those that ended last.
    ended: Mutex<Recent<SessionId>>,
    /// Those that have ended, which Redis does not know yet.
    untold: Mutex<Vec<SessionId>>,
    /// What is known of sessions may be wrong: it is to be looked at.
    pub(super) doubt: Arc<Notify>,
}

impl<M: SessionManager> Shared<M> {
    pub(super) fn new(inner: M, queue: Arc<dyn Queue>, subscribers: Arc<dyn Subscribers>, config: &Config) -> Self {
        let epoch = if inner.event_store().is_some() { Epoch::of_event_store() } else { Epoch::new() };
        Self {
            inner,
            queue,
            config: config.clone(),
            process: ProcessId::new(),
            gates: Gates::default(),
            subscribers,
            epoch,
            clients: Mutex::default(),
            is_stored: AtomicBool::new(false),
            idle_timeout: Mutex::new(keep::IDLE_TIMEOUT),
            reconnect_delay: Mutex::new(RECONNECT_DELAY),
            on_end: Mutex::default(),
            ended: Mutex::new(Recent::new(ENDED)),
            untold: Mutex::default(),
            doubt: Arc::default(),
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

impl<M> Shared<M> {
    pub(super) fn idle_timeout(&self) -> Duration {
        *lock(&self.idle_timeout)
    }

    pub(super) fn set_idle_timeout(&self, idle_timeout: Duration) {
        *lock(&self.idle_timeout) = idle_timeout;
    }

    pub(super) fn reconnect_delay(&self) -> Duration {
        *lock(&self.reconnect_delay)
    }

    pub(super) fn set_reconnect_delay(&self, reconnect_delay: Duration) {
        *lock(&self.reconnect_delay) = reconnect_delay;
    }

    pub(super) fn set_on_end(&self, on_end: OnEnd) {
        *lock(&self.on_end) = Some(on_end);
    }

    pub(super) fn set_stored(&self) {
        self.is_stored.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_stored(&self) -> bool {
        self.is_stored.load(Ordering::Relaxed)
    }

    /// The sessions of this process.
    pub(super) fn sessions(&self) -> Vec<(RmcpSessionId, Arc<ClientSession>)> {
        self.clients().iter().map(|(id, client)| (Arc::clone(id), Arc::clone(client))).collect()
    }

    /// One of them.
    pub(super) fn known(&self, id: &str) -> Option<Arc<ClientSession>> {
        self.clients().get(id).map(Arc::clone)
    }

    /// A session that is new here.
    pub(super) fn begin(&self, id: &RmcpSessionId, session: SessionId) -> Arc<ClientSession> {
        let new = || Arc::new(ClientSession::new(&self.config, session, self.process));
        Arc::clone(self.clients().entry(Arc::clone(id)).or_insert_with(new))
    }

    /// A session is over in this process: its subscriber sees that, and stops.
    pub(super) fn end(&self, id: &RmcpSessionId) {
        if let Some(client) = self.clients().remove(id) {
            client.end(self.is_stored());
        }
    }

    /// A session has ended for good. It may be heard of more than once, and is told once.
    pub(super) fn tell_of_end(&self, session: &SessionId) {
        if !lock(&self.ended).insert(session.clone()) {
            return;
        }
        let on_end = lock(&self.on_end).clone();
        if let Some(on_end) = on_end
            && catch_unwind(AssertUnwindSafe(|| on_end(session))).is_err()
        {
            tracing::error!(?session, "what is called at the end of a session has panicked");
        }
    }

    /// Whether it is known to have ended for good.
    pub(super) fn has_ended(&self, session: &SessionId) -> bool {
        lock(&self.ended).contains(session)
    }

    /// Ends a session for all. Where Redis does not take it, it is tried again: see `keep`.
    pub(super) async fn forget(&self, session: &SessionId) -> Result<(), QueueError> {
        let forgotten = async {
            self.queue.forget(session, self.process).await?;
            self.tell_of_end(session);
            cancel_open(&*self.queue, session, "the session has ended").await
        };
        let forgotten = forgotten.await;
        if forgotten.is_err() {
            self.is_untold(session.clone());
        }
        forgotten.map(drop)
    }

    pub(super) fn is_untold(&self, session: SessionId) {
        let mut untold = lock(&self.untold);
        if untold.len() < UNTOLD {
            untold.push(session);
        }
    }

    /// The sessions that have ended, which Redis is to be told once more.
    pub(super) fn take_untold(&self) -> Vec<SessionId> {
        std::mem::take(&mut *lock(&self.untold))
    }

    /// Whether there are any.
    pub(super) fn has_untold(&self) -> bool {
        !lock(&self.untold).is_empty()
    }

    /// Has a session remembered. One that has ended meanwhile ends here when that is noticed: see `keep`.
    pub(super) async fn remember(&self, client: &ClientSession) -> Result<(), QueueError> {
        if let Some(state) = client.state_to_remember() {
            self.queue.remember(client.session_id(), &state).await?;
            client.is_remembered(true);
        }
        Ok(())
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<RmcpSessionId, Arc<ClientSession>>> {
        lock(&self.clients)
    }
}
