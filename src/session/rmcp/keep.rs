//! What goes on by itself in a server process: sessions that nobody uses end here, those that are used are kept in mind by
//! the fleet, and what other processes tell is heard.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rmcp::transport::streamable_http_server::session::SessionManager;
use tokio::sync::mpsc;

use super::shared::Shared;
use crate::queue::{News, Remembered};

/// How long a session is kept by default: rmcp's own.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// How often it is looked, at least, so that what Redis did not take is soon brought again.
const LOOK: Duration = Duration::from_secs(15);

/// Goes on for as long as the manager lives.
pub(super) fn start<M: SessionManager>(shared: &Arc<Shared<M>>) {
    tokio::spawn(keep(Arc::downgrade(shared)));
    if shared.is_stored() {
        tokio::spawn(listen(Arc::downgrade(shared), shared.queue.listen(shared.process)));
    }
}

async fn keep<M: SessionManager>(shared: Weak<Shared<M>>) {
    let mut kept = Instant::now();
    loop {
        let pause = match shared.upgrade() {
            None => return,
            Some(shared) => (shared.idle_timeout() / 4).min(shared.config.session_time_to_live() / 8).min(LOOK),
        };
        tokio::time::sleep(pause.max(Duration::from_millis(10))).await;
        let Some(shared) = shared.upgrade() else { return };
        end_idle(&shared).await;
        if shared.is_stored() {
            let is_due = kept.elapsed() >= shared.config.session_time_to_live() / 4;
            if is_due {
                kept = Instant::now();
            }
            remember(&shared, is_due).await;
        }
    }
}

/// Ends those without an open stream and without a request for a while.
async fn end_idle<M: SessionManager>(shared: &Shared<M>) {
    let timeout = shared.idle_timeout();
    for (id, client) in shared.sessions() {
        if client.idle_since().is_some_and(|since| since.elapsed() >= timeout) {
            tracing::debug!(session = %client.session_id(), "an idle session is ended here");
            shared.close(&id, &client).await;
        }
    }
}

/// Has those remembered that are not yet; and, where that `is_due`, looks at what is known of all, whose time begins anew.
async fn remember<M: SessionManager>(shared: &Shared<M>, is_due: bool) {
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
                            shared.close(id, client).await;
                            shared.tell_of_end(client.session_id());
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "sessions could not be kept in mind; the next time comes"),
        }
    }
    for (_, client) in sessions {
        if let Err(error) = shared.remember(&client).await {
            tracing::warn!(session = %client.session_id(), %error, "a session is not remembered yet");
            return;
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
            // It knows.
            News::Ended(_, by) if by == shared.process => {}
            News::Ended(session, _) => {
                let ended = shared.known(session.as_str()).filter(|client| *client.session_id() == session);
                if let Some(client) = ended {
                    shared.close(&session.as_str().into(), &client).await;
                }
                shared.tell_of_end(&session);
            }
        }
    }
}
