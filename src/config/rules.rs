//! Rules of the settings: the bounds of each, and the combinations that are refused.

use std::time::Duration;

use super::{Config, ConfigBuilder};
use crate::keys::prefix_is_possible;
use crate::notification::time_to_live_is_possible;

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
        check_sealing(&c)?;
        Ok(c)
    }
}

/// Checks the keys of sealed payloads against the other settings.
fn check_sealing(c: &Config) -> Result<(), ConfigError> {
    let Some(keys) = c.sealing_keys() else { return Ok(()) };
    let refused = |rule| Err(ConfigError::new("sealing", format!("{keys:?}"), rule));
    match keys.primary() {
        Some(_) if c.fastmcp_servers() => {
            refused("it must not seal where fastmcp_servers is set, as FastMCP's servers open nothing")
        }
        None if keys.is_required() => refused("what is required to be sealed must have a key that seals"),
        _ => Ok(()),
    }
}

fn refused(field: &'static str, value: impl std::fmt::Debug, rule: impl ToString) -> Result<Config, ConfigError> {
    Err(ConfigError::new(field, format!("{value:?}"), rule))
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
