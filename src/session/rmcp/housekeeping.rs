//! Housekeeping of a server process: sessions that nobody uses end here, and the fleet remembers those that are in use.

use std::sync::{Arc, Weak};
use std::time::Duration;

use rmcp::transport::streamable_http_server::session::{SessionId as RmcpSessionId, SessionManager};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::client::ClientSession;
use super::shared::Shared;
use super::{news, restore};
use crate::backend::Remembered;
use crate::failure::{QueueError, QueueErrorKind};

/// Longest time between two rounds: what Redis forgot or refused is stored again within this time.
const ROUND: Duration = Duration::from_secs(15);

/// Time between two rounds while Redis is in trouble, and between two that were asked for by doubt.
const AGAIN: Duration = Duration::from_secs(1);

/// Number of sessions that are looked up at once.
const CHUNK: usize = 500;

type Sessions = [(RmcpSessionId, Arc<ClientSession>)];

/// Starts the housekeeping, which goes on for as long as the manager lives.
pub(super) fn start<M: SessionManager>(shared: &Arc<Shared<M>>) {
    tokio::spawn(run(Arc::downgrade(shared), shared.alive(), Arc::clone(&shared.doubt)));
    if shared.is_stored() {
        tokio::spawn(restore::follow_up(Arc::downgrade(shared), shared.alive()));
        tokio::spawn(news::listen(Arc::downgrade(shared), shared.alive(), shared.queue.listen(shared.process)));
    }
}

async fn run<M: SessionManager>(shared: Weak<Shared<M>>, mut alive: watch::Receiver<()>, doubt: Arc<Notify>) {
    // Whether the time of all sessions is to begin anew, when it last did, and when doubt last asked for that.
    let (mut is_due, mut refreshed, mut doubted) = (false, Instant::now(), None::<Instant>);
    loop {
        let pause = match shared.upgrade() {
            None => return,
            // Redis is in trouble.
            Some(shared) if is_due || shared.has_pending_ends() => AGAIN,
            Some(shared) => (shared.idle_timeout() / 4).min(shared.config.session_time_to_live() / 8).min(ROUND),
        };
        tokio::select! {
            () = tokio::time::sleep(pause.max(Duration::from_millis(10))) => {}
            _ = alive.changed() => return,
            () = doubt.notified() => {
                // Whoever may publish to the fleet can cause doubt as often as it likes.
                if let Some(doubted) = doubted {
                    tokio::time::sleep(AGAIN.saturating_sub(doubted.elapsed())).await;
                }
                (is_due, doubted) = (true, Some(Instant::now()));
            }
        }
        let Some(shared) = shared.upgrade() else { return };
        end_idle(&shared);
        if shared.is_stored() {
            is_due |= refreshed.elapsed() >= shared.config.session_time_to_live() / 4;
            if remember(&shared, is_due).await && std::mem::take(&mut is_due) {
                refreshed = Instant::now();
            }
            announce_ends(&shared).await;
        }
    }
}

/// Ends sessions that have had no open stream and no request for a while.
fn end_idle<M: SessionManager>(shared: &Arc<Shared<M>>) {
    let timeout = shared.idle_timeout();
    for (id, client) in shared.sessions() {
        if client.idle_since().is_some_and(|since| since.elapsed() >= timeout) {
            tracing::debug!(session = ?client.session_id(), "an idle session is ended here");
            shared.close(&id, &client);
        }
    }
}

/// Has Redis remember the sessions of this process that it does not know, or no longer. Where `all` is set, the time of each
/// begins anew too. Returns whether Redis did all of that.
async fn remember<M: SessionManager>(shared: &Arc<Shared<M>>, all: bool) -> bool {
    let sessions = shared.sessions();
    if let Err(error) = refresh(shared, &sessions, all).await {
        tracing::warn!(%error, "refreshing the sessions in use failed; retrying");
        return false;
    }
    let (mut failures, mut last) = (0, None);
    for (id, client) in &sessions {
        match shared.remember(client).await {
            Ok(true) => {}
            // The news of its end were lost.
            Ok(false) => shared.ended_elsewhere(id, client),
            Err(error) => {
                // Something else under one session's key concerns that session alone; all else fails for the others too.
                let concerns_all = !matches!(&error.kind, QueueErrorKind::Refused(why) if !why.contains("OOM"));
                (failures, last) = (failures + 1, Some(error));
                if concerns_all {
                    break;
                }
            }
        }
    }
    match last {
        None => true,
        Some(error) => {
            let concerns_all = !matches!(error.kind, QueueErrorKind::Refused(_));
            tracing::warn!(failures, %error, "storing sessions failed; until it succeeds they cannot go on at other servers");
            !concerns_all
        }
    }
}

/// Finds the sessions that Redis should remember and does not. Looks at each where `all` is set; else asks of many at once
/// whether any is missing, which costs Redis next to nothing.
async fn refresh<M: SessionManager>(shared: &Arc<Shared<M>>, sessions: &Sessions, all: bool) -> Result<(), QueueError> {
    let remembered: Vec<_> = sessions.iter().filter(|(_, client)| all || client.is_remembered()).collect();
    for some in remembered.chunks(CHUNK) {
        let ids: Vec<_> = some.iter().map(|(_, client)| client.session_id().clone()).collect();
        if !all && shared.queue.knows_all(&ids).await? {
            continue;
        }
        for ((id, client), known) in some.iter().zip(shared.queue.keep(&ids).await?) {
            match known {
                Remembered::Known => {}
                // Redis has lost it.
                Remembered::Unknown => client.set_remembered(false),
                // The news of its end were lost.
                Remembered::Ended => shared.ended_elsewhere(id, client),
            }
        }
    }
    Ok(())
}

/// Tells Redis again of sessions that their clients have ended.
async fn announce_ends<M: SessionManager>(shared: &Arc<Shared<M>>) {
    let mut pending = shared.take_pending_ends().into_iter();
    while let Some((session, is_known)) = pending.next() {
        if let Err(error) = shared.forget(&session, is_known).await {
            tracing::warn!(?session, %error, "publishing the end of a session failed; retrying");
            // The others come back to where this one is.
            pending.by_ref().for_each(|end| shared.add_pending_end(end));
        }
    }
}
