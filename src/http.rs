//! The HTTP server around rmcp's handler: [`McpServer`].
//!
//! An MCP server over HTTP needs more than a route. [`Courier::mcp_server`](crate::Courier::mcp_server) begins a server
//! with all of it, each with a default that is right:
//!
//! | what | default | why |
//! | --- | --- | --- |
//! | session manager | the courier's | notifications are delivered to the streams that it serves |
//! | session store | mounted where the queue is in Redis | sessions move between servers |
//! | `Host` header | loopback names only | DNS rebinding |
//! | `Origin` header | 403 for all but pages of this server on loopback | MCP demands it |
//! | `h1_allow_half_closed` | `false` | a closed stream is noticed in 6 ms, and not in 30 s |
//! | `tcp_nodelay` | `true` | an answer takes 1 ms, and not 44 |
//! | keep-alive | 75 s | balancers use a connection again within 60 s |
//! | signals | SIGTERM, SIGINT | handled before the server answers; a second one ends it at once |
//! | shutdown | drain, release leases, end streams, stop HTTP | 0.5 s with 50 clients, and not 6.9 |
//!
//! The same layer frames everything that goes out, and repairs what comes in:
//! - Events with data carry `event: message`, which some readers need.
//! - U+2028, U+2029 and U+0085 are escaped: many readers end a line there.
//! - A stream begins with one priming event, and with none for clients older than 2025-11-25, which report an error for it.
//! - A request of MCP 2026-07-28, which has no sessions, gets a plain 400: clients then fall back to `initialize`.
//! - Half a surrogate pair in a request becomes U+FFFD. Where the answer to a question cannot be read all the same, or is
//!   too large, its worker is told at once.

mod body;
mod escape;
mod events;
mod layer;
mod message;
mod origin;
mod server;
mod service;
mod serving;
mod settings;
mod surrogates;

pub use self::server::McpServer;
pub use self::service::McpService;
pub use self::serving::{BoundServer, ServeError};

#[cfg(test)]
mod tests {
    /// Cuts bytes into pieces at arbitrary places.
    pub(super) fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
    }

    pub(super) fn has_separators(text: &str) -> bool {
        text.contains(['\u{85}', '\u{2028}', '\u{2029}'])
    }
}
