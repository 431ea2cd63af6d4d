//! Examples and binaries of the repository as processes of their own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::sync::OnceLock;

use crate::child::Child;

/// Returns the path of an example's binary, and builds the examples first: `cargo test --test fleet` does not build
/// them.
///
/// # Panics
/// Where the examples do not build.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    built().join("examples").join(name)
}

/// Returns the path of the binary `chaos`, and builds it first.
///
/// # Panics
/// Where it does not build.
#[must_use]
pub fn chaos() -> PathBuf {
    built().join("chaos")
}

/// Builds the examples and binaries of both packages once, and returns their directory.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    // target/<profile>/deps/<this test> -> target/<profile>
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let dir = test.parent().and_then(Path::parent).unwrap();
        // In a copied directory without cargo, the binaries are those that were copied.
        if let Some(cargo) = std::env::var_os("CARGO") {
            let profile = dir.file_name().filter(|name| *name != "debug").unwrap_or(OsStr::new("dev"));
            let mut build = Command::new(cargo);
            build.args(["build", "--quiet", "--workspace", "--examples", "--bins", "--target-dir"]);
            build.arg(dir.parent().unwrap()).arg("--profile").arg(profile);
            build.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
            // A test may run under another clock; the compiler stops where libfaketime is loaded into it.
            build.env_remove("LD_PRELOAD");
            assert!(build.status().unwrap().success(), "the examples cannot be built");
        }
        dir.to_owned()
    })
}

/// Process of the example `chat`. The process is killed when this is dropped.
#[derive(Debug)]
pub struct ChatProcess {
    child: Child,
    /// URL of the MCP endpoint.
    pub url: String,
}

impl ChatProcess {
    /// Starts a chat server on a free port, and waits until it is ready.
    pub async fn start(args: &[&str]) -> Self {
        Self::start_program(&example("chat"), args).await
    }

    /// Starts this program as [`start`](Self::start) starts the example.
    pub async fn start_program(program: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        let mut child = Child::start(command.args(["--listen", "127.0.0.1:0"]).args(args)).unwrap();
        let url = child.said("listening on ").await;
        Self { child, url }
    }

    /// Returns the port on which the server listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        let (_, rest) = self.url.rsplit_once(':').unwrap();
        rest.split('/').next().unwrap().parse().unwrap()
    }

    /// Kills the process, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Sends a signal, such as `-TERM`.
    pub fn signal(&self, signal: &str) {
        self.child.signal(signal);
    }

    /// Waits for the end of the process, and returns its status.
    pub async fn ended(&mut self) -> ExitStatus {
        self.child.ended().await
    }

    /// Sends SIGTERM, and returns the status with which the process ends.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.child.terminate().await
    }
}

/// Runs an example to its end, with the queue at this URL.
pub async fn run(name: &str, queue: &str, args: &[&str]) -> Output {
    tokio::process::Command::new(example(name)).args(args).env("REDIS_URL", queue).output().await.unwrap()
}
