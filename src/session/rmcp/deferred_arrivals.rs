//! [`DeferredArrivals`]: sessions that came from other servers, and the part of their arrival that can wait until their
//! streams are open.
//!
//! Thousands may come at once after a server has died, and each of their clients wants its next message first.
//! Therefore two steps follow only once no further session has come for a moment:
//! - Redis is asked, for many sessions at once, which of them have ended meanwhile. The news of an end may have been
//!   lost.
//! - rmcp is made to serve the sessions whose clients have opened a stream. Their handlers may want to send something
//!   by themselves. A request of a session does not wait for this step: the request has the session served at once.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rmcp::transport::streamable_http_server::session::SessionId as RmcpSessionId;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::ClientSession;
use crate::lock::lock;

/// Time without a further session after which these steps begin.
const QUIET: Duration = Duration::from_millis(100);

/// Longest time for which these steps wait for such a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// Number of sessions per lookup of ends.
const BATCH: usize = 256;

/// Sessions that came from other servers.
#[derive(Default)]
pub(super) struct DeferredArrivals {
    waiting: Mutex<Waiting>,
    added: Notify,
}

/// Sessions whose steps have not begun, the oldest first.
#[derive(Default)]
struct Waiting {
    sessions: VecDeque<Arrival>,
    /// Time at which the newest of them came.
    last: Option<Instant>,
}

/// Session that came from another server, since its arrival.
struct Arrival {
    id: RmcpSessionId,
    /// Client of the session. Weak, so that a session that has left is not kept alive here.
    client: Weak<ClientSession>,
    /// Runtime on which rmcp will serve the session: that of the thread that the client came to.
    runtime: Handle,
    /// Time of the arrival, which bounds the wait for calm.
    since: Instant,
}

/// Arrival whose two steps are due.
pub(super) struct DueArrival {
    pub(super) id: RmcpSessionId,
    pub(super) client: Arc<ClientSession>,
    pub(super) runtime: Handle,
}

impl Arrival {
    fn into_due(self) -> Option<DueArrival> {
        let Self { id, client, runtime, .. } = self;
        let client = client.upgrade()?;
        // Reset first, so that a stream that is opened from now on is noted again.
        client.is_arrival_deferred.store(false, Ordering::SeqCst);
        Some(DueArrival { id, client, runtime })
    }
}

impl DeferredArrivals {
    /// Notes that a session was loaded, or that a session without a handler got a stream.
    pub(super) fn add(&self, id: &RmcpSessionId, client: &Arc<ClientSession>) {
        if client.is_arrival_deferred.swap(true, Ordering::SeqCst) {
            return;
        }
        let (runtime, since) = (Handle::current(), Instant::now());
        let arrival = Arrival { id: Arc::clone(id), client: Arc::downgrade(client), runtime, since };
        let mut waiting = lock(&self.waiting);
        waiting.last = Some(since);
        waiting.sessions.push_back(arrival);
        if waiting.sessions.len() == 1 {
            self.added.notify_one();
        }
    }

    /// Waits for a moment of calm. Takes the sessions that have waited longest and are still here.
    ///
    /// # Cancellation
    /// No session is lost.
    pub(super) async fn next_due(&self) -> Vec<DueArrival> {
        loop {
            let pause = {
                let mut waiting = lock(&self.waiting);
                match (waiting.sessions.front(), waiting.last) {
                    (Some(first), Some(last)) => {
                        let due = (last + QUIET).min(first.since + PATIENCE);
                        let pause = due.saturating_duration_since(Instant::now());
                        if pause.is_zero() {
                            let count = waiting.sessions.len().min(BATCH);
                            return waiting.sessions.drain(..count).filter_map(Arrival::into_due).collect();
                        }
                        Some(pause)
                    }
                    _ => {
                        // Frees the memory, which may have held thousands.
                        waiting.sessions = VecDeque::new();
                        None
                    }
                }
            };
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => self.added.notified().await,
            }
        }
    }
}
