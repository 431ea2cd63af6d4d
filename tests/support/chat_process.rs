//! The examples as processes of their own.
#![allow(dead_code)] // each test file uses a part of it

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// An example's binary. `cargo test` builds the examples, but `cargo test --test chat` does not, and would try old ones.
pub(crate) fn example(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    // target/<profile>/deps/<this test> -> target/<profile>
    let built = BUILT.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let dir = test.parent().and_then(Path::parent).unwrap();
        // Without cargo, in a copied directory, what is there is all there is.
        if let Some(cargo) = std::env::var_os("CARGO") {
            let profile = dir.file_name().filter(|name| *name != "debug").unwrap_or(OsStr::new("dev"));
            let mut build = std::process::Command::new(cargo);
            build.args(["build", "--quiet", "--examples", "--target-dir"]).arg(dir.parent().unwrap());
            build.arg("--profile").arg(profile).current_dir(env!("CARGO_MANIFEST_DIR"));
            // A test may run under another clock; the compiler stops where libfaketime is loaded into it.
            build.env_remove("LD_PRELOAD");
            assert!(build.status().unwrap().success(), "the examples cannot be built");
        }
        dir.join("examples")
    });
    built.join(name)
}

/// A chat server. It is killed when dropped.
#[derive(Debug)]
pub(crate) struct ChatProcess {
    child: Child,
    pub(crate) url: String,
}

impl ChatProcess {
    /// Starts one on a free port and waits until it is ready.
    pub(crate) async fn start(args: &[&str]) -> Self {
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

    /// Returns the port on which it listens.
    pub(crate) fn port(&self) -> u16 {
        let (_, rest) = self.url.rsplit_once(':').unwrap();
        rest.split('/').next().unwrap().parse().unwrap()
    }

    /// SIGKILL: it cannot do anything any more.
    pub(crate) async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and how it ends.
    pub(crate) async fn terminate(&mut self) -> ExitStatus {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
        tokio::time::timeout(Duration::from_secs(20), self.child.wait()).await.expect("it ends in time").unwrap()
    }
}

/// Runs a worker to its end.
pub(crate) async fn worker(args: &[&str]) -> Output {
    Command::new(example("worker")).args(args).output().await.unwrap()
}
