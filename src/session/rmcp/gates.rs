//! Holding requests back while their session is restored here, or closed.
//!
//! rmcp serves a request as soon as the session's worker exists, which is before it was initialised, and answers 500 to
//! one that comes when another has just restored the session. So the first request passes and restores; the others wait
//! here. And when a worker has ended, rmcp closes its session by its id: by then that must not be a new one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::session_id::SessionId;

/// After this long a gate opens by itself: whoever should have opened it is gone.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Gates(Mutex<HashMap<SessionId, Gate>>);

#[derive(Debug)]
struct Gate {
    why: Why,
    /// Dropped when it opens, which those who wait hear.
    shut: watch::Sender<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It is being restored.
    Restoring,
    /// Its worker is about to end, after which rmcp closes the session.
    Closing,
}

impl Gates {
    /// Waits until the gate is open.
    pub(super) async fn pass(&self, session: &SessionId) {
        loop {
            let Some(mut shut) = self.gates().get(session).map(|gate| gate.shut.subscribe()) else { return };
            // Nothing is ever sent: it ends when the gate opens.
            if tokio::time::timeout(LIMIT, shut.changed()).await.is_err() {
                self.open(session);
            }
        }
    }

    /// Shuts it; `false` where it is shut already.
    pub(super) fn shut(&self, session: &SessionId, why: Why) -> bool {
        let mut gates = self.gates();
        let is_open = !gates.contains_key(session);
        if is_open {
            gates.insert(session.clone(), Gate { why, shut: watch::Sender::new(()) });
        }
        is_open
    }

    /// Shuts it, or keeps it shut for another reason.
    pub(super) fn closing(&self, session: &SessionId) {
        if !self.shut(session, Why::Closing)
            && let Some(gate) = self.gates().get_mut(session)
        {
            gate.why = Why::Closing;
        }
    }

    /// Opens it.
    pub(super) fn open(&self, session: &SessionId) {
        self.gates().remove(session);
    }

    /// rmcp has closed the session of this id, whoever's it is.
    pub(super) fn closed(&self, id: &str) {
        self.gates().retain(|session, gate| session.as_str() != id || gate.why != Why::Closing);
    }

    fn gates(&self) -> MutexGuard<'_, HashMap<SessionId, Gate>> {
        // Nothing in here panics half-way, so what a poisoned lock holds is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn session() -> SessionId {
        SessionId::new("s").unwrap()
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
