//! `mcp-courier`: control tool for the queues of an MCP fleet. See `README.md` for each command.
//!
//! *Exit codes*: 0 done; 1 an operation failed; 2 wrong arguments or settings; 3 done, and the answer is no: not delivered
//! in time, not accepted, something wrong with the server, a session that gets nothing.

mod arguments;
mod commands;
mod output;
mod settings;
mod top;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use self::arguments::Arguments;
use self::commands::Outcome;
use self::settings::Settings;

/// Exit code of wrong arguments or settings. clap has the same.
const USAGE: u8 = 2;

/// Exit code of a command that was done and whose answer is no.
const NO: u8 = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| without_values(error).exit());
    let settings = match Settings::read(&arguments.common) {
        Ok(settings) => settings,
        Err(error) => {
            output::error(&*error);
            return USAGE.into();
        }
    };
    let is_json = arguments.common.json;
    let run = commands::run(arguments.command, &settings, is_json);
    // An interrupted command is dropped, and so withdraws a question that it asks.
    let outcome = tokio::select! {
        outcome = run => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    match outcome {
        Ok(Outcome::Yes) => ExitCode::SUCCESS,
        Ok(Outcome::No) => NO.into(),
        Err(error) => {
            output::error(&*error);
            let is_usage = error.downcast_ref::<commands::BadArgument>().is_some();
            if is_usage { USAGE.into() } else { ExitCode::FAILURE }
        }
    }
}

/// Hides what clap quotes in its messages, because the URL of a queue or the id of a session may stand in a wrong place. A
/// plain word stays, such as a mistyped command.
fn without_values(mut error: clap::Error) -> clap::Error {
    let is_word = |text: &str| text.len() <= 20 && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    let mut hidden = vec![ContextKind::InvalidValue, ContextKind::InvalidSubcommand];
    if error.kind() == ErrorKind::UnknownArgument {
        hidden.push(ContextKind::InvalidArg);
    }
    // The advice repeats an argument that begins with a hyphen.
    error.remove(ContextKind::Suggested);
    for kind in hidden {
        let is_shown = |value: &ContextValue| matches!(value, ContextValue::String(text) if is_word(text));
        if error.get(kind).is_some_and(|value| !is_shown(value)) {
            error.insert(kind, ContextValue::String("…".to_owned()));
        }
    }
    error
}

/// Failure of a command, for its user.
type Failure = Box<dyn Error + Send + Sync>;
