//! [`Config`]: all settings, each with its default and its bounds.

use std::time::Duration;

use crate::retry::Backoff;
use crate::seal::SealingKeys;

mod rules;

pub use self::rules::ConfigError;

/// Order of delivery and acknowledgement, which decides between a repeat and a loss after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Delivery {
    /// Delivers the oldest notification, and removes it after the client's confirmation. A notification whose outcome
    /// is unknown may be delivered again, with the same id. This is the default, and the guarantees G1 to G8 are for
    /// it.
    #[default]
    AtLeastOnce,
    /// Removes the oldest notification, then delivers it. A notification that is removed and not delivered is lost with
    /// its process. This setting is outside the guarantees G2 and G8: an owner that was displaced may still deliver the
    /// one notification that it has removed.
    AtMostOnce,
}

/// Event that makes a notification count as delivered to a client of the `rmcp` adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DeliveryLevel {
    /// The client has answered an MCP `ping` that was sent behind the notification on the same stream. So the
    /// notification has arrived. This is the default.
    #[default]
    Confirmed,
    /// The HTTP body has taken the notification, which may still be lost in a socket's buffer.
    Pulled,
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr;)*) => {
        /// Settings of a fleet. The publishers and the servers of one queue use the same settings.
        ///
        /// ```
        /// use std::time::Duration;
        /// use mcp_courier::Config;
        ///
        /// let config = Config::builder()
        ///     .prefix("my-docket:fastmcp")
        ///     .time_to_live(Duration::from_secs(60))
        ///     .build()?;
        /// assert_eq!(config.max_attempts(), 3);
        /// let wrong = Config::builder().max_attempts(0).build().unwrap_err();
        /// assert_eq!(wrong.to_string(), "max_attempts is 0, but it must be 1 to 1000");
        /// # Ok::<(), mcp_courier::ConfigError>(())
        /// ```
        #[derive(Debug, Clone, PartialEq)]
        pub struct Config {
            prefix: String,
            /// Keys of sealed payloads; `None` where this process has none.
            sealing: Option<SealingKeys>,
            $($name: $type,)*
        }

        impl Config {
            /// Returns a builder with all defaults.
            pub fn builder() -> ConfigBuilder {
                ConfigBuilder(Self::default())
            }

            /// Returns the prefix of all keys in Redis.
            pub fn prefix(&self) -> &str {
                &self.prefix
            }

            $($(#[$doc])* pub fn $name(&self) -> $type { self.$name })*
        }

        impl Default for Config {
            fn default() -> Self {
                Self {
                    prefix: "mcp-courier".to_owned(),
                    sealing: None,
                    $($name: $default,)*
                }
            }
        }

        /// Builder of a [`Config`]. Each setter documents its default, and [`build`](Self::build) checks all values.
        #[derive(Debug, Clone)]
        pub struct ConfigBuilder(Config);

        impl ConfigBuilder {
            /// Sets the prefix of all keys in Redis. Defaults to `mcp-courier`. With `<docket name>:fastmcp`, FastMCP's
            /// workers and servers use the same queues. The prefix must have no braces, or one hash tag that is not
            /// empty.
            pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
                self.0.prefix = prefix.into();
                self
            }

            $($(#[$doc])* pub fn $name(mut self, $name: $type) -> Self {
                self.0.$name = $name;
                self
            })*
        }
    };
}

settings! {
    /// Time for which a notification may wait, from its push on. Defaults to 300 s; 1 ms to 365 days.
    time_to_live: Duration = Duration::from_secs(300);
    /// Time for which a queue's key in Redis outlives its last notification. An owner that comes late can then still
    /// count the expired ones. A push may leave a sixtieth less of this time. While a queue has an owner, its key also
    /// outlives the owner's lease by this time. Defaults to 60 s; up to 1 day.
    expiry_grace: Duration = Duration::from_secs(60);
    /// Number of attempts to hand over one notification before the notification is discarded. Defaults to 3; 1 to 1000.
    max_attempts: u32 = 3;
    /// Pause after the first failed attempt, and after the first failure of Redis. The pause doubles with each failure.
    /// Defaults to 100 ms; at least 1 ms.
    backoff_initial: Duration = Duration::from_millis(100);
    /// Longest pause between attempts. Defaults to 5 s; `backoff_initial` to 1 h.
    backoff_max: Duration = Duration::from_secs(5);
    /// Time between two renewals of a lease. A lease lasts two heartbeats. Defaults to 30 s; 100 ms to 1 h.
    heartbeat: Duration = Duration::from_secs(30);
    /// Number of notifications that one take reads at most. Defaults to 100; 1 to 1000.
    batch_messages: usize = 100;
    /// Number of bytes that one take reads at most. One notification is always read. Takes become smaller where an
    /// answer of this size does not arrive within 5 s. Defaults to 1 MiB; at least 1.
    batch_bytes: usize = 1024 * 1024;
    /// Number of notifications that may be handed over to one session and not confirmed, over several batches. A single
    /// batch is always handed over. After an unknown outcome this many can be delivered again. Defaults to 400; 1 to
    /// 10,000.
    window_messages: usize = 400;
    /// Number of bytes that may be handed over to one session and not confirmed, over several batches. A single batch
    /// is always handed over. Defaults to 16 MiB; at least 1.
    window_bytes: usize = 16 * 1024 * 1024;
    /// Number of notifications that may wait for one session. Further pushes are refused. Defaults to 10,000; at least
    /// 1.
    queue_max_messages: usize = 10_000;
    /// Number of bytes that may wait for one session, as Redis's `MEMORY USAGE` counts them. Further pushes are
    /// refused. Defaults to 64 MiB; at least `message_max_bytes`.
    queue_max_bytes: usize = 64 * 1024 * 1024;
    /// Number of bytes that one notification may have on the wire. Defaults to 1 MiB; 512 B to 64 MiB.
    message_max_bytes: usize = 1024 * 1024;
    /// Time that a session may take to accept one notification, and a client to confirm a batch. A client that takes
    /// longer has its stream cut, and its unconfirmed notifications wait for its next stream. Defaults to 30 s; 10 ms
    /// to 1 h.
    hand_over_timeout: Duration = Duration::from_secs(30);
    /// Number of dead letters that a session keeps: discarded notifications with their reasons. The oldest letters are
    /// deleted beyond this number, and where all together exceed `queue_max_bytes`. Defaults to 0, which keeps none; up
    /// to 100,000.
    dead_letters: usize = 0;
    /// Time for which a dead letter is kept. Defaults to 7 days; 1 s to 365 days.
    dead_letter_life: Duration = Duration::from_secs(7 * 24 * 3600);
    /// Time for which a receipt is kept after its notification was delivered or discarded, or had expired. Defaults to
    /// 1 h; 1 s to 365 days.
    receipt_life: Duration = Duration::from_secs(3600);
    /// Time for which a deduplication key is remembered after the push that queued its notification. A window shorter
    /// than a notification's time to live can let a repetition in while the first one still waits. Defaults to 1 h; 1 s
    /// to 7 days.
    deduplication_window: Duration = Duration::from_secs(3600);
    /// Number of deduplication keys of one session that are remembered at least, the newest ones. Twice as many are
    /// kept at most, at about 130 B each. Defaults to 10,000; 1 to 1,000,000.
    deduplication_keys: usize = 10_000;
    /// Set where progress, updates of resources and changes of lists replace older ones that wait for a session that no
    /// server owns ([`Notification::with_collapse_key`](crate::Notification::with_collapse_key)). Explicit keys do so
    /// in any case. Defaults to `true`.
    collapse: bool = true;
    /// Order of delivery and acknowledgement. Defaults to [`Delivery::AtLeastOnce`].
    delivery: Delivery = Delivery::AtLeastOnce;
    /// Time for which a session is remembered after the last use, while no server holds it. Its client can continue at
    /// any server within this time. Defaults to 1 h; 1 s to 30 days.
    session_time_to_live: Duration = Duration::from_secs(3600);
    /// Number of bytes of a client's `initialize` that the `rmcp` adapter keeps, in memory and in Redis. Where a client
    /// sends more, its icons, descriptions and experimental capabilities are dropped. Where the rest is still larger,
    /// `initialize` is refused. Defaults to 64 KiB; 1 KiB to 64 MiB.
    session_state_max_bytes: usize = 64 * 1024;
    /// Number of sessions that one process holds with the `rmcp` adapter. Defaults to 10,000; at least 1.
    ///
    /// A session without an open stream costs about 55 KB, most of it in rmcp's own channels. At the limit, a new
    /// session ends the one that has been idle for longest: without an open stream and without a request. Where none is
    /// idle, the new session is refused.
    session_limit: usize = 10_000;
    /// Event that makes a notification count as delivered to a client of the `rmcp` adapter. Defaults to
    /// [`DeliveryLevel::Confirmed`].
    delivery_level: DeliveryLevel = DeliveryLevel::Confirmed;
    /// Set where FastMCP 3 servers hold the sessions. Their subscriber accepts only `notifications/tasks/status` with
    /// `taskId`, `status`, `createdAt`, `lastUpdatedAt` and a `ttl`. Any other notification would be dropped there, so
    /// its push is refused. Defaults to `false`.
    fastmcp_servers: bool = false;
    /// Number of dedicated subscribers that one process may run. Each has an arbiter (a thread) and a Redis connection
    /// of its own. Further subscribers are shared. A parked subscriber, whose client has no open stream, has neither
    /// and does not count. Defaults to 64; up to 30,000. With 0 all subscribers are shared.
    dedicated_limit: usize = 64;
    /// Number of shared subscribers that one process may run. They share one arbiter per core, and the connections of
    /// that arbiter. Further subscribers are refused. A parked subscriber does not count. A session whose code blocks
    /// its thread delays all sessions of the same arbiter. Defaults to 100,000; up to 1,000,000. With 0 all subscribers
    /// are dedicated.
    shared_limit: usize = 100_000;
}

impl Config {
    /// Returns the time for which a lease lasts without a renewal: two heartbeats.
    pub fn lease(&self) -> Duration {
        self.heartbeat * 2
    }

    /// Returns the keys of sealed payloads, if this process has any.
    pub(crate) fn sealing_keys(&self) -> Option<&SealingKeys> {
        self.sealing.as_ref()
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { initial: self.backoff_initial, max: self.backoff_max }
    }
}

#[cfg(feature = "seal")]
impl Config {
    /// Returns the keys by which payloads are sealed and opened, if there are any.
    pub fn sealing(&self) -> Option<&SealingKeys> {
        self.sealing.as_ref()
    }
}

#[cfg(feature = "seal")]
impl ConfigBuilder {
    /// Sets the keys by which payloads are sealed before they go to Redis, and opened where they come back. Defaults to
    /// none: payloads are plain. Needs the feature `seal`.
    ///
    /// Sizes and their limits count the sealed form, which is a third larger than the payload and has about 150 bytes
    /// more. Keys that seal cannot be combined with [`fastmcp_servers`](Self::fastmcp_servers), as FastMCP opens
    /// nothing.
    pub fn sealing(mut self, keys: SealingKeys) -> Self {
        self.0.sealing = Some(keys);
        self
    }
}
