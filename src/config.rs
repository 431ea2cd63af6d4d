//! [`Config`]: all settings, each with its default and its bounds.

use std::time::Duration;

use crate::keys::prefix_is_possible;
use crate::notification::time_to_live_is_possible;
use crate::retry::Backoff;

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

impl ConfigBuilder {
    /// Checks each setting, and the combinations of settings.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting, its value and the rule.
    pub fn build(self) -> Result<Config, ConfigError> {
        let c = self.0;
        if !prefix_is_possible(&c.prefix) {
            let rule = "it must not be empty, and have no braces or one hash tag like {tag}";
            return Err(ConfigError::new("prefix", format!("{:?}", c.prefix), rule));
        }
        if !time_to_live_is_possible(c.time_to_live) {
            return refused("time_to_live", c.time_to_live, "it must be 1 ms to 365 days");
        }
        if c.expiry_grace > Duration::from_secs(24 * 3600) {
            return refused("expiry_grace", c.expiry_grace, "it must be at most 1 day");
        }
        if !(1..=1000).contains(&c.max_attempts) {
            return refused("max_attempts", c.max_attempts, "it must be 1 to 1000");
        }
        if c.backoff_initial < Duration::from_millis(1) {
            return refused("backoff_initial", c.backoff_initial, "it must be at least 1 ms");
        }
        if c.backoff_max < c.backoff_initial {
            let rule = format!("it must be at least backoff_initial, {:?}", c.backoff_initial);
            return refused("backoff_max", c.backoff_max, rule);
        }
        if c.backoff_max > Duration::from_secs(3600) {
            return refused("backoff_max", c.backoff_max, "it must be at most 1 h");
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&c.heartbeat) {
            return refused("heartbeat", c.heartbeat, "it must be 100 ms to 1 h");
        }
        if !(1..=1000).contains(&c.batch_messages) {
            return refused("batch_messages", c.batch_messages, "it must be 1 to 1000");
        }
        if c.batch_bytes == 0 {
            return refused("batch_bytes", c.batch_bytes, "it must be at least 1");
        }
        if !(1..=10_000).contains(&c.window_messages) {
            return refused("window_messages", c.window_messages, "it must be 1 to 10,000");
        }
        if c.window_bytes == 0 {
            return refused("window_bytes", c.window_bytes, "it must be at least 1");
        }
        if c.queue_max_messages == 0 {
            return refused("queue_max_messages", c.queue_max_messages, "it must be at least 1");
        }
        if !(512..=64 * 1024 * 1024).contains(&c.message_max_bytes) {
            return refused("message_max_bytes", c.message_max_bytes, "it must be 512 B to 64 MiB");
        }
        if c.queue_max_bytes < c.message_max_bytes {
            let rule = format!("it must be at least message_max_bytes, {}", c.message_max_bytes);
            return refused("queue_max_bytes", c.queue_max_bytes, rule);
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&c.hand_over_timeout) {
            return refused("hand_over_timeout", c.hand_over_timeout, "it must be 10 ms to 1 h");
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600)).contains(&c.session_time_to_live) {
            return refused("session_time_to_live", c.session_time_to_live, "it must be 1 s to 30 days");
        }
        if !(1024..=64 * 1024 * 1024).contains(&c.session_state_max_bytes) {
            return refused("session_state_max_bytes", c.session_state_max_bytes, "it must be 1 KiB to 64 MiB");
        }
        if c.session_limit == 0 {
            return refused("session_limit", c.session_limit, "it must be at least 1");
        }
        if c.dead_letters > 100_000 {
            return refused("dead_letters", c.dead_letters, "it must be at most 100,000");
        }
        for (name, life) in [("dead_letter_life", c.dead_letter_life), ("receipt_life", c.receipt_life)] {
            if !(Duration::from_secs(1)..=Duration::from_secs(365 * 24 * 3600)).contains(&life) {
                return refused(name, life, "it must be 1 s to 365 days");
            }
        }
        if !(Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600)).contains(&c.deduplication_window) {
            return refused("deduplication_window", c.deduplication_window, "it must be 1 s to 7 days");
        }
        if !(1..=1_000_000).contains(&c.deduplication_keys) {
            return refused("deduplication_keys", c.deduplication_keys, "it must be 1 to 1,000,000");
        }
        if c.dedicated_limit > 30_000 {
            return refused("dedicated_limit", c.dedicated_limit, "it must be at most 30,000");
        }
        if c.shared_limit > 1_000_000 {
            return refused("shared_limit", c.shared_limit, "it must be at most 1,000,000");
        }
        if c.dedicated_limit == 0 && c.shared_limit == 0 {
            return refused("shared_limit", c.shared_limit, "it must be at least 1 where dedicated_limit is 0");
        }
        Ok(c)
    }
}

fn refused(field: &'static str, value: impl std::fmt::Debug, rule: impl ToString) -> Result<Config, ConfigError> {
    Err(ConfigError::new(field, format!("{value:?}"), rule))
}

impl Config {
    /// Returns the time for which a lease lasts without a renewal: two heartbeats.
    pub fn lease(&self) -> Duration {
        self.heartbeat * 2
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { initial: self.backoff_initial, max: self.backoff_max }
    }
}

/// Rejection of a setting, or of a combination of settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}, but {rule}")]
#[non_exhaustive]
pub struct ConfigError {
    /// Name of the setting.
    pub field: &'static str,
    /// Value that was set.
    pub value: String,
    /// Rule that the value breaks.
    pub rule: String,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, value: impl ToString, rule: impl ToString) -> Self {
        Self { field, value: value.to_string(), rule: rule.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_possible() {
        assert_eq!(Config::builder().build(), Ok(Config::default()));
        for (seconds, keys) in [(1, 1), (7 * 24 * 3600, 1_000_000)] {
            let builder = Config::builder().deduplication_window(Duration::from_secs(seconds));
            assert!(builder.deduplication_keys(keys).build().is_ok());
        }
    }

    #[test]
    fn what_is_impossible_is_named_with_its_rule() {
        let seconds = Duration::from_secs;
        let wrong = [
            (Config::builder().prefix("a{b"), "prefix"),
            (Config::builder().time_to_live(seconds(0)), "time_to_live"),
            (Config::builder().expiry_grace(seconds(100_000)), "expiry_grace"),
            (Config::builder().max_attempts(0), "max_attempts"),
            (Config::builder().backoff_initial(seconds(0)), "backoff_initial"),
            (Config::builder().backoff_max(Duration::from_millis(99)), "backoff_max"),
            (Config::builder().backoff_max(seconds(3601)), "backoff_max"),
            (Config::builder().heartbeat(seconds(0)), "heartbeat"),
            (Config::builder().batch_messages(1001), "batch_messages"),
            (Config::builder().batch_bytes(0), "batch_bytes"),
            (Config::builder().queue_max_messages(0), "queue_max_messages"),
            (Config::builder().queue_max_bytes(1000), "queue_max_bytes"),
            (Config::builder().message_max_bytes(1), "message_max_bytes"),
            (Config::builder().hand_over_timeout(seconds(0)), "hand_over_timeout"),
            (Config::builder().session_time_to_live(seconds(0)), "session_time_to_live"),
            (Config::builder().session_state_max_bytes(100), "session_state_max_bytes"),
            (Config::builder().session_limit(0), "session_limit"),
            (Config::builder().dead_letters(100_001), "dead_letters"),
            (Config::builder().dead_letter_life(seconds(0)), "dead_letter_life"),
            (Config::builder().receipt_life(seconds(366 * 24 * 3600)), "receipt_life"),
            (Config::builder().deduplication_window(Duration::from_millis(999)), "deduplication_window"),
            (Config::builder().deduplication_window(seconds(7 * 24 * 3600 + 1)), "deduplication_window"),
            (Config::builder().deduplication_keys(0), "deduplication_keys"),
            (Config::builder().deduplication_keys(1_000_001), "deduplication_keys"),
            (Config::builder().dedicated_limit(30_001), "dedicated_limit"),
            (Config::builder().shared_limit(1_000_001), "shared_limit"),
            (Config::builder().dedicated_limit(0).shared_limit(0), "shared_limit"),
        ];
        for (builder, field) in wrong {
            assert_eq!(builder.build().unwrap_err().field, field);
        }
    }
}
