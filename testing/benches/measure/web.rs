//! MCP over real HTTP: servers, and a lean client that is many clients, each a process of its own.
//!
//! A benchmark starts itself again for each of them: see [`Part`]. The *null courier* ([`null`]) is an actix server. It sends
//! the same frames and pings as a courier, and takes the same answers. It has no queue, no rmcp and no Redis.

mod client;
pub(crate) mod connection;
mod events;
pub(crate) mod frames;
mod null;
mod part;
mod rmcp_alone;
mod servers;
mod stream;

use clap::Subcommand;

pub(crate) use self::client::Client;
pub(crate) use self::frames::Frames;
pub(crate) use self::servers::Server;

/// Part of a benchmark that is a process of its own.
#[derive(Debug, Subcommand)]
pub(crate) enum Part {
    /// Serves until the input ends.
    #[command(subcommand)]
    Serve(servers::Kind),
    /// Does what each line of the input asks.
    Clients,
}

impl Part {
    /// Runs this process's part.
    pub(crate) fn run(self) {
        actix::System::new().block_on(async {
            match self {
                Self::Serve(kind) => kind.serve().await,
                Self::Clients => client::serve().await,
            }
        });
    }
}
