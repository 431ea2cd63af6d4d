//! News of other processes: answers to pings that arrived there, and sessions that ended there.
//!
//! Anyone who may publish in Redis can forge news. Therefore the work for each message is small and bounded. A session
//! ends here only when Redis itself says that the session has ended.
//!
//! *Why news are never believed*. An end is looked up, because a forged one would end a session of somebody else. A
//! confirmation carries the nonce of a ping, which only its client can know
//! (`g6_g7_forged_news_end_no_session_and_hold_nothing_up`, `g2_who_may_publish_confirms_nothing`).

use std::collections::HashSet;
use std::sync::{Arc, Weak};

use rmcp::transport::streamable_http_server::session::SessionManager;
use tokio::sync::{mpsc, watch};

use super::shared::Shared;
use crate::backend::{News, NewsReceiver, SessionRecord};
use crate::session_id::SessionId;

/// Largest number of ends that wait for Redis's confirmation. Further ones cause a lookup of all sessions.
const ENDS: usize = 1024;

/// Number of ends per lookup.
const BATCH: usize = 256;

/// Listens for as long as the manager lives, however quiet the fleet is. Dropping the receiver closes its connection to
/// Redis.
pub(super) async fn listen<M: SessionManager>(
    shared: Weak<Shared<M>>,
    mut alive: watch::Receiver<()>,
    mut news: NewsReceiver,
) {
    let (ends, unconfirmed) = mpsc::channel(ENDS);
    // Confirms ends beside the answers to pings, which must not wait for Redis.
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
            News::Missed => shared.recheck.notify_one(),
            // This process announced that end itself.
            News::Ended(_, by) if by == shared.process => {}
            News::Ended(session, _) if shared.has_ended(&session) => {}
            News::Ended(session, _) => {
                if ends.try_send(session).is_err() {
                    shared.recheck.notify_one();
                }
            }
        }
    }
}

/// Ends the sessions whose end others announced, if Redis confirms the end.
async fn confirm_ends<M: SessionManager>(shared: Weak<Shared<M>>, mut unconfirmed: mpsc::Receiver<SessionId>) {
    let mut batch = Vec::with_capacity(BATCH);
    while unconfirmed.recv_many(&mut batch, BATCH).await > 0 {
        let Some(shared) = shared.upgrade() else { return };
        let mut seen = HashSet::new();
        batch.retain(|session: &SessionId| seen.insert(session.clone()));
        match shared.queue.look_up_sessions(&batch).await {
            Ok(known) => {
                let ended = batch.iter().zip(known).filter(|(_, known)| *known == SessionRecord::Ended);
                ended.for_each(|(session, _)| end(&shared, session));
            }
            Err(error) => {
                tracing::warn!(%error, "confirming the end of sessions failed; all sessions will be looked up");
                shared.recheck.notify_one();
            }
        }
        batch.clear();
    }
}

fn end<M: SessionManager>(shared: &Arc<Shared<M>>, session: &SessionId) {
    // Noted first. A restore at this moment then sees that the session has ended, or this function sees the restored
    // session.
    shared.call_on_end(session);
    shared.close_if_here(session);
}
