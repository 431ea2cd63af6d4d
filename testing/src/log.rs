//! Log of this process, as an operator would see it.

use std::io::{self, Write};
use std::sync::Mutex;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to record the log, once for all tests of a process.
pub fn begin() {
    begin_with("info");
}

/// Begins to record the log with a filter such as `mcp_courier=trace`.
pub fn begin_with(filter: &str) {
    let _ = tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter).with_writer(|| Writer).try_init();
}

/// Returns the lines so far that contain all of these words.
pub fn lines(words: &[&str]) -> Vec<String> {
    let all = String::from_utf8_lossy(&LINES.lock().unwrap()).into_owned();
    all.lines().filter(|line| words.iter().all(|word| line.contains(word))).map(ToOwned::to_owned).collect()
}
