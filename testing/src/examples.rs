//! Examples of the repository as processes of their own.
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Returns the path of an example's binary, and builds the examples first: `cargo test --test fleet` does not build
/// them.
///
/// # Panics
/// Where the examples do not build.
pub fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    // target/<profile>/deps/<this test> -> target/<profile>
    let built = BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let dir = test.parent().and_then(Path::parent).unwrap();
        // In a copied directory without cargo, the binaries are those that were copied.
        if let Some(cargo) = std::env::var_os("CARGO") {
            let profile = dir.file_name().filter(|name| *name != "debug").unwrap_or(OsStr::new("dev"));
            let mut build = std::process::Command::new(cargo);
            build.args(["build", "--quiet", "--examples", "--target-dir"]).arg(dir.parent().unwrap());
            build.arg("--profile").arg(profile).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
            // A test may run under another clock; the compiler stops where libfaketime is loaded into it.
            build.env_remove("LD_PRELOAD");
            assert!(build.status().unwrap().success(), "the examples cannot be built");
        }
        dir.join("examples")
    });
    built.join(name)
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
        let mut child = Command::new(example("chat"))
            .args(["--listen", "127.0.0.1:0"])
            .args(args)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let read = tokio::time::timeout(Duration::from_secs(20), stdout.read_line(&mut line));
        read.await.expect("ready in time").unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("it said {line:?}"));
        Self { url: url.to_owned(), child }
    }

    /// Returns the port on which the server listens.
    pub fn port(&self) -> u16 {
        let (_, rest) = self.url.rsplit_once(':').unwrap();
        rest.split('/').next().unwrap().parse().unwrap()
    }

    /// Kills the process, which cannot do anything about it.
    pub async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends SIGTERM, and returns the status with which the process ends.
    pub async fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await.expect("it ends in time").unwrap()
    }
}

/// Runs the example `worker` to its end.
pub async fn worker(args: &[&str]) -> Output {
    Command::new(example("worker")).args(args).output().await.unwrap()
}
