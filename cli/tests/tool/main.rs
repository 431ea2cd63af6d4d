//! The control tool as a process, against a real `redis-server`.

mod doctor;
mod operators;
mod queues;

use std::process::Stdio;

use mcp_courier_testing::redis_server::RedisServer;
use serde_json::Value;

/// Result of one run of the tool.
struct Run {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Run {
    /// Returns the document that the tool printed.
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// Returns the document where the tool ended with this code; `None` otherwise.
    fn json_at(&self, code: i32) -> Option<Value> {
        (self.code == Some(code)).then(|| self.json())
    }

    fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self
    }
}

/// Runs the tool with these arguments and this input, without the environment's settings.
async fn run_with(input: &str, arguments: &[&str]) -> Run {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mcp-courier"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MCP_COURIER_")) {
        command.env_remove(name);
    }
    let mut child = command.spawn().expect("the tool");
    let mut pipe = child.stdin.take().expect("a pipe");
    tokio::io::AsyncWriteExt::write_all(&mut pipe, input.as_bytes()).await.expect("the input is read");
    drop(pipe);
    let output = child.wait_with_output().await.expect("the tool ends");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Run { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// Runs the tool on a server.
async fn run(redis: &RedisServer, arguments: &[&str]) -> Run {
    run_at(&redis.url(), arguments).await
}

/// Runs the tool with this URL.
async fn run_at(url: &str, arguments: &[&str]) -> Run {
    run_with("", &[arguments, &["--url", url]].concat()).await
}
