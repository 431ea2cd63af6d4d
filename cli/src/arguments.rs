//! Arguments of the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use mcp_courier::{NotificationId, SessionId};

/// Controls the queues of an MCP fleet that runs mcp-courier.
///
/// A session is named by its whole form, as the courier's servers pass it to workers: ID, or PRINCIPAL:ID for a session
/// that is bound to a user. Session ids are secrets: who knows one can act as its client.
#[derive(Debug, Parser)]
#[command(name = "mcp-courier", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Arguments of all commands.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// URL of the queue, such as redis://127.0.0.1/ (default), rediss://, redis+sentinel:// or unix://. A password belongs
    /// into the settings file or the environment, as other users of the machine can see arguments.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// Prefix of the fleet's keys in Redis [default: mcp-courier].
    #[arg(long, global = true, value_name = "PREFIX")]
    pub(crate) prefix: Option<String>,
    /// Settings file [default: mcp-courier.toml in this directory, where it exists].
    #[arg(long, global = true, value_name = "FILE", env = "MCP_COURIER_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Prints one JSON document instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Command with its arguments.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Lists sessions: owned by which server, stream, depth of the queue, dead letters.
    Sessions(Sessions),
    /// Lists the server processes of the fleet, with their troubles.
    Servers,
    /// Explains why a session gets nothing.
    Why(Why),
    /// Shows the oldest messages of a queue, and leaves them there.
    Peek(Peek),
    /// Removes the messages of a queue.
    Purge(Purge),
    /// Shows sessions, queues, servers and their troubles, live.
    Top(Top),
    /// Pushes a notification to a session, or to all live sessions.
    Push(Push),
    /// Asks the user of a session a question, and prints the answer.
    Ask(Ask),
    /// Lists, redrives or deletes notifications that were discarded and kept.
    #[command(subcommand)]
    Dead(Dead),
    /// Prints the receipt of a notification that was pushed with one.
    Receipt(Receipt),
    /// Examines the Redis server: what is wrong, and how to mend it.
    Doctor,
}

/// Arguments of `sessions`.
#[derive(Debug, Args)]
pub(crate) struct Sessions {
    /// Number of sessions.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub(crate) limit: usize,
    /// Lists only sessions for which notifications wait.
    #[arg(long)]
    pub(crate) waiting: bool,
    /// Lists only sessions that no server owns.
    #[arg(long)]
    pub(crate) unowned: bool,
}

/// Arguments of `why`.
#[derive(Debug, Args)]
pub(crate) struct Why {
    /// Session that gets nothing.
    pub(crate) session: SessionId,
}

/// Arguments of `peek`.
#[derive(Debug, Args)]
pub(crate) struct Peek {
    /// Session whose queue is shown.
    pub(crate) session: SessionId,
    /// Number of messages, at most 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub(crate) limit: usize,
}

/// Arguments of `purge`.
#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// Session whose queued messages are removed. Dead letters stay: see `dead purge`.
    pub(crate) session: SessionId,
}

/// Arguments of `top`.
#[derive(Debug, Args)]
pub(crate) struct Top {
    /// Time between two readings.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub(crate) interval: Duration,
    /// Prints one reading and ends, as it also does where the output is no terminal.
    #[arg(long)]
    pub(crate) once: bool,
}

/// Arguments of `push`.
#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Session that gets the notification, or `all` for every session that a server owns now.
    #[arg(value_name = "SESSION")]
    pub(crate) to: Target,
    /// Method, such as notifications/message.
    pub(crate) method: String,
    /// Params as a JSON object. Each further one is a further notification; `-` reads one from each line of the input.
    #[arg(value_name = "PARAMS")]
    pub(crate) params: Vec<String>,
    /// Time for which the notification may wait, such as 30s or 2h [default: 5m].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// Waits for so long until the client has confirmed the notification, and prints its receipt.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
}

/// Receiver of a push.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// Every session that a server owns.
    All,
    /// The session of this id.
    One(SessionId),
}

impl std::str::FromStr for Target {
    type Err = mcp_courier::InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// Arguments of `ask`.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// Session whose user is asked.
    pub(crate) session: SessionId,
    /// Question that the user reads.
    pub(crate) message: String,
    /// JSON Schema of the form: an object with properties of primitive types. Without one the user accepts or declines.
    #[arg(long, value_name = "JSON", conflicts_with = "page")]
    pub(crate) schema: Option<String>,
    /// URL of a page that the client sends its user to, instead of a form.
    #[arg(long, value_name = "URL")]
    pub(crate) page: Option<String>,
    /// Time to wait for the answer.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,
    /// Id of the task that asks. A task asks one question at a time [default: one of its own].
    #[arg(long, value_name = "ID")]
    pub(crate) task: Option<String>,
}

/// Commands of `dead`.
#[derive(Debug, Subcommand)]
pub(crate) enum Dead {
    /// Lists dead letters with their reasons, the oldest first.
    List {
        /// Session whose letters are listed [default: all that have some].
        session: Option<SessionId>,
        /// Number of letters for each session.
        #[arg(long, value_name = "NUMBER", default_value_t = 100)]
        limit: usize,
    },
    /// Queues dead letters again, the oldest first, behind the notifications that wait.
    Redrive {
        #[command(flatten)]
        of: Chosen,
        /// Id of a letter. Without one all letters are redriven.
        #[arg(long = "id", value_name = "ID")]
        ids: Vec<NotificationId>,
    },
    /// Deletes dead letters.
    Purge {
        #[command(flatten)]
        of: Chosen,
    },
}

/// Choice of one session, or of all.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Chosen {
    /// Session.
    pub(crate) session: Option<SessionId>,
    /// Every session that has dead letters.
    #[arg(long)]
    pub(crate) all: bool,
}

/// Arguments of `receipt`.
#[derive(Debug, Args)]
pub(crate) struct Receipt {
    /// Session to which the notification was pushed.
    pub(crate) session: SessionId,
    /// Id of the notification, as the push printed it.
    pub(crate) id: NotificationId,
    /// Waits for so long until the outcome is known.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_contradict_each_other_nowhere() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_is_no_session_or_id_is_refused_with_the_rule() {
        for (line, rule) in [
            ("mcp-courier receipt a/b 0", "percent-encoded"),
            ("mcp-courier receipt a 0", "UUID of 36 characters"),
            ("mcp-courier push s m {} --wait soon", "expected number"),
            ("mcp-courier dead purge", "required"),
            ("mcp-courier dead purge a --all", "cannot be used with"),
        ] {
            let error = Arguments::try_parse_from(line.split(' ')).expect_err(line).to_string();
            assert!(error.contains(rule), "{line}: {error}");
        }
    }
}
