//! Commands about sessions and their queues, beside a real courier.

use std::time::Duration;

use mcp_courier::{Config, Courier, HandOverError, SessionId};
use mcp_courier_testing::recorder::{Act, Recorder};
use mcp_courier_testing::redis_server::RedisServer;

use crate::{run, run_with};

fn session() -> SessionId {
    SessionId::new("the-session").expect("an id")
}

async fn courier(redis: &RedisServer) -> Courier {
    let config = Config::builder().dead_letters(10).build().expect("possible settings");
    Courier::start(&redis.url(), config).await.expect("a courier")
}

#[actix::test]
async fn a_push_is_delivered_and_its_receipt_says_so() {
    let redis = RedisServer::start();
    let courier = courier(&redis).await;
    let recorder = Recorder::new();
    courier.ensure_subscriber(&session(), recorder.clone()).await.expect("a subscriber");

    let pushed = run(&redis, &["push", "the-session", "notifications/x", r#"{"n":1}"#, "--wait", "30s"]).await;
    let pushed = pushed.assert_code(0);
    assert!(pushed.out.contains("queued, 1 waiting") && pushed.out.contains("delivered at"), "{}", pushed.out);
    let id = pushed.out.split(' ').next().expect("an id");
    let receipt = run(&redis, &["receipt", "the-session", id, "--json"]).await.assert_code(0);
    assert_eq!(receipt.json()["state"], "delivered");

    let url = redis.url();
    let many: String = (2..=250).map(|n| format!("{{\"n\":{n}}}\n")).collect();
    let arguments = ["push", "all", "notifications/x", "-", "--json", "--url", &url];
    let many = run_with(&many, &arguments).await.assert_code(0);
    assert_eq!(many.json().as_array().map(Vec::len), Some(249));
    recorder.until_taken(250).await;
    assert_eq!(recorder.taken(), (1..=250).collect::<Vec<_>>());
    courier.shutdown(Duration::from_secs(5)).await;
}

#[actix::test]
async fn dead_letters_are_listed_redriven_and_deleted() {
    let redis = RedisServer::start();
    let courier = courier(&redis).await;
    let rejected = || Act::Fail(HandOverError::Rejected("no \x1b[2J".to_owned()));
    let recorder = Recorder::scripted([rejected(), rejected(), rejected()]);
    courier.ensure_subscriber(&session(), recorder.clone()).await.expect("a subscriber");
    for n in ["1", "2"] {
        let params = format!("{{\"n\":{n}}}");
        let pushed = run(&redis, &["push", "the-session", "notifications/x", &params, "--wait", "30s"]).await;
        assert!(pushed.assert_code(3).out.contains("discarded at"));
    }
    let text = run(&redis, &["dead", "list"]).await.assert_code(0).out;
    assert!(text.starts_with("SESSION") && text.contains("the session rejected it: no"), "{text}");
    assert!(!text.contains('\x1b'), "a client's text commands the terminal: {text}");
    let listed = run(&redis, &["dead", "list", "the-session", "--json"]).await.assert_code(0).json();
    let second = listed[1]["id"].as_str().expect("an id").to_owned();

    // The first of both is rejected again, and the second is delivered.
    let redriven = run(&redis, &["dead", "redrive", "the-session", "--id", &second, "--json"]).await.assert_code(0);
    assert_eq!(redriven.json()[0]["redriven"], 1);
    recorder.until_offered(3).await;
    let redriven = run(&redis, &["dead", "redrive", "--all"]).await.assert_code(0);
    assert!(redriven.out.contains("redriven"), "{}", redriven.out);
    recorder.until_taken(1).await;
    run(&redis, &["dead", "purge", "--all"]).await.assert_code(0);
    let left = run(&redis, &["dead", "list", "--json"]).await.assert_code(0);
    assert_eq!(left.json().as_array().map(Vec::len), Some(0));
    courier.shutdown(Duration::from_secs(5)).await;
}

#[actix::test]
async fn bad_arguments_are_named_and_push_nothing() {
    let redis = RedisServer::start();
    for (arguments, code, word) in [
        (&["push", "s", "tools/call"][..], 2, "notifications/"),
        (&["push", "s", "notifications/x", "[1]"], 2, "JSON object"),
        (&["push", "s", "notifications/x", "{}", "--ttl", "9000d"], 2, "365 days"),
        (&["push", "a/b", "notifications/x"], 2, "percent-encoded"),
        (&["ask", "s", "Sure?", "--schema", "{"], 2, "--schema"),
        (&["ask", "s", "Sure?", "--schema", "{}"], 2, "object"),
        (&["push", "s", "notifications/x", "--prefix", "a{"], 1, "prefix"),
        (&["push", "s", "notifications/x", "--config", "nowhere.toml"], 2, "nowhere.toml"),
        (&["sing"], 2, "sing"),
    ] {
        let run = run(&redis, arguments).await.assert_code(code);
        assert!(run.err.contains(word), "{arguments:?}: {}", run.err);
    }
    let unknown = run(&redis, &["receipt", "s", "00000000-0000-0000-0000-000000000000"]).await.assert_code(3);
    assert!(unknown.out.contains("no receipt"), "{}", unknown.out);
    let mut connection = redis.connection().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.expect("the keys");
    assert_eq!(keys, Vec::<String>::new());
}

#[actix::test]
async fn a_question_that_nobody_answers_is_withdrawn() {
    let redis = RedisServer::start();
    let asked = run(&redis, &["ask", "the-session", "Sure?", "--timeout", "300ms", "--json"]).await.assert_code(3);
    assert_eq!(asked.json()["action"], "cancel");
    assert!(asked.json()["reason"].as_str().is_some_and(|why| why.contains("no answer came")), "{}", asked.out);
}
