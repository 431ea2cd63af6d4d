//! Housekeeping of a server process: it ends sessions that nobody uses, and keeps those in use remembered by the fleet.
//!
//! Each round ends idle sessions, and stores sessions that Redis does not know. It begins the time to live of sessions
//! in use anew, and repeats the announcement of ends.
//!
//! *A recheck* starts a round early: news were lost, or too many came. All sessions are then looked up, so an end that
//! was announced meanwhile is found (`news_that_were_lost_are_made_up_for_as_soon_as_news_come_again`). Anyone who may
//! publish can cause rechecks; therefore their rounds are at least [`AGAIN`] apart.
//!
//! *Cost*. Most rounds ask with one request for many sessions whether any is missing. Only a round for the time to
//! live, or at a recheck, writes to each session's key
//! (`a_session_in_use_that_redis_forgot_is_stored_again_within_a_round`).

use std::sync::{Arc, Weak};
use std::time::Duration;

use rmcp::transport::streamable_http_server::session::{SessionId as RmcpSessionId, SessionManager};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::client::ClientSession;
use super::shared::Shared;
use super::{news, restore};
use crate::backend::SessionRecord;
use crate::failure::{QueueError, QueueErrorKind};

/// Longest time between two rounds. State that Redis lost or refused is stored again within this time.
const ROUND: Duration = Duration::from_secs(15);

/// Time between two rounds while Redis is in trouble, and shortest time between two rounds of which one was asked for.
const AGAIN: Duration = Duration::from_secs(1);

/// Number of sessions per lookup.
const CHUNK: usize = 500;

type Sessions = [(RmcpSessionId, Arc<ClientSession>)];

/// Starts the housekeeping, which runs for as long as the manager lives.
pub(super) fn start<M: SessionManager>(shared: &Arc<Shared<M>>) {
    tokio::spawn(run(Arc::downgrade(shared), shared.alive(), Arc::clone(&shared.recheck)));
    if shared.is_stored() {
        tokio::spawn(restore::complete_arrivals(Arc::downgrade(shared), shared.alive()));
        tokio::spawn(news::listen(Arc::downgrade(shared), shared.alive(), shared.queue.listen(shared.process)));
    }
}

/// Runs a round at the latest every [`ROUND`], sooner after a request for a recheck or a failure, until the manager is
/// dropped.
async fn run<M: SessionManager>(shared: Weak<Shared<M>>, mut alive: watch::Receiver<()>, recheck: Arc<Notify>) {
    // Three facts: whether all sessions are due for a new time to live, when that last happened, and when a recheck was
    // last asked for it.
    let (mut is_due, mut refreshed, mut rechecked) = (false, Instant::now(), None::<Instant>);
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
            () = recheck.notified() => {
                // Anyone who may publish to the fleet can cause rechecks as often as they like, so rechecks are limited
                // in their rate.
                if let Some(rechecked) = rechecked {
                    tokio::time::sleep(AGAIN.saturating_sub(rechecked.elapsed())).await;
                }
                (is_due, rechecked) = (true, Some(Instant::now()));
            }
        }
        let Some(shared) = shared.upgrade() else { return };
        end_idle(&shared);
        if shared.is_stored() {
            is_due |= refreshed.elapsed() >= shared.config.session_time_to_live() / 4;
            if store_sessions(&shared, is_due).await && std::mem::take(&mut is_due) {
                refreshed = Instant::now();
            }
            announce_ends(&shared).await;
        }
    }
}

/// Ends sessions that have had no open stream and no request for the idle timeout.
fn end_idle<M: SessionManager>(shared: &Arc<Shared<M>>) {
    let timeout = shared.idle_timeout();
    for (id, client) in shared.sessions() {
        if client.idle_since().is_some_and(|since| since.elapsed() >= timeout) {
            tracing::debug!(session = ?client.session_id(), "an idle session is ended here");
            shared.close(&id, &client);
        }
    }
}

/// Stores the sessions of this process that Redis does not know, or no longer knows. With `all` set, the time to live
/// of each session begins anew too. Returns whether Redis did all of that.
async fn store_sessions<M: SessionManager>(shared: &Arc<Shared<M>>, all: bool) -> bool {
    let sessions = shared.sessions();
    if let Err(error) = refresh(shared, &sessions, all).await {
        tracing::warn!(%error, "refreshing the sessions in use failed; retrying");
        return false;
    }
    let (mut failures, mut last) = (0, None);
    for (id, client) in &sessions {
        match shared.store_session(client).await {
            Ok(true) => {}
            // The news of this session's end were lost.
            Ok(false) => shared.close_ended_elsewhere(id, client),
            Err(error) => {
                // Another type under the key of one session concerns that session alone. Any other failure concerns the
                // rest too.
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
            tracing::warn!(failures, %error, "storing sessions failed; until it succeeds they cannot continue at other servers");
            !concerns_all
        }
    }
}

/// Finds the sessions that Redis should remember and does not. With `all` set each session is looked up. Otherwise one
/// request asks for many at once whether any is missing, which costs Redis next to nothing.
async fn refresh<M: SessionManager>(shared: &Arc<Shared<M>>, sessions: &Sessions, all: bool) -> Result<(), QueueError> {
    let looked_up: Vec<_> = sessions.iter().filter(|(_, client)| all || client.is_stored()).collect();
    for some in looked_up.chunks(CHUNK) {
        let ids: Vec<_> = some.iter().map(|(_, client)| client.session_id().clone()).collect();
        if !all && shared.queue.knows_all(&ids).await? {
            continue;
        }
        for ((id, client), known) in some.iter().zip(shared.queue.refresh_sessions(&ids).await?) {
            match known {
                SessionRecord::Known => {}
                // Redis has lost the session.
                SessionRecord::Unknown => client.set_stored(false),
                // The news of this session's end were lost.
                SessionRecord::Ended => shared.close_ended_elsewhere(id, client),
            }
        }
    }
    Ok(())
}

/// Sends to Redis again the ends of sessions that could not be stored before.
async fn announce_ends<M: SessionManager>(shared: &Arc<Shared<M>>) {
    let mut pending = shared.take_pending_ends().into_iter();
    while let Some((session, is_known)) = pending.next() {
        if let Err(error) = shared.end_everywhere(&session, is_known).await {
            tracing::warn!(?session, %error, "publishing the end of a session failed; retrying");
            // The others return to the pending ends, where this one is already.
            pending.by_ref().for_each(|end| shared.add_pending_end(end));
        }
    }
}
