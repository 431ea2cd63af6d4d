//! A side of the comparison: a program with the commands of `courier.rs`, run as processes of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest time of one command.
const PATIENCE: Duration = Duration::from_secs(40);

/// Exit status of a side that has no such thing.
const REFUSED: i32 = 3;

/// Reason why a side gave no figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The package has nothing that could be compared.
    Refused,
    /// The command failed or took too long.
    Failed,
}

/// Name and program of a side.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    name: String,
    program: Vec<String>,
}

impl FromStr for Side {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, program) = text.split_once('=').ok_or("it must be NAME=PROGRAM")?;
        let program: Vec<String> = program.split_whitespace().map(str::to_owned).collect();
        if program.is_empty() { Err("it has no program") } else { Ok(Self { name: name.to_owned(), program }) }
    }
}

impl Side {
    /// Returns this crate's side, which is a part of this program.
    pub(crate) fn own(program: &Path) -> Self {
        Self { name: "mcp-courier".to_owned(), program: vec![program.display().to_string(), "side".to_owned()] }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the side at a server, for one round.
    pub(crate) fn on(&self, redis: &str) -> Running {
        let program = self.program.iter().cloned().chain(["--redis".to_owned(), redis.to_owned()]).collect();
        Running { program, directory: TempDir::new().unwrap() }
    }
}

/// A side at a server.
#[derive(Debug)]
pub(crate) struct Running {
    program: Vec<String>,
    directory: TempDir,
}

impl Running {
    /// Runs a command to its end, and returns the object that it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Value, Kind> {
        let mut child = self.command(arguments).stdout(Stdio::piped()).spawn().map_err(|_| Kind::Failed)?;
        let status = end_of(&mut child)?;
        let output = child.wait_with_output().map_err(|_| Kind::Failed)?;
        match status.code() {
            Some(0) => Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)),
            Some(REFUSED) => Err(Kind::Refused),
            _ => Err(Kind::Failed),
        }
    }

    /// Runs a command, and returns one number of the object that it printed.
    pub(crate) fn figure(&self, arguments: &[&str], field: &str) -> Result<f64, Kind> {
        self.run(arguments)?[field].as_f64().ok_or(Kind::Failed)
    }

    /// Starts a process with a consumer. Its end by SIGKILL comes with the end of the value.
    pub(crate) fn serve(&self, file: &Path, arguments: &[&str]) -> Result<Served, Kind> {
        let file = file.display().to_string();
        let arguments: Vec<&str> = ["serve", &file].into_iter().chain(arguments.iter().copied()).collect();
        let ready = self.directory.path().join("ready");
        let _ = std::fs::remove_file(&ready);
        let output = std::fs::File::create(&ready).map_err(|_| Kind::Failed)?;
        let child = self.command(&arguments).stdout(output).spawn().map_err(|_| Kind::Failed)?;
        let mut served = Served(child);
        let begun = Instant::now();
        while !std::fs::read_to_string(&ready).is_ok_and(|text| text.contains("ready")) {
            if let Ok(Some(status)) = served.0.try_wait() {
                return Err(if status.code() == Some(REFUSED) { Kind::Refused } else { Kind::Failed });
            }
            if begun.elapsed() > PATIENCE {
                return Err(Kind::Failed);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(served)
    }

    /// Returns the path of a file that a session may write to.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program[0]);
        // What goes wrong at a side is no part of the table; BENCH_ERRORS=1 shows it.
        let errors = if std::env::var_os("BENCH_ERRORS").is_some() { Stdio::inherit() } else { Stdio::null() };
        command.args(&self.program[1..]).args(arguments).stdin(Stdio::null()).stderr(errors);
        command
    }
}

/// Process of a side that runs until it is killed.
#[derive(Debug)]
pub(crate) struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn end_of(child: &mut Child) -> Result<ExitStatus, Kind> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) => std::thread::sleep(Duration::from_millis(2)),
            Err(_) => return Err(Kind::Failed),
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(Kind::Failed)
}
