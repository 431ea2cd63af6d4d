//! Commands, a file each.

mod ask;
mod dead;
mod doctor;
mod peek;
mod push;
mod receipt;
pub(crate) mod servers;
pub(crate) mod sessions;
mod why;

use std::fmt;

use crate::Failure;
use crate::arguments::Command;
use crate::settings::Settings;
use crate::top;

/// Answer of a command that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, and as the caller hoped.
    Yes,
    /// Done, and not as the caller hoped.
    No,
}

impl From<bool> for Outcome {
    fn from(is_yes: bool) -> Self {
        if is_yes { Self::Yes } else { Self::No }
    }
}

/// Argument that only the command itself can check.
#[derive(Debug)]
pub(crate) struct BadArgument(String);

impl BadArgument {
    fn of(argument: &str, error: impl fmt::Display) -> Failure {
        Box::new(Self(format!("{argument}: {error}")))
    }
}

impl fmt::Display for BadArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadArgument {}

/// Runs a command.
///
/// # Errors
/// An operation failed, or an argument cannot be used.
pub(crate) async fn run(command: Command, settings: &Settings, is_json: bool) -> Result<Outcome, Failure> {
    match command {
        Command::Push(arguments) => push::run(arguments, settings, is_json).await,
        Command::Ask(arguments) => ask::run(arguments, settings, is_json).await,
        Command::Dead(command) => dead::run(command, settings, is_json).await,
        Command::Receipt(arguments) => receipt::run(arguments, settings, is_json).await,
        Command::Sessions(arguments) => sessions::run(arguments, settings, is_json).await,
        Command::Servers => servers::run(settings, is_json).await,
        Command::Peek(arguments) => peek::run(arguments, settings, is_json).await,
        Command::Purge(arguments) => peek::purge(arguments, settings, is_json).await,
        Command::Why(arguments) => why::run(arguments, settings, is_json).await,
        Command::Top(arguments) => top::run(arguments, settings, is_json).await,
        Command::Doctor => doctor::run(settings, is_json).await,
    }
}
