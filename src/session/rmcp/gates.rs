//! Holding requests back while their session is restored here, or closed.
//!
//! rmcp serves a request as soon as the session's worker exists, which is before it was initialised, and answers 500 to
//! one that comes when another has just restored the session. So the first request passes and restores; the others wait
//! here. Whoever they are: rmcp lets a request go on when another has restored the session of that id, and does not know
//! whose it is. And when a worker has ended, rmcp closes its session by its id: by then that must not be a new one.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::lock::lock;
use rmcp::transport::streamable_http_server::session::SessionId as RmcpSessionId;
use tokio::sync::watch;

/// After this long a gate opens by itself: whoever should have opened it is gone. Longer than Redis may take to say what a
/// session began with.
const LIMIT: Duration = Duration::from_secs(30);

/// Time that suffices for a task of rmcp that only takes a lock.
const MOMENT: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<RmcpSessionId, Gate>>);

#[derive(Debug)]
struct Gate {
    why: Why,
    /// Dropped when it opens, which those who wait hear. Only that there is no use in waiting is said.
    shut: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// rmcp has been told that it is not here, and will ask the store for it, if it has one.
    Missing,
    /// It is being restored.
    Restoring,
    /// Its worker is about to end, after which rmcp closes the session.
    Closing,
}

impl Gates {
    /// Waits until the gate is open; `false` where there is no use in that, as what is behind it cannot be had now.
    pub(super) async fn pass(&self, id: &RmcpSessionId) -> bool {
        loop {
            let Some(mut shut) = self.gates().get(id).map(|gate| gate.shut.subscribe()) else { return true };
            match tokio::time::timeout(LIMIT, shut.changed()).await {
                Ok(Ok(())) => return false,
                // It is open.
                Ok(Err(_)) => {}
                Err(_) => self.open(id),
            }
        }
    }

    /// Shuts it; `false` where it is shut already.
    pub(super) fn shut(&self, id: &RmcpSessionId, why: Why) -> bool {
        let mut gates = self.gates();
        let is_open = !gates.contains_key(id);
        if is_open {
            gates.insert(RmcpSessionId::clone(id), Gate { why, shut: watch::Sender::new(()) });
        }
        is_open
    }

    /// The store is asked for a session; whether that is for whoever shut the gate.
    pub(super) fn restoring(&self, id: &str) -> bool {
        match self.gates().get_mut(id) {
            Some(gate) if gate.why == Why::Missing => {
                gate.why = Why::Restoring;
                true
            }
            _ => false,
        }
    }

    /// Opens it, unless the store has been asked.
    pub(super) fn open_if_missing(&self, id: &str) {
        let mut gates = self.gates();
        if gates.get(id).is_some_and(|gate| gate.why == Why::Missing) {
            gates.remove(id);
        }
    }

    /// Opens it, and sends away those who wait.
    pub(super) fn failed(&self, id: &str) {
        if let Some(gate) = self.gates().remove(id) {
            gate.shut.send_replace(());
        }
    }

    /// Shuts it, or keeps it shut for another reason.
    pub(super) fn closing(&self, id: &RmcpSessionId) {
        if !self.shut(id, Why::Closing)
            && let Some(gate) = self.gates().get_mut(id)
        {
            gate.why = Why::Closing;
        }
    }

    /// Opens it.
    pub(super) fn open(&self, id: &str) {
        self.gates().remove(id);
    }

    /// rmcp has closed the session of this id.
    pub(super) fn closed(&self, id: &str) {
        let mut gates = self.gates();
        if gates.get(id).is_some_and(|gate| gate.why == Why::Closing) {
            gates.remove(id);
        }
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<RmcpSessionId, Gate>> {
        lock(&self.0)
    }
}

/// Runs a future when rmcp has given up a restore too. rmcp does so in a task of its own, a moment after its own future was
/// dropped or has returned. To a request before that moment rmcp would answer that there is no such session.
pub(super) fn after_rmcp(what: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            tokio::time::sleep(MOMENT).await;
            what.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn session() -> RmcpSessionId {
        "s".into()
    }

    #[tokio::test(start_paused = true)]
    async fn one_passes_and_the_others_wait_until_it_has_done() {
        let gates = Gates::default();
        gates.pass(&session()).await;
        assert!(gates.shut(&session(), Why::Restoring));
        assert!(!gates.shut(&session(), Why::Restoring));
        let waiting = session();
        let second = gates.pass(&waiting);
        tokio::pin!(second);
        assert!((&mut second).now_or_never().is_none());
        gates.closed("s");
        assert!((&mut second).now_or_never().is_none(), "that was of an earlier one");
        gates.open(&session());
        assert!(second.now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_closing_waits_for_rmcp_and_not_for_ever() {
        let gates = Gates::default();
        assert!(gates.shut(&session(), Why::Restoring));
        gates.closing(&session());
        gates.closed("s");
        gates.pass(&session()).await;
        gates.closing(&session());
        gates.pass(&session()).await;
        assert!(gates.shut(&session(), Why::Restoring), "it opened by itself");
    }
}
