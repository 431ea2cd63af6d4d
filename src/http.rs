//! HTTP server around rmcp's handler: [`McpServer`].
//!
//! A request passes five steps, from the outside to the inside. `cors` answers preflights of browsers.
//! `limit` refuses a stream for which there is no room. `layer` checks the host and the origin, authenticates, repairs
//! the body, and answers what needs no session. `head` offers the request's head for a session that is restored. rmcp's
//! own handler comes last. On the way back `layer` frames the response: standalone streams come past rmcp, by a
//! task-local (`session/rmcp/handoff.rs`). `cors` permits pages of named origins to read the response.

mod body;
mod cors;
mod events;
mod head;
mod layer;
mod limit;
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
