//! Couriers as the benchmarks measure them.

use std::sync::Arc;
use std::time::Duration;

use mcp_courier::{Config, ConfigBuilder, Courier, ListSubscribers, McpSession, SubscriberState};

use super::messages;

/// Way in which subscribers wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// Each on an arbiter and a connection of its own.
    Dedicated,
    /// Together on a few arbiters and connections.
    Shared,
}

impl Mode {
    pub(crate) const BOTH: [Self; 2] = [Self::Dedicated, Self::Shared];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dedicated => "dedicated",
            Self::Shared => "shared",
        }
    }

    /// Begins the settings of a courier whose subscribers all wait in this way, and whose queues hold anything.
    pub(crate) fn settings(self) -> ConfigBuilder {
        let dedicated = if self == Self::Dedicated { 10_000 } else { 0 };
        let builder = Config::builder().dedicated_limit(dedicated).queue_max_messages(10_000_000);
        builder.queue_max_bytes(usize::MAX / 2)
    }
}

/// Starts a courier.
pub(crate) async fn start(url: &str, mode: Mode) -> Courier {
    Courier::start(url, mode.settings().build().unwrap()).await.unwrap()
}

/// Subscribes so many sessions, all to one object, and waits until each waits for messages.
pub(crate) async fn subscribe(courier: &Courier, sessions: usize, session: Arc<dyn McpSession>) {
    for number in 0..sessions {
        courier.ensure_subscriber(&messages::session(number), Arc::clone(&session)).await.unwrap();
    }
    until_waiting(courier).await;
}

/// Waits until each subscriber waits for messages.
pub(crate) async fn until_waiting(courier: &Courier) {
    while courier.supervisor().send(ListSubscribers).await.unwrap().iter().any(|s| s.state != SubscriberState::Waiting)
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Stops a courier.
pub(crate) async fn stop(courier: Courier) {
    courier.shutdown(Duration::from_secs(30)).await;
}
