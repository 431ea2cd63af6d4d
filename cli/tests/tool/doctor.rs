//! `doctor` against servers that are wrong on purpose.

use mcp_courier_testing::readme;
use mcp_courier_testing::redis_server::RedisServer;
use serde_json::Value;

use crate::{Run, run, run_at};

/// Options of a server in which nothing is wrong.
const GOOD: [&str; 4] = ["--appendonly", "yes", "--maxmemory-policy", "noeviction"];

/// Returns the checks that are not good: each name with its verdict.
fn faults(run: &Run) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let json = run.json();
    let checks = json["checks"].as_array().expect("a list");
    let bad = checks.iter().filter(|check| check["verdict"] != "good");
    bad.map(|check| {
        assert!(check["advice"].is_string(), "{check}");
        (text(&check["name"]), text(&check["verdict"]))
    })
    .collect()
}

/// Asserts that `doctor` finds this fault and no other, and that the text says the same with this word.
async fn finds(url: &str, name: &str, verdict: &str, word: &str) {
    let code = if verdict == "wrong" { 3 } else { 0 };
    let json = run_at(url, &["doctor", "--json"]).await.assert_code(code);
    // A busy machine makes a round trip slow.
    let faults: Vec<_> = faults(&json).into_iter().filter(|(name, _)| name != "latency").collect();
    assert_eq!(faults, [(name.to_owned(), verdict.to_owned())], "{}", json.out);
    let text = run_at(url, &["doctor"]).await.assert_code(code).out;
    let line = text.lines().find(|line| line.starts_with(verdict) && line.contains(name)).expect("its line");
    assert!(line.contains(word), "{text}");
    assert!(text.contains("→"), "{text}");
}

#[tokio::test]
async fn a_good_server_passes() {
    let redis = RedisServer::with(&GOOD);
    let found = run(&redis, &["doctor", "--json"]).await.assert_code(0);
    assert!(faults(&found).iter().all(|(name, _)| name == "latency"), "{}", found.out);
    let names = found.json()["checks"].as_array().expect("a list").len();
    assert!(names >= 12, "{}", found.out);
}

#[tokio::test]
async fn a_server_that_evicts_is_wrong() {
    let redis =
        RedisServer::with(&["--appendonly", "yes", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    finds(&redis.url(), "eviction", "wrong", "allkeys-lru").await;
}

#[tokio::test]
async fn a_server_that_keeps_nothing_is_wrong() {
    let redis = RedisServer::with(&["--appendonly", "no", "--save", ""]);
    finds(&redis.url(), "persistence", "wrong", "restart").await;
}

#[tokio::test]
async fn a_server_whose_memory_is_full_is_wrong() {
    let redis = RedisServer::with(&GOOD);
    let mut connection = redis.connection().await;
    let set = redis::cmd("CONFIG").arg(&["SET", "maxmemory", "100kb"]).exec_async(&mut connection).await;
    set.expect("less than an empty server uses");
    finds(&redis.url(), "memory", "wrong", "are used").await;
}

#[tokio::test]
async fn a_clock_that_differs_is_a_warning() {
    let redis = RedisServer::with_own_clock();
    redis.set_clock(-3600);
    let json = run(&redis, &["doctor", "--json"]).await;
    let clock = json.json()["checks"].as_array().expect("a list").iter().find(|c| c["name"] == "clock").cloned();
    let clock = clock.expect("a check of the clock");
    assert_eq!(clock["verdict"], "warning", "{clock}");
    assert!(clock["found"].as_str().is_some_and(|found| found.contains("behind")), "{clock}");
}

#[tokio::test]
async fn a_replica_is_wrong_and_names_its_primary() {
    let primary = RedisServer::with(&GOOD);
    let port = primary.port().to_string();
    let replica = RedisServer::with(&[&GOOD[..], &["--replicaof", "127.0.0.1", &port]].concat());
    let json = run(&replica, &["doctor", "--json"]).await.assert_code(3);
    let json = json.json();
    let found = |name: &str| {
        let mut checks = json["checks"].as_array().expect("a list").iter();
        checks.find(|check| check["name"] == name).expect("the check").clone()
    };
    assert_eq!(found("role")["verdict"], "wrong", "{json}");
    assert!(found("role")["found"].as_str().is_some_and(|found| found.contains(&port)), "{json}");
    assert_eq!(found("write")["verdict"], "wrong", "{json}");
}

#[tokio::test]
async fn a_user_who_lacks_a_right_is_told_which() {
    let redis = RedisServer::with(&GOOD);
    let rights = readme::rights();
    let url = redis
        .restricted_url(&[&rights[..], &["+scan", "+info", "+config|get", "+acl|whoami", "-lpush"]].concat())
        .await;
    finds(&url, "rights", "wrong", "LPUSH").await;
}

#[tokio::test]
async fn a_worker_needs_fewer_rights_than_a_server() {
    let redis = RedisServer::with(&GOOD);
    let rights = readme::rights();
    let url = redis
        .restricted_url(&[&rights[..], &["+scan", "+info", "+config|get", "+acl|whoami", "-blmove"]].concat())
        .await;
    finds(&url, "rights", "warning", "BLMOVE").await;
}

#[tokio::test]
async fn a_user_without_tracking_is_a_warning() {
    let redis = RedisServer::with(&GOOD);
    let url = redis.restricted_url(&["on", ">secret", "~*", "&*", "+@all", "-client|tracking"]).await;
    let json = run_at(&url, &["doctor", "--json"]).await;
    let faults = faults(&json);
    assert!(faults.contains(&("tracking".to_owned(), "warning".to_owned())), "{}", json.out);
}

#[tokio::test]
async fn a_hosted_server_that_tells_little_is_unknown_and_not_wrong() {
    let redis = RedisServer::with(&GOOD);
    let url = redis.restricted_url(&["on", ">secret", "~*", "&*", "+@all", "-info", "-config", "-acl"]).await;
    let json = run_at(&url, &["doctor", "--json"]).await.assert_code(0);
    assert!(faults(&json).iter().any(|(name, verdict)| name == "version" && verdict == "unknown"), "{}", json.out);
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_an_error_without_the_password() {
    let redis = RedisServer::start();
    let port = redis.port();
    drop(redis);
    let run = run_at(&format!("redis://app:s3cret@127.0.0.1:{port}/"), &["doctor"]).await.assert_code(1);
    assert!(run.err.contains("cannot be reached") && run.err.contains(&port.to_string()), "{}", run.err);
    assert!(!run.err.contains("s3cret"), "{}", run.err);
}
