//! Records of a process. A line is in its file once it is written, so a killed process leaves everything that it did.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Microseconds that never go back within a process, and are about the same in all of a machine.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    base: u64,
    begun: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        Self { base, begun: Instant::now() }
    }

    pub(crate) fn now(&self) -> u64 {
        self.base + self.begun.elapsed().as_micros() as u64
    }
}

#[derive(Debug)]
pub(crate) struct Record {
    file: File,
    pub(crate) clock: Clock,
}

impl Record {
    pub(crate) fn append(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { file, clock: Clock::new() })
    }

    /// Writes whole lines, in one call: a process that is killed leaves all of them or none.
    pub(crate) fn write(&self, lines: &str) -> std::io::Result<()> {
        (&self.file).write_all(lines.as_bytes())
    }
}

/// Returns the newest event id that a client recorded before it was killed.
pub(crate) fn last_event_id(path: &Path) -> std::io::Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.lines().rev().find_map(|line| line.strip_prefix("I ")).map(str::to_owned)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
