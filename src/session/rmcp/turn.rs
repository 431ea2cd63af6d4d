//! Clients that come back after a stream that broke are turned round once: their next stream ends well at once.
//!
//! Python's SDK counts streams that break, gives up after the second, and forgets them only when one ends well: without
//! this it would survive one killed server in its whole life.

use std::time::Duration;

use rmcp::transport::streamable_http_server::session::ServerSseMessage;

/// How long a client that is turned round waits.
const MOMENT: Duration = Duration::from_millis(10);

/// What the event id of a client that was turned round begins with. Its own follows. It says so itself, since it may come
/// back at another server.
const TURNED: &str = "turned-";

/// All that a stream says which turns its client round.
pub(super) fn turn(last_event_id: &str) -> ServerSseMessage {
    ServerSseMessage::priming(format!("{TURNED}{last_event_id}"), MOMENT)
}

/// The id with which a client came before it was turned round, if it was.
pub(super) fn before_turn(last_event_id: &str) -> Option<&str> {
    last_event_id.strip_prefix(TURNED)
}
