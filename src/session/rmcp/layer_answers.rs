//! Requests that the HTTP layer answers itself, past rmcp: early closes, and answers to pings.
//!
//! After a server has died, all of its clients come to another one at once. Each needs an early close, a stream, and
//! the answer to a ping. Two of these three requests end here, before rmcp reads a body or Redis is asked
//! (`an_early_close_asks_neither_redis_nor_rmcp_for_the_session`). A request for which this file cannot decide goes the
//! whole way, with the same result.

use rmcp::transport::streamable_http_server::session::SessionManager;
use tokio::time::Instant;

use super::early_close;
use super::event_id::EventId;
use super::manager::CourierSessionManager;
use super::principal::session_of;

/// Decision of the layer about a request for a stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EarlyCloseDecision {
    /// The stream is closed early. The text is the whole stream.
    Close(String),
    /// The stream is not closed early.
    Serve,
    /// The session manager must decide.
    Undecided,
}

impl<M: SessionManager> CourierSessionManager<M> {
    /// Decides whether a stream behind an id is closed early, for a client of version 2025-11-25.
    pub(crate) fn decide_early_close(&self, session: &str, last_event_id: &str) -> EarlyCloseDecision {
        let named = EventId::parse(last_event_id);
        let Some(session) = session_of(session).ok().filter(|_| named.is_typed()) else {
            return EarlyCloseDecision::Undecided;
        };
        // The session has ended, here or elsewhere, and its client must learn that at once.
        if self.shared.has_ended(&session) {
            return EarlyCloseDecision::Undecided;
        }
        if let Some(client) = self.shared.client_of(&session) {
            client.touch();
        }
        if self.shared.early_closes.decide(session.as_str(), &named, last_event_id, Instant::now()) {
            EarlyCloseDecision::Close(early_close::text(&named))
        } else {
            EarlyCloseDecision::Serve
        }
    }

    /// Takes the answer to a ping, by its JSON-RPC id, if this process sent the ping to the acting user's session.
    pub(crate) fn take_pong(&self, session: &str, json_rpc_id: &str) -> bool {
        let client = session_of(session).ok().and_then(|session| self.shared.client_of(&session));
        client.is_some_and(|client| {
            client.touch();
            client.take_pong(json_rpc_id)
        })
    }
}
