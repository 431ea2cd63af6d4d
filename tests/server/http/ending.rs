//! Signals, which end a server: in a process of its own, since they end all servers of one.

use std::process::Stdio;
use std::time::{Duration, Instant};

use mcp_courier_testing::child::{Child, program};
use mcp_courier_testing::wire::{PATIENCE, VERSION, Wire};
use rmcp::ServerHandler;

use super::courier;

/// Names what the process does before a shutdown.
const BEFORE: &str = "HTTP_ENDING_BEFORE";

#[derive(Clone)]
struct Plain;

impl ServerHandler for Plain {}

/// Not a test: a server process.
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

fn server(before: &str) -> Child {
    Child::start(program(module_path!(), "server_process").env(BEFORE, before).stderr(Stdio::inherit())).unwrap()
}

#[actix_web::test]
async fn a_second_signal_ends_a_shutdown_that_hangs() {
    for (first, second) in [("-TERM", "-TERM"), ("-INT", "-TERM"), ("-TERM", "-INT")] {
        let mut server = server("hangs");
        server.said("listening on ").await;
        server.signal(first);
        server.said("hanging").await;
        server.signal(second);
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
    let mut server = server("nothing");
    let url = server.said("listening on ").await;
    let wire = Wire::connect(&url, VERSION).await;
    let mut stream = wire.stream().await;
    stream.until(|text| text.contains("retry:")).await;
    let reading = actix::spawn(async move { stream.until_end().await });
    let began = Instant::now();
    server.signal("-TERM");
    assert!(server.ended().await.success());
    // Requests would be waited for 5 s; a stream that does not end is one.
    assert!(began.elapsed() < Duration::from_secs(4), "it took {:?}", began.elapsed());
    println!("ended {:?} after SIGTERM", began.elapsed());
    reading.await.unwrap();
}
