//! [`Part`]: a process of this program, which is asked by lines of JSON.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::support::process::Process;

/// A process that this one has started. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Part {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Part {
    pub(super) fn start(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child =
            Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Returns the next thing that the process says.
    ///
    /// # Panics
    /// Panics where the process has ended.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("a part of the benchmark said {line:?}: {error}"))
    }

    /// Asks the process for something, without waiting for the answer.
    pub(super) fn write(&mut self, ask: &impl Serialize) {
        let line = serde_json::to_string(ask).unwrap();
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    pub(super) fn ask<T: DeserializeOwned>(&mut self, ask: &impl Serialize) -> T {
        self.write(ask);
        self.read()
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn process(&self) -> Process {
        Process::of(self.id())
    }

    /// Kills the process at once, as a crash would.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}
