//! HTTP server around rmcp's handler: [`McpServer`].

mod body;
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
