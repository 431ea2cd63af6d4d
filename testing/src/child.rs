//! Child processes: programs of a test's own binary, examples, roles of chaos, and parts of a benchmark.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Time limit of a line, or of an end, that must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks at a process.
const PAUSE: Duration = Duration::from_millis(2);

/// Returns the command of an ignored test that is the program of a child, and no test. `module` is the program's `module_path!()`.
#[must_use]
pub fn program(module: &str, name: &str) -> Command {
    let (_, module) = module.split_once("::").expect("a module of a test binary");
    let mut command = Command::new(std::env::current_exe().expect("the binary of the tests"));
    command.args(["--ignored", "--exact", &format!("{module}::{name}"), "--nocapture"]).stderr(Stdio::null());
    command
}

/// Process that is written to and read from by lines. Dropping this kills the process.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    lines: UnboundedReceiver<String>,
    is_killed_at_drop: bool,
}

impl Child {
    /// Starts a process.
    ///
    /// # Errors
    /// Where the program cannot be started.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, lines) = unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The process must not wait for a reader that is gone.
                let _ = sender.send(line);
            }
        });
        Ok(Self { child, lines, is_killed_at_drop: true })
    }

    /// Lets the process end by the end of its input, and not by a kill, when this is dropped.
    #[must_use]
    pub fn ending_with_its_input(self) -> Self {
        let mut child = self;
        child.is_killed_at_drop = false;
        child
    }

    /// Returns the id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to the input of the process.
    ///
    /// # Errors
    /// Where the process has ended, or its input was closed.
    pub fn write_line(&mut self, line: &str) -> io::Result<()> {
        let input = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "{line}")?;
        input.flush()
    }

    /// Closes the input of the process.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for the next line of the output, however long, and blocks the thread. Returns `None` at the end of the output.
    pub fn next_line(&mut self) -> Option<String> {
        loop {
            // Also on a thread that runs a runtime, where a blocking receive panics.
            match self.lines.try_recv() {
                Ok(line) => return Some(line),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) => std::thread::sleep(PAUSE / 10),
            }
        }
    }

    /// Waits for the next line of the output. Returns `None` at the end of the output.
    ///
    /// # Panics
    /// Where no line comes in time.
    pub async fn line(&mut self) -> Option<String> {
        let line = tokio::time::timeout(PATIENCE, self.lines.recv()).await;
        line.unwrap_or_else(|_| panic!("process {} said nothing in {PATIENCE:?}", self.id()))
    }

    /// Takes the output away, for a task of its own. This child says nothing more then.
    pub fn take_lines(&mut self) -> UnboundedReceiver<String> {
        std::mem::replace(&mut self.lines, unbounded_channel().1)
    }

    /// Waits for a line that contains a mark, and returns the text behind the mark.
    ///
    /// # Panics
    /// Where no such line comes in time.
    pub async fn said(&mut self, mark: &str) -> String {
        while let Some(line) = self.line().await {
            // The name of a test may stand before the mark: libtest ends that line after the test.
            if let Some((_, rest)) = line.split_once(mark) {
                return rest.to_owned();
            }
        }
        panic!("process {} ended and did not say {mark:?}", self.id())
    }

    /// Returns the lines of the output that are there already.
    pub fn lines_so_far(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.lines.try_recv().ok()).collect()
    }

    /// Returns the lines that are left of the output, up to its end.
    pub fn rest(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next_line()).collect()
    }

    /// Sends a signal, such as `-STOP`.
    ///
    /// # Panics
    /// Where the process has ended.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.id().to_string()]).status().expect("kill");
        assert!(status.success(), "no {signal} for process {}", self.id());
    }

    /// Returns whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the process, as a crash would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the end of the process, and returns its status.
    ///
    /// # Panics
    /// Where the process does not end in time.
    pub async fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "process {} did not end in time", self.id());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends SIGTERM, waits for the end of the process, and returns its status.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal("-TERM");
        self.ended().await
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.is_killed_at_drop {
            self.kill();
        }
    }
}
