//! What goes on by itself in a server process: sessions that nobody uses end here, those that are used are kept in mind by
//! the fleet, and what other processes tell is heard.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rmcp::transport::streamable_http_server::session::SessionManager;
use tokio::sync::{Notify, mpsc};

use super::shared::Shared;
use crate::error::QueueErrorKind;
use crate::queue::{News, Remembered};

/// How long a session is kept by default: rmcp's own.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// How often it is looked, at least, so that what Redis did not take is soon brought again.
const LOOK: Duration = Duration::from_secs(15);

/// How soon what Redis did not take is brought again, where clients may come to harm by it.
const AGAIN: Duration = Duration::from_secs(1);

/// Goes on for as long as the manager lives.
pub(super) fn start<M: SessionManager>(shared: &Arc<Shared<M>>) {
    tokio::spawn(keep(Arc::downgrade(shared), Arc::clone(&shared.doubt)));
    if shared.is_stored() {
        tokio::spawn(listen(Arc::downgrade(shared), shared.queue.listen(shared.process)));
    }
}

async fn keep<M: SessionManager>(shared: Weak<Shared<M>>, doubt: Arc<Notify>) {
    let (mut kept, mut is_due) = (Instant::now(), false);
    loop {
        let pause = match shared.upgrade() {
            None => return,
            // Redis is in trouble.
            Some(shared) if is_due || shared.has_untold() => AGAIN,
            Some(shared) => (shared.idle_timeout() / 4).min(shared.config.session_time_to_live() / 8).min(LOOK),
        };
        tokio::select! {
            () = tokio::time::sleep(pause.max(Duration::from_millis(10))) => {}
            () = doubt.notified() => is_due = true,
        }
        let Some(shared) = shared.upgrade() else { return };
        end_idle(&shared);
        if shared.is_stored() {
            is_due |= kept.elapsed() >= shared.config.session_time_to_live() / 4;
            if remember(&shared, is_due).await && std::mem::take(&mut is_due) {
                kept = Instant::now();
            }
            tell(&shared).await;
        }
    }
}

/// Ends those without an open stream and without a request for a while.
fn end_idle<M: SessionManager>(shared: &Arc<Shared<M>>) {
    let timeout = shared.idle_timeout();
    for (id, client) in shared.sessions() {
        if client.idle_since().is_some_and(|since| since.elapsed() >= timeout) {
            tracing::debug!(session = ?client.session_id(), "an idle session is ended here");
            shared.close(&id, &client, true);
        }
    }
}

/// Has those remembered that are not yet; and, where that `is_due`, looks at what is known of all, whose time begins anew.
/// Whether Redis took it.
async fn remember<M: SessionManager>(shared: &Arc<Shared<M>>, is_due: bool) -> bool {
    let sessions = shared.sessions();
    if is_due {
        let all: Vec<_> = sessions.iter().map(|(_, client)| client.session_id().clone()).collect();
        match shared.queue.keep(&all).await {
            Ok(known) => {
                for ((id, client), known) in sessions.iter().zip(known) {
                    match known {
                        Remembered::Known => {}
                        // Redis has lost it.
                        Remembered::Unknown => client.is_remembered(false),
                        // The news of its end were lost.
                        Remembered::Ended => {
                            shared.close(id, client, true);
                            shared.tell_of_end(client.session_id());
                        }
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "sessions could not be kept in mind; the next time comes");
                return false;
            }
        }
    }
    for (_, client) in sessions {
        let Err(error) = shared.remember(&client).await else { continue };
        tracing::warn!(session = ?client.session_id(), %error, "a session is not remembered yet");
        // A refusal is this one's own.
        if !matches!(error.kind, QueueErrorKind::Refused(_)) {
            return false;
        }
    }
    true
}

/// Tells Redis again of sessions that their clients have ended.
async fn tell<M: SessionManager>(shared: &Shared<M>) {
    let mut untold = shared.take_untold().into_iter();
    while let Some(session) = untold.next() {
        if let Err(error) = shared.forget(&session).await {
            tracing::warn!(?session, %error, "the end of a session is not known to all yet");
            // The others come back to where this one is.
            untold.by_ref().for_each(|session| shared.is_untold(session));
        }
    }
}

async fn listen<M: SessionManager>(shared: Weak<Shared<M>>, mut news: mpsc::UnboundedReceiver<News>) {
    while let Some(news) = news.recv().await {
        let Some(shared) = shared.upgrade() else { return };
        match news {
            News::Confirmed(session, ping) => {
                let client = shared.known(session.as_str());
                if let Some(client) = client.filter(|client| *client.session_id() == session) {
                    client.confirmed(ping);
                }
            }
            News::Again => shared.doubt.notify_one(),
            // It knows.
            News::Ended(_, by) if by == shared.process => {}
            News::Ended(session, _) => {
                let ended = shared.known(session.as_str()).filter(|client| *client.session_id() == session);
                if let Some(client) = ended {
                    shared.close(&session.as_str().into(), &client, true);
                }
                shared.tell_of_end(&session);
            }
        }
    }
}
