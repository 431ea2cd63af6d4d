//! News of other processes: answers to pings that arrived there, and sessions that ended there.
//!
//! Whoever may publish in Redis can forge news. So the work for each message is small and bounded, and a session ends here
//! only when Redis itself says that the session has ended.

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use rmcp::transport::streamable_http_server::session::SessionManager;
use tokio::sync::{mpsc, watch};

use super::shared::Shared;
use crate::backend::{News, NewsReceiver, Remembered};
use crate::session_id::SessionId;

/// Number of ends that wait at most until Redis has confirmed them. What exceeds it causes a look at all sessions.
const ENDS: usize = 1024;

/// Number of ends that Redis is asked about at once.
const BATCH: usize = 256;

/// Listens for as long as the manager lives, however quiet the fleet is: a connection to Redis goes with the receiver.
pub(super) async fn listen<M: SessionManager>(
    shared: Weak<Shared<M>>,
    mut alive: watch::Receiver<()>,
    mut news: NewsReceiver,
) {
    let (ends, unconfirmed) = mpsc::channel(ENDS);
    // Beside the answers to pings, which must not wait for Redis.
    tokio::spawn(confirm_ends(shared.clone(), unconfirmed));
    loop {
        let news = tokio::select! {
            news = news.recv() => news,
            _ = alive.changed() => return,
        };
        let (Some(news), Some(shared)) = (news, shared.upgrade()) else { return };
        match news {
            News::Confirmed(session, ping) => {
                if let Some(client) = shared.client_of(&session) {
                    client.confirmed(ping);
                }
            }
            News::Again => shared.doubt.notify_one(),
            // This process knows.
            News::Ended(_, by) if by == shared.process => {}
            News::Ended(session, _) if shared.has_ended(&session) => {}
            News::Ended(session, _) => {
                if ends.try_send(session).is_err() {
                    shared.doubt.notify_one();
                }
            }
        }
    }
}

/// Ends sessions of which others said that they have ended, if Redis says so too.
async fn confirm_ends<M: SessionManager>(shared: Weak<Shared<M>>, mut unconfirmed: mpsc::Receiver<SessionId>) {
    let mut batch = Vec::with_capacity(BATCH);
    while unconfirmed.recv_many(&mut batch, BATCH).await > 0 {
        let Some(shared) = shared.upgrade() else { return };
        let mut seen = HashSet::new();
        batch.retain(|session: &SessionId| seen.insert(session.clone()));
        match shared.queue.look_up(&batch).await {
            Ok(known) => {
                let ended = batch.iter().zip(known).filter(|(_, known)| *known == Remembered::Ended);
                ended.for_each(|(session, _)| end(&shared, session));
            }
            Err(error) => {
                tracing::warn!(%error, "confirming the end of sessions failed; all sessions will be looked up");
                shared.doubt.notify_one();
            }
        }
        batch.clear();
    }
}

fn end<M: SessionManager>(shared: &Arc<Shared<M>>, session: &SessionId) {
    // First, so that who restores the session at this moment sees that it has ended, or the session is seen here.
    shared.tell_of_end(session);
    shared.close_known(session);
}
