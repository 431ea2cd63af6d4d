//! [`Part`]: a process of this program, which is asked by lines of JSON.

use std::process::Command;

use mcp_courier_testing::child::Child;
use mcp_courier_testing::process::Process;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A process that this one has started. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Part(Child);

impl Part {
    pub(super) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        Self(Child::start(command.arg("web-part").args(arguments)).unwrap())
    }

    /// Returns the next thing that the process says.
    ///
    /// # Panics
    /// Panics where the process has ended.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> T {
        let line = self.0.next_line().unwrap_or_default();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("a part of the benchmark said {line:?}: {error}"))
    }

    /// Asks the process for something, without waiting for the answer.
    pub(super) fn write(&mut self, ask: &impl Serialize) {
        self.0.write_line(&serde_json::to_string(ask).unwrap()).unwrap();
    }

    pub(super) fn ask<T: DeserializeOwned>(&mut self, ask: &impl Serialize) -> T {
        self.write(ask);
        self.read()
    }

    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn process(&self) -> Process {
        Process::of(self.id())
    }

    /// Kills the process at once, as a crash would.
    pub(super) fn kill(&mut self) {
        self.0.kill();
    }
}
