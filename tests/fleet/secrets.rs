//! No password of a URL and no token is in anything that the examples say: neither about a URL that cannot be used, nor
//! about an argument in the wrong place. Nothing of a notification is in the `Debug` of what a worker holds.
use std::process::Command;

use mcp_courier::{Config, Notification, Publisher, SessionId};
use mcp_courier_testing::examples::example;

const SECRET: &str = "S3CRET";

const URLS: [&str; 18] = [
    "redis://:S3CRET@127.0.0.1:1/0",
    "redis://app:S3CRET@127.0.0.1:1/0",
    "redis://app:a@S3CRET@127.0.0.1:1/0",
    "redis://app:1/S3CRET@127.0.0.1:1/0",
    "redis://app:1%2FS3CRET@127.0.0.1:1/0",
    "redis://app:S3CRET@127.0.0.1:nonsense/0",
    "redis://app:S3CRET@/0",
    "redis://127.0.0.1:1/0?pass=S3CRET",
    "redis://127.0.0.1:1/0?protocol=S3CRET",
    "REDIS://app:S3CRET@127.0.0.1:1/0",
    "rediss://app:S3CRET@127.0.0.1:1/0",
    "unix:///nowhere/r.sock?user=app&pass=S3CRET",
    "unix:///nowhere/r.sock?db=x&pass=S3CRET",
    "redis+unix:///nowhere/r.sock?pass=S3CRET",
    "unix://app:@/S3CRET@/nowhere/r.sock",
    "unix:///app:S3CRET@/nowhere/r.sock",
    "app:S3CRET@127.0.0.1:1",
    "redis:app:S3CRET@127.0.0.1:1",
];

/// Runs an example that cannot succeed, and returns all that it says.
fn said_by(name: &str, arguments: &[&str]) -> String {
    said_with("redis://127.0.0.1:1/", name, arguments)
}

/// Runs an example that cannot succeed with this URL, and returns all that it says.
fn said_with(url: &str, name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(example(name));
    let output = command.args(arguments).env("RUST_LOG", "debug").env("REDIS_URL", url).output().unwrap();
    assert!(!output.status.success(), "{name} {arguments:?} succeeded");
    let said = [output.stdout, output.stderr].concat();
    assert!(!said.is_empty(), "{name} {arguments:?} says why it ends");
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn no_password_of_a_url_is_shown() {
    for url in URLS {
        for said in [
            said_with(url, "worker", &["s", "notifications/x", "{}"]),
            said_with(url, "ask", &["s", "t"]),
            said_with(url, "dead_letters", &["list"]),
            said_with(url, "rmcp_server", &["127.0.0.1:0"]),
            said_by("chat", &["--listen", "127.0.0.1:0", "--redis", url]),
        ] {
            assert!(!said.to_uppercase().contains(SECRET), "{url}: {said}");
        }
    }
}

#[test]
fn no_secret_in_the_wrong_place_of_a_command_line_is_shown() {
    let url = "redis://:S3CRET@127.0.0.1:1/0";
    for (name, arguments) in [
        ("worker", vec![url, "s", "notifications/x", "{}"]),
        ("worker", vec!["s", url, "{}"]),
        ("worker", vec!["s", "notifications/x", url]),
        ("worker", vec!["--redis", url]),
        ("ask", vec![url, "t"]),
        ("ask", vec!["s", "t", "a", url]),
        ("dead_letters", vec![url]),
        ("dead_letters", vec!["purge", url]),
        ("rmcp_server", vec![url]),
        ("chat", vec![url]),
        ("chat", vec!["--token", "S3CRET"]),
        ("chat", vec!["--listen", url]),
        ("chat", vec!["--tokens", "user=S3CRET"]),
        ("chat", vec!["--redis", url, "--member-ttl", "S3CRET"]),
    ] {
        let said = said_by(name, &arguments);
        assert!(!said.contains(SECRET), "{name} {arguments:?}: {said}");
    }
}

/// A `main` that returns an error prints its `Debug`.
#[tokio::test]
async fn no_content_of_a_notification_is_in_what_a_worker_prints() {
    let config = Config::builder().queue_max_messages(1).build().unwrap();
    let publisher = Publisher::connect("memory://secrets", config).await.unwrap();
    let session = SessionId::new("s").unwrap();
    let notification = || {
        let notification = Notification::new("notifications/x").unwrap();
        notification.with_params(serde_json::json!({"text": SECRET})).unwrap()
    };
    publisher.push(&session, notification()).await.unwrap();
    let refused = publisher.push(&session, notification()).await.unwrap_err();
    let said = format!("{publisher:?} {refused:?} {refused}");
    assert!(said.contains("notifications/x") && said.contains("QueueFull"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
}
