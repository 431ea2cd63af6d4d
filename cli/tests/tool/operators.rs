//! Commands that show a fleet: sessions, servers, queues, and why a session gets nothing.

use std::time::Duration;

use mcp_courier::{Config, Courier, HandOverError, Notification, Principal, SessionId};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::redis_server::RedisServer;
use serde_json::{Value, json};

use crate::{run, run_at};

fn session(id: &str) -> SessionId {
    SessionId::new(id).expect("an id")
}

fn numbered(n: usize) -> Notification {
    Notification::new("notifications/x").and_then(|made| made.with_params(json!({"n": n}))).expect("a notification")
}

async fn courier(redis: &RedisServer) -> Courier {
    let config = Config::builder().heartbeat(Duration::from_millis(200)).backoff_initial(Duration::from_secs(60));
    let config = config.backoff_max(Duration::from_secs(60)).dead_letters(10).build().expect("possible settings");
    Courier::start(&redis.url(), config).await.expect("a courier")
}

#[actix::test]
async fn sessions_and_servers_are_listed() {
    let redis = RedisServer::start();
    let courier = courier(&redis).await;
    courier.ensure_subscriber(&session("owned"), Recorder::new()).await.expect("a subscriber");
    let of_alice = session("waiting").bound_to(Principal::new("alice").expect("a user"));
    for n in 1..=3 {
        courier.publisher().push(&of_alice, numbered(n)).await.expect("a push");
    }
    let listed = async || run(&redis, &["sessions", "--json"]).await.assert_code(0).json();
    eventually("the owner is known", SOON, async || {
        listed().await.as_array().is_some_and(|all| all.iter().any(|session| session["owner"]["pid"].is_u64()))
    })
    .await;
    let all = listed().await;
    assert_eq!((all[0]["session"].as_str(), all[0]["stream"].as_str()), (Some("owned"), Some("open")), "{all}");
    assert_eq!(all[0]["owner"]["pid"], std::process::id());
    assert_eq!((all[1]["session"].as_str(), all[1]["depth"].as_u64()), (Some("alice:waiting"), Some(3)), "{all}");
    let waiting = run(&redis, &["sessions", "--waiting", "--unowned"]).await.assert_code(0).out;
    assert!(waiting.contains("alice:waiting") && !waiting.contains("owned"), "{waiting}");
    let cut = run(&redis, &["sessions", "--limit", "1"]).await.assert_code(0);
    assert_eq!(
        (cut.out.lines().count(), cut.err.contains("more sessions than 1")),
        (2, true),
        "{}{}",
        cut.out,
        cut.err
    );

    let servers = run(&redis, &["servers", "--json"]).await.assert_code(0).json();
    assert_eq!(servers[0]["pid"], std::process::id(), "{servers}");
    let text = run(&redis, &["servers"]).await.assert_code(0).out;
    assert!(text.contains(&std::process::id().to_string()), "{text}");
    courier.shutdown(Duration::from_secs(5)).await;
    assert_eq!(run(&redis, &["servers", "--json"]).await.assert_code(0).json(), json!([]));
}

#[actix::test]
async fn messages_are_shown_and_stay_until_they_are_purged() {
    let redis = RedisServer::start();
    let courier = courier(&redis).await;
    for n in 1..=30 {
        courier.publisher().push(&session("s"), numbered(n)).await.expect("a push");
    }
    for _ in 0..2 {
        let peeked = run(&redis, &["peek", "s", "--limit", "2", "--json"]).await.assert_code(0).json();
        let messages = peeked["messages"].as_array().expect("a list");
        let payload = |at: usize| serde_json::from_str::<Value>(messages[at]["payload"].as_str()?).ok();
        assert_eq!(
            (payload(0).map(|p| p["n"].clone()), payload(1).map(|p| p["n"].clone())),
            (Some(json!(1)), Some(json!(2)))
        );
        assert_eq!((messages.len(), peeked["has_more"].as_bool()), (2, Some(true)), "{peeked}");
    }
    let text = run(&redis, &["peek", "s"]).await.assert_code(0);
    assert_eq!(text.out.lines().count(), 21, "{}", text.out);
    assert!(text.err.contains("more messages"), "{}", text.err);
    assert_eq!(run(&redis, &["purge", "s"]).await.assert_code(0).out, "30 removed\n");
    assert!(run(&redis, &["peek", "s"]).await.assert_code(0).err.contains("empty"));
}

#[actix::test]
async fn why_names_the_reason_for_each_silent_session() {
    let redis = RedisServer::start();
    let courier = courier(&redis).await;
    let failing = Recorder::new();
    failing.always(Some(Act::Fail(HandOverError::Transient("the disk is full".to_owned()))));
    courier.ensure_subscriber(&session("failing"), failing).await.expect("a subscriber");
    let of_alice = session("hers").bound_to(Principal::new("alice").expect("a user"));
    courier.ensure_subscriber(&of_alice, Recorder::new()).await.expect("a subscriber");
    let healthy = Recorder::new();
    courier.ensure_subscriber(&session("healthy"), healthy.clone()).await.expect("a subscriber");
    for id in ["failing", "hers", "healthy", "unknown"] {
        courier.publisher().push(&session(id), numbered(1)).await.expect("a push");
    }
    healthy.until_taken(1).await;
    let mut connection = redis.connection().await;
    let key = "mcp-courier:notifications:broken";
    redis::cmd("SET").arg(key).arg("of another program").exec_async(&mut connection).await.expect("a key");

    for (id, code, expected) in [
        ("failing", "owner_backs_off", 3),
        ("hers", "wrong_principal", 3),
        ("unknown", "unknown_session", 3),
        ("broken", "wrong_type", 3),
        ("healthy", "queue_empty", 0),
    ] {
        let first = async || run(&redis, &["why", id, "--json"]).await.json_at(expected);
        eventually(id, SOON, async || first().await.is_some_and(|json| json["findings"][0]["code"] == code)).await;
        let text = run(&redis, &["why", id]).await;
        assert!(text.out.contains("→") && text.out.contains("depth"), "{}", text.out);
    }
    let elsewhere = run(&redis, &["why", "failing", "--prefix", "other", "--json"]).await.assert_code(3).json();
    assert_eq!(elsewhere["findings"][0]["code"], "other_prefix", "{elsewhere}");
    courier.shutdown(Duration::from_secs(5)).await;
}

#[actix::test]
async fn top_shows_one_reading_where_nobody_watches() {
    let redis = RedisServer::start();
    let courier = courier(&redis).await;
    let secret = "0123456789abcdef-a-secret";
    courier.ensure_subscriber(&session(secret), Recorder::new()).await.expect("a subscriber");
    eventually("the owner is known", SOON, async || {
        run(&redis, &["top"]).await.assert_code(0).out.contains(&format!("/{}", std::process::id()))
    })
    .await;
    let text = run(&redis, &["top", "--once"]).await.assert_code(0).out;
    assert!(text.starts_with("1 sessions, 1 owned, 0 notifications wait"), "{text}");
    assert!(text.contains("01234567…") && !text.contains(secret), "{text}");
    let json = run(&redis, &["top", "--json"]).await.assert_code(0).json();
    assert_eq!(json["servers"][0]["pid"], std::process::id(), "{json}");
    courier.shutdown(Duration::from_secs(5)).await;
}

/// Runs the live view in a terminal of 100 columns, and returns all that it wrote.
async fn in_a_terminal(url: &str, keys: &'static str) -> String {
    let tool = env!("CARGO_BIN_EXE_mcp-courier");
    let script = format!("stty cols 100 rows 30; exec {tool} top --interval 200ms --url {url}");
    let mut command = tokio::process::Command::new("script");
    command.args(["--quiet", "--return", "--command", &script, "/dev/null"]).env("TERM", "xterm");
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("`script` of the package bsdutils");
    let mut pipe = child.stdin.take().expect("a pipe");
    let typing = async move {
        for key in keys.chars() {
            tokio::time::sleep(Duration::from_millis(700)).await;
            let _ = tokio::io::AsyncWriteExt::write_all(&mut pipe, key.to_string().as_bytes()).await;
        }
        pipe
    };
    let waiting = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output());
    let (output, _pipe) = tokio::join!(waiting, typing);
    let output = output.expect("the view ends at q").expect("an output");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[actix::test]
async fn top_is_a_live_view_in_a_terminal_and_ends_at_q() {
    let redis = RedisServer::start();
    let courier = courier(&redis).await;
    courier.ensure_subscriber(&session("0123456789abcdef"), Recorder::new()).await.expect("a subscriber");
    for n in 1..=42 {
        courier.publisher().push(&session("somebody-else"), numbered(n)).await.expect("a push");
    }
    let screen = in_a_terminal(&redis.url(), "jkjq").await;
    for part in ["┌servers", "┌sessions,", "somebody…", "42", "quit"] {
        assert!(screen.contains(part), "{part} is not in {screen:?}");
    }
    // The terminal is as before: the other screen is left, and the cursor is shown.
    assert!(
        screen.contains("\x1b[?1049h") && screen.contains("\x1b[?1049l") && screen.contains("\x1b[?25h"),
        "{screen:?}"
    );
    courier.shutdown(Duration::from_secs(5)).await;
}

#[actix::test]
async fn top_says_that_it_cannot_read() {
    let redis = RedisServer::start();
    let url = redis.url();
    drop(redis);
    assert!(run_at(&url, &["top"]).await.assert_code(1).err.contains("cannot be reached"));
}

#[tokio::test]
async fn what_stands_in_a_wrong_place_is_not_shown() {
    let url = "redis://:S3CRET@127.0.0.1:1/0";
    for arguments in [
        vec![url, "doctor"],
        vec!["doctor", url],
        vec!["doctor", "--S3CRET"],
        vec!["receipt", "01a21aff-c6e7-7394-97b7-b9760db62fbf", "the-session-S3CRET"],
        vec!["why", "alice@example.com:S3CRET"],
        vec!["push", "s", "the-session-S3CRET-7", "notifications/x", "--url", "redis://127.0.0.1:1/"],
        vec!["push", "s", url, "--url", "redis://127.0.0.1:1/"],
        vec!["dead", "list", "s", "--limit", "S3CRET"],
        vec!["doctor", "--url", url],
    ] {
        let run = super::run_with("", &arguments).await;
        assert_ne!(run.code, Some(0), "{arguments:?}: {}", run.out);
        let said = run.out + &run.err;
        assert!(!said.is_empty() && !said.contains("S3CRET"), "{arguments:?}: {said}");
    }
}
