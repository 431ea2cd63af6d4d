//! Settings, from the least to the most important source: defaults, a file in TOML, the environment, the arguments.

use std::time::Duration;

use figment::Figment;
use figment::error::Kind;
use figment::providers::{Env, Format, Serialized, Toml};
use mcp_courier::{Config, ConfigError, Publisher, SealingKey, SealingKeys};
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::arguments::Common;

/// File that is read where no other is named and this one exists.
const FILE: &str = "mcp-courier.toml";

/// Beginning of the environment's names: `MCP_COURIER_URL` is the setting `url`.
const ENVIRONMENT: &str = "MCP_COURIER_";

/// Settings of the tool. The names in the file are those of the fields; all but `url` are settings of
/// [`Config`], which documents them. Keep them equal to those of the fleet's workers.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    /// URL of the queue.
    pub(crate) url: String,
    /// Prefix of the keys in Redis.
    pub(crate) prefix: String,
    /// Set where FastMCP 3 servers hold the sessions.
    fastmcp_servers: bool,
    /// Time for which a pushed notification may wait, such as `5m`.
    time_to_live: String,
    /// Time for which a receipt is kept after its outcome.
    receipt_life: String,
    /// Time for which a dead letter is kept.
    dead_letter_life: String,
    /// Number of bytes that one notification may have.
    message_max_bytes: usize,
    /// Number of notifications that may wait for one session.
    queue_max_messages: usize,
    /// Number of bytes that may wait for one session.
    queue_max_bytes: usize,
    /// Key that seals what is pushed, and opens: `ID:KEY`, with the key in base64. Empty where nothing is sealed.
    sealing_key: String,
    /// Further keys that open, each as `ID:KEY`.
    opening_keys: Vec<String>,
}

/// Shows nothing, as the URL may have a password and the keys are secrets.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        let config = Config::default();
        let time = |time: Duration| humantime::format_duration(time).to_string();
        Self {
            url: "redis://127.0.0.1/".to_owned(),
            prefix: config.prefix().to_owned(),
            fastmcp_servers: config.fastmcp_servers(),
            time_to_live: time(config.time_to_live()),
            receipt_life: time(config.receipt_life()),
            dead_letter_life: time(config.dead_letter_life()),
            message_max_bytes: config.message_max_bytes(),
            queue_max_messages: config.queue_max_messages(),
            queue_max_bytes: config.queue_max_bytes(),
            sealing_key: String::new(),
            opening_keys: Vec::new(),
        }
    }
}

impl Settings {
    /// Reads all sources.
    ///
    /// # Errors
    /// The first setting that is unknown or has a wrong type, with its source, or a file that is missing.
    pub(crate) fn read(common: &Common) -> Result<Self, Failure> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        figment = match &common.config {
            Some(file) if !file.is_file() => {
                return Err(format!("the settings file {} does not exist", file.display()).into());
            }
            Some(file) => figment.merge(Toml::file_exact(file)),
            None => figment.merge(Toml::file(FILE)),
        };
        figment = figment.merge(Env::prefixed(ENVIRONMENT).ignore(&["config"]));
        for (name, value) in [("url", &common.url), ("prefix", &common.prefix)] {
            if let Some(value) = value {
                figment = figment.merge(Serialized::default(name, value));
            }
        }
        Ok(figment.extract().map_err(refused)?)
    }

    /// Returns the settings of the library.
    ///
    /// # Errors
    /// A time that cannot be read, or a value that the library refuses, with the rule.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let time = |name: &str, text: &str| {
            humantime::parse_duration(text).map_err(|error| format!("{name} is {text:?}, which is no time: {error}"))
        };
        let config = Config::builder()
            .prefix(&self.prefix)
            .fastmcp_servers(self.fastmcp_servers)
            .time_to_live(time("time_to_live", &self.time_to_live)?)
            .receipt_life(time("receipt_life", &self.receipt_life)?)
            .dead_letter_life(time("dead_letter_life", &self.dead_letter_life)?)
            .message_max_bytes(self.message_max_bytes)
            .queue_max_messages(self.queue_max_messages)
            .queue_max_bytes(self.queue_max_bytes);
        let config = match self.sealing()? {
            Some(keys) => config.sealing(keys),
            None => config,
        };
        Ok(config.build().map_err(|error: ConfigError| error.to_string())?)
    }

    /// Returns the keys; `None` where there are none.
    fn sealing(&self) -> Result<Option<SealingKeys>, Failure> {
        let read = |name: &str, text: &str| -> Result<(String, SealingKey), Failure> {
            let (id, key) =
                text.split_once(':').ok_or_else(|| format!("{name} must be ID:KEY, with the key in base64"))?;
            let key = SealingKey::from_base64(key).map_err(|error| format!("{name}: {error}"))?;
            Ok((id.to_owned(), key))
        };
        let mut keys = match &*self.sealing_key {
            "" => None,
            text => {
                let (id, key) = read("sealing_key", text)?;
                Some(SealingKeys::sealing(id, key)?)
            }
        };
        for text in &self.opening_keys {
            let (id, key) = read("opening_keys", text)?;
            keys = Some(match keys {
                Some(keys) => keys.may_open(id, key)?,
                None => SealingKeys::opening(id, key)?,
            });
        }
        Ok(keys)
    }

    /// Connects to the queue.
    pub(crate) async fn connect(&self) -> Result<Publisher, Failure> {
        Ok(Publisher::connect(&self.url, self.config()?).await?)
    }
}

/// Returns the text of an error without the value that it quotes, which may be a URL with a password or a key.
fn refused(error: figment::Error) -> String {
    let without_value = |mut error: figment::Error| {
        error.kind = match error.kind {
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => {
                Kind::Message(format!("a value that must be {expected}"))
            }
            Kind::Message(text) => Kind::Message(without_source(&text)),
            other => other,
        };
        error.to_string()
    };
    error.into_iter().map(without_value).collect::<Vec<_>>().join("; ")
}

/// Leaves out the line of the file that an error of TOML shows: a line with its number and a bar, and bars alone around it.
fn without_source(text: &str) -> String {
    let is_source = |line: &&str| line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ').starts_with('|');
    text.lines().filter(|line| !is_source(line)).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn common() -> Common {
        Common { url: None, prefix: None, config: None, json: false }
    }

    #[test]
    fn the_defaults_are_those_of_the_library() {
        assert_eq!(Settings::default().config().unwrap(), Config::default());
    }

    #[test]
    fn arguments_go_before_the_file_and_the_file_before_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("settings.toml");
        std::fs::write(&file, "url = \"redis://file/\"\nprefix = \"file\"\ntime_to_live = \"2h\"\n").unwrap();
        let common = Common { config: Some(file.clone()), prefix: Some("argument".to_owned()), ..common() };
        let settings = Settings::read(&common).unwrap();
        assert_eq!((&*settings.url, &*settings.prefix), ("redis://file/", "argument"));
        assert_eq!(settings.config().unwrap().time_to_live(), Duration::from_secs(7200));

        for (wrong, rule) in
            [("urL = \"x\"", "urL"), ("queue_max_messages = \"many\"", "queue_max_messages"), ("[[", "TOML")]
        {
            std::fs::write(&file, wrong).unwrap();
            let error = Settings::read(&common).unwrap_err().to_string();
            assert!(error.contains(rule) && error.contains("settings.toml"), "{wrong}: {error}");
        }
        for (wrong, rule) in [("time_to_live = \"soon\"", "time_to_live"), ("prefix = \"a{b\"", "prefix")] {
            std::fs::write(&file, wrong).unwrap();
            let common = Common { prefix: None, ..common_of(&file) };
            let error = Settings::read(&common).unwrap().config().unwrap_err().to_string();
            assert!(error.contains(rule), "{wrong}: {error}");
        }
        let zeros = "A".repeat(43) + "=";
        std::fs::write(&file, format!("sealing_key = \"a:{zeros}\"\nopening_keys = [\"b:{zeros}\"]")).unwrap();
        let keys = Settings::read(&common_of(&file)).unwrap().config().unwrap();
        let keys = keys.sealing().expect("keys");
        assert_eq!((keys.primary(), keys.ids().count()), (Some("a"), 2));
        for wrong in ["sealing_key = \"secret\"", "opening_keys = [\"a:secret\"]"] {
            std::fs::write(&file, wrong).unwrap();
            let error = Settings::read(&common_of(&file)).unwrap().config().unwrap_err().to_string();
            assert!(error.contains("key") && !error.contains("secret"), "{error}");
        }
        for (wrong, why) in [
            ("url = redis://op:S3CRET@10.0.0.7/", "line 1"),
            ("sealing_key = \"a:S3CRET", "line 1"),
            ("prefix = \"p\"\n\nurl = \"redis://a\"\nurl = \"redis://:S3CRET@h\"", "duplicate key"),
            ("url = \"\"\"\nredis://:S3CRET@h\n  | S3CRET\n", "line"),
            ("opening_keys = \"a:S3CRET\"", "a value that must be a sequence for key \"default.opening_keys\""),
            ("queue_max_messages = \"S3CRET\"", "a value that must be usize"),
        ] {
            std::fs::write(&file, wrong).unwrap();
            let error = Settings::read(&common_of(&file)).unwrap_err();
            let said = format!("{error} {error:?}");
            assert!(said.contains(why) && said.contains("settings.toml"), "{said}");
            assert!(!said.contains("S3CRET"), "{said}");
        }
        let missing = Settings::read(&common_of(&dir.path().join("missing"))).unwrap_err();
        assert!(missing.to_string().contains("does not exist"), "{missing}");
    }

    fn common_of(file: &std::path::Path) -> Common {
        Common { config: Some(file.to_owned()), ..common() }
    }
}
