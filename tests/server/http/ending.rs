//! Signals, which end a server: in a process of its own, since they end all servers of one.

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mcp_courier_testing::wire::{PATIENCE, VERSION, Wire};
use rmcp::ServerHandler;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::courier;

/// Names what the process does before a shutdown.
const BEFORE: &str = "HTTP_ENDING_BEFORE";

#[derive(Clone)]
struct Plain;

impl ServerHandler for Plain {}

/// Not a test: what a [`Server`] runs.
#[actix_web::test]
#[ignore = "the program of a child process"]
async fn server_process() {
    let Ok(before) = std::env::var(BEFORE) else { return };
    let mut server = courier().await.mcp_server(|| Ok(Plain));
    if before == "hangs" {
        server = server.shutdown_timeout(10 * PATIENCE).before_shutdown(async || {
            println!("hanging");
            std::future::pending().await
        });
    }
    let server = server.bind("127.0.0.1:0").unwrap();
    println!("listening on {}", server.url());
    server.run().await.unwrap();
}

/// A server in a process of its own. It is killed when dropped.
struct Server {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Server {
    fn start(before: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "http::ending::server_process", "--nocapture"]).env(BEFORE, before);
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Returns the rest of the line that begins so.
    async fn said(&mut self, begin: &str) -> String {
        let line = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it ended");
                // What runs tests begins the line.
                if let Some((_, rest)) = line.split_once(begin) {
                    return rest.to_owned();
                }
            }
        };
        tokio::time::timeout(PATIENCE, line).await.expect("not said in time")
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }

    async fn ended(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it hangs").unwrap()
    }
}

#[actix_web::test]
async fn a_second_signal_ends_a_shutdown_that_hangs() {
    for (first, second) in [("-TERM", "-TERM"), ("-INT", "-TERM"), ("-TERM", "-INT")] {
        let mut server = Server::start("hangs");
        server.said("listening on ").await;
        server.signal(first).await;
        server.said("hanging").await;
        server.signal(second).await;
        let status = server.ended().await;
        assert!(status.success(), "{first} {second}: {status}");
    }
}

#[actix_web::test]
async fn what_comes_before_a_shutdown_is_bounded() {
    let timeout = Duration::from_millis(300);
    let server = courier().await.mcp_server(|| Ok(Plain)).shutdown_timeout(timeout);
    let server = server.before_shutdown(std::future::pending).bind("127.0.0.1:0").unwrap();
    let ended = tokio::time::timeout(PATIENCE, server.run_until(std::future::ready(()))).await;
    ended.expect("it hangs").unwrap();
}

#[actix_web::test]
async fn a_signal_ends_a_server_with_an_open_stream_fast() {
    let mut server = Server::start("nothing");
    let url = server.said("listening on ").await;
    let wire = Wire::connect(&url, VERSION).await;
    let mut stream = wire.stream().await;
    stream.until(|text| text.contains("retry:")).await;
    let reading = actix::spawn(async move { stream.until_end().await });
    let began = Instant::now();
    server.signal("-TERM").await;
    assert!(server.ended().await.success());
    // Requests would be waited for 5 s; a stream that does not end is one.
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
    println!("ended {:?} after SIGTERM", began.elapsed());
    reading.await.unwrap();
}
