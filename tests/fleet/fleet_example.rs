//! The example `fleet`: servers behind nginx with its documented configuration, a worker, and users with tokens.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use mcp_courier_testing::child::Child;
use mcp_courier_testing::eventually::eventually;
use mcp_courier_testing::examples::example;

/// Starts the example. Its first line names the ports of all that listens.
async fn start(args: &[&str]) -> (Child, Vec<u16>) {
    let mut fleet = Child::start(Command::new(example("fleet")).args(args)).unwrap();
    let first = fleet.line().await.expect("the fleet has started");
    let numbers = first.split(|character: char| !character.is_ascii_digit());
    let ports: Vec<u16> = numbers.filter_map(|number| number.parse().ok()).filter(|port| *port > 1024).collect();
    assert_eq!(ports.len(), 4, "of Redis, two servers and nginx: {first}");
    (fleet, ports)
}

async fn assert_nothing_is_left(ports: &[u16]) {
    for port in ports {
        let closed = async || TcpStream::connect(("127.0.0.1", *port)).is_err();
        eventually(&format!("nothing listens at {port}"), Duration::from_secs(5), closed).await;
    }
}

#[tokio::test]
async fn g2_g3_each_user_of_the_example_gets_everything_once_though_a_server_is_killed() {
    let (mut fleet, ports) = start(&["--users", "4", "--notifications", "30"]).await;
    let lines = fleet.rest();
    assert!(fleet.ended().await.success(), "{lines:#?}");
    let kill = lines.iter().position(|line| line.contains("is killed (SIGKILL)")).expect("a kill");
    for user in 1..=4 {
        let summary = format!("user-{user} got 30 of 30, 0 of them again");
        assert!(lines.contains(&summary), "{summary}: {lines:#?}");
        for step in 1..=30 {
            let printed = format!(r#"user-{user} gets {{"step":{step},"of":30}}"#);
            assert_eq!(lines.iter().filter(|line| **line == printed).count(), 1, "{printed}");
        }
        let last = format!(r#"user-{user} gets {{"step":30,"of":30}}"#);
        assert!(lines[kill..].contains(&last), "the kill comes in the middle");
    }
    assert_nothing_is_left(&ports).await;
}

#[tokio::test]
async fn the_example_ends_all_that_it_started_at_ctrl_c() {
    let (mut fleet, ports) = start(&["--notifications", "100000"]).await;
    fleet.said("user-1 gets").await;
    assert!(ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()));
    fleet.signal("-INT");
    assert_eq!(fleet.ended().await.code(), Some(1));
    assert_nothing_is_left(&ports).await;
}

#[test]
fn the_example_says_what_to_install() {
    let output = Command::new(example("fleet")).env("PATH", "/nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("redis-server does not start") && said.contains("apt-get install nginx-light"), "{said}");
}
