//! The example `worker`: processes that hold no session reach the clients of a server.
use std::process::Output;

use mcp_courier::testing::envelope::Timestamp;
use mcp_courier_testing::examples::{ChatProcess, worker};
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::redis_server::RedisServer;
use serde_json::{Value, json};

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[tokio::test]
async fn what_a_worker_pushes_arrives_unchanged() {
    let redis = RedisServer::start();
    let server = ChatProcess::start(&["--redis", &redis.url(), "--prefix", "w"]).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    let now = Timestamp::of_this_host().to_string();
    let status = json!({
        "taskId": "7", "status": "working", "statusMessage": "half-way", "createdAt": now, "lastUpdatedAt": now,
        "ttl": null, "pollInterval": 500, "x-own": {"b": [1.5, null], "a": "ü"},
    });
    let own = json!({"any": ["thing", {"nested": true}]});
    for (method, params) in [("notifications/tasks/status", &status), ("notifications/mine/own", &own)] {
        let push = ["--redis", &redis.url(), "--prefix", "w", "push", client.session_id(), method, &params.to_string()];
        let pushed = worker(&push).await;
        assert!(pushed.status.success(), "{}", stderr(&pushed));
        let id = stdout(&pushed);
        // The one before may not be confirmed yet, and then it waits too.
        let (id, waiting) = id.trim().strip_prefix("queued ").and_then(|rest| rest.split_once(", ")).unwrap();
        assert!(waiting.ends_with(" waiting"), "{waiting}");

        let mut arrived = stream.next_notification().await.unwrap();
        assert_eq!(arrived["method"], method);
        let arrived = arrived["params"].as_object_mut().unwrap();
        let meta = arrived.remove("_meta").unwrap();
        assert_eq!(meta["mcp-courier/id"], id);
        assert_eq!(Value::Object(arrived.clone()), *params);
    }
}

#[tokio::test]
async fn five_thousand_arrive_in_order() {
    let redis = RedisServer::start();
    let server = ChatProcess::start(&["--redis", &redis.url()]).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    let pushed = worker(&["--redis", &redis.url(), "push-many", client.session_id(), "5000"]).await;
    assert!(pushed.status.success(), "{}", stderr(&pushed));
    assert!(stdout(&pushed).starts_with("queued 5000 of 5000 in "), "{}", stdout(&pushed));
    let arrived = stream.notifications(5000).await;
    let numbers: Vec<_> = arrived.iter().map(|n| n["params"]["data"]["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=5000).collect::<Vec<_>>());
    assert!(arrived.iter().all(|n| n["method"] == "notifications/message" && n["params"]["logger"] == "worker"));
}

#[tokio::test]
async fn what_a_full_queue_refuses_is_reported() {
    let redis = RedisServer::start();
    let pushed = worker(&["--redis", &redis.url(), "push-many", "nobody", "10005"]).await;
    assert_eq!(pushed.status.code(), Some(1));
    assert!(stdout(&pushed).starts_with("queued 10000 of 10005 in "), "{}", stdout(&pushed));
    assert!(stderr(&pushed).contains("the queue is full: it may hold 10000 messages"), "{}", stderr(&pushed));
}

#[tokio::test]
async fn a_worker_prints_what_became_of_what_it_pushed() {
    let redis = RedisServer::start();
    let url = redis.url();
    let server = ChatProcess::start(&["--redis", &url]).await;
    let client = RawClient::connect(&server.url).await;
    let _stream = client.open_stream().await;
    let push = |session: &str, wait: &str| {
        let args =
            ["--redis", &url, "push", session, "notifications/x", "{}", "--receipt-wait", wait].map(str::to_owned);
        async move { worker(&args.each_ref().map(String::as_str)).await }
    };
    let printed = stdout(&push(client.session_id(), "60").await);
    assert!(printed.lines().nth(1).unwrap().starts_with("delivered at "), "{printed}");
    let printed = stdout(&push("nobody", "0").await);
    assert!(printed.lines().nth(1).unwrap().starts_with("still queued, until "), "{printed}");
}

#[tokio::test]
async fn a_worker_lists_redrives_and_purges_dead_letters() {
    let redis = RedisServer::start();
    let url = redis.url();
    let dead = |what: &str| {
        let args = ["--redis", &url, "--principal", "al", "dead-letters", what, "s"].map(str::to_owned);
        async move { stdout(&worker(&args.each_ref().map(String::as_str)).await) }
    };
    assert_eq!(dead("list").await, "");
    let (key, mut raw) = ("{mcp-courier:notifications:al:s}:dead", redis.connection().await);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
    let message = r#"{"notification":{"method":"notifications/x"},"id":"0197f0a0-0000-7000-8000-000000000000"}"#;
    let letter = format!("{{\"at\":{now},\"reason\":{{\"rejected\":\"no\"}}}}\n{message}");
    let mut keep = redis::pipe();
    keep.cmd("LPUSH").arg(key).arg(letter).arg("nonsense").ignore();
    keep.cmd("EXPIRE").arg(key).arg(60).exec_async(&mut raw).await.unwrap();
    let listed = dead("list").await;
    let lines: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{listed}");
    assert_eq!(lines[0]["reason"], "the session rejected it: no");
    assert_eq!(
        (&lines[0]["id"], &lines[0]["message"]),
        (&json!("0197f0a0-0000-7000-8000-000000000000"), &json!(message))
    );
    assert_eq!(dead("redrive").await, "redriven 1; stayed: 1 undecodable, 0 obsolete questions\n");
    assert_eq!(dead("purge").await, "purged 1\n");
    assert_eq!(dead("list").await, "");
    let queued: usize = redis::cmd("LLEN").arg("mcp-courier:notifications:al:s").query_async(&mut raw).await.unwrap();
    assert_eq!(queued, 1);
}

/// Every subcommand reads a session id in the same way: with its user inside, or beside it.
#[tokio::test]
async fn each_subcommand_reaches_a_session_that_is_bound_to_a_user() {
    let redis = RedisServer::start();
    let url = redis.url();
    let server = ChatProcess::start(&["--redis", &url, "--token", "al@example.com=secret"]).await;
    let client = RawClient::connect_as(&server.url, "secret").await;
    let mut stream = client.open_stream().await;
    let (bare, whole) = (client.session_id(), format!("al%40example.com:{}", client.session_id()));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
    let letter = format!("{{\"at\":{now},\"reason\":{{\"rejected\":\"no\"}}}}\nnonsense");
    let key = format!("{{mcp-courier:notifications:{whole}}}:dead");
    let mut raw = redis.connection().await;
    redis::cmd("LPUSH").arg(&key).arg(letter).exec_async(&mut raw).await.unwrap();
    redis::cmd("EXPIRE").arg(&key).arg(600).exec_async(&mut raw).await.unwrap();
    let user: &[&str] = &["--principal", "al@example.com"];
    for (session, user) in [(whole.as_str(), &[][..]), (bare, user), (&whole, user)] {
        let run = async |before: &[&str], after: &[&str]| {
            let output = worker(&[&["--redis", &url], before, &[session], after, user].concat()).await;
            assert!(output.status.success(), "{before:?} {user:?}: {}", stderr(&output));
            stdout(&output)
        };
        run(&["push"], &["notifications/one", "{}"]).await;
        run(&["push-many"], &["2"]).await;
        let arrived = stream.notifications(3).await;
        assert_eq!(arrived[0]["method"], "notifications/one");
        let outcome = run(&["elicit"], &["task", "Pay?", SCHEMA, "--timeout", "60"]).await;
        assert!(outcome.contains("has not declared"), "{outcome}");
        stream.next_notification().await.unwrap();
        assert_eq!(run(&["dead-letters", "list"], &[]).await.lines().count(), 1);
    }
    let other = ["--redis", &url, "--principal", "bo", "dead-letters", "list", &whole];
    assert!(stderr(&worker(&other).await).contains("--principal names another user"));
}

#[tokio::test]
async fn a_worker_takes_the_bare_value_of_the_header_as_such() {
    let redis = RedisServer::start();
    let url = redis.url();
    let mut raw = redis.connection().await;
    let push = ["notifications/x", "{}"];
    for (args, key) in [
        (&["a:b"][..], "a:b"),
        (&["--header", "a:b"], "a%3Ab"),
        (&["--header", "a/b"], "a%2Fb"),
        (&["--header", "--principal", "al", "a:b"], "al:a%3Ab"),
    ] {
        let pushed = worker(&[&["--redis", &url, "push"], args, &push].concat()).await;
        assert!(pushed.status.success(), "{args:?}: {}", stderr(&pushed));
        let key = format!("mcp-courier:notifications:{key}");
        let queued: usize = redis::cmd("LLEN").arg(&key).query_async(&mut raw).await.unwrap();
        assert_eq!(queued, 1, "{key}");
    }
    let refused = worker(&[&["--redis", &url, "push", "a/b"], &push[..]].concat()).await;
    assert!(!refused.status.success());
}

#[tokio::test]
async fn a_worker_says_where_no_server_knows_the_session() {
    let redis = RedisServer::start();
    let url = redis.url();
    let server = ChatProcess::start(&["--redis", &url]).await;
    let client = RawClient::connect(&server.url).await;
    let unknown = "no server knows this session: check the id";
    let said = async |command: &[&str]| {
        let output = worker(&[&["--redis", &url], command].concat()).await;
        (stdout(&output), stderr(&output))
    };
    let (queued, _) = said(&["push", client.session_id(), "notifications/x", "{}"]).await;
    assert!(queued.ends_with("waiting; the client has no stream now, and may come back for it\n"), "{queued}");
    let mut stream = client.open_stream().await;
    stream.next_notification().await.unwrap();
    let (queued, _) = said(&["push", client.session_id(), "notifications/x", "{}"]).await;
    assert!(queued.ends_with(" waiting\n"), "{queued}");
    let mut wrong = client.session_id().to_owned();
    wrong.pop();
    for command in [&["push", &wrong, "notifications/x", "{}"][..], &["push-many", &wrong, "2"]] {
        let (queued, _) = said(command).await;
        assert!(queued.trim_end().ends_with(unknown), "{queued}");
    }
    let (outcome, hint) = said(&["elicit", &wrong, "t", "Sure?", SCHEMA, "--timeout", "1"]).await;
    assert_eq!(serde_json::from_str::<Value>(&outcome).unwrap()["action"], "cancel");
    assert!(hint.contains(unknown), "{hint}");
}

#[tokio::test]
async fn a_worker_that_cannot_push_says_why_and_ends_with_status_1() {
    let nowhere = "redis://127.0.0.1:1/";
    let wrong = [
        (nowhere, ["with space", "notifications/x", "{}"], "visible ASCII"),
        (nowhere, ["a/b", "notifications/x", "{}"], "must be percent-encoded"),
        (nowhere, ["s", "tools/call", "{}"], "must begin with \"notifications/\""),
        (nowhere, ["s", "notifications/x", "{"], "the text given is none"),
        (nowhere, ["s", "notifications/x", "[]"], "must be a JSON object"),
        (nowhere, ["s", "notifications/x", "{}"], "cannot be reached"),
        ("http://127.0.0.1/", ["s", "notifications/x", "{}"], "redis://"),
        ("memory://chat", ["s", "notifications/x", "{}"], "memory://"),
    ];
    for (url, push, expected) in wrong {
        let output = worker(&["--redis", url, "push", push[0], push[1], push[2]]).await;
        assert_eq!(output.status.code(), Some(1), "{push:?}");
        assert!(stderr(&output).contains(expected), "{push:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}

const SCHEMA: &str = r#"{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}"#;

/// Has a worker ask, and gives what it prints and the request that the client got, if it answers one.
async fn elicit(capabilities: Value, answer: Option<Value>, timeout: &str) -> (Value, Option<Value>) {
    let redis = RedisServer::start();
    let server = ChatProcess::start(&["--redis", &redis.url()]).await;
    let client = RawClient::connect_with(&server.url, capabilities).await;
    let mut stream = client.open_stream().await;
    let url = redis.url();
    let session = client.session_id();
    let args = ["--redis", &url, "elicit", session, "t7", "Sure?", SCHEMA, "--timeout", timeout, "--scope", "s|u"];
    let answering = async {
        let asked = stream.next_request().await.unwrap();
        client.answer(&asked, answer.clone()?).await;
        Some(asked)
    };
    let (asked, output) = match answer {
        Some(_) => tokio::join!(answering, worker(&args)),
        None => (None, worker(&args).await),
    };
    assert!(output.status.success(), "{}", stderr(&output));
    let printed = stdout(&output);
    assert_eq!(printed.lines().count(), 1, "{printed}");
    redis.assert_no_key_without_expiry().await;
    (serde_json::from_str(&printed).unwrap(), asked)
}

#[tokio::test]
async fn a_worker_prints_what_the_user_answered() {
    let form = json!({"elicitation": {"form": {}}});
    let content = json!({"ok": true});
    let answer = json!({"action": "accept", "content": content});
    let (printed, asked) = elicit(form.clone(), Some(answer.clone()), "60").await;
    assert_eq!(printed, answer);
    let params = &asked.unwrap()["params"];
    assert_eq!(params["message"], "Sure?");
    assert_eq!(params["requestedSchema"], serde_json::from_str::<Value>(SCHEMA).unwrap());
    assert_eq!(params["_meta"], json!({"io.modelcontextprotocol/related-task": {"taskId": "t7"}}));

    let (printed, _) = elicit(form.clone(), Some(json!({"action": "decline"})), "60").await;
    assert_eq!(printed, json!({"action": "decline"}));
    let (printed, _) = elicit(form.clone(), Some(json!({"action": "cancel"})), "60").await;
    assert_eq!(printed, json!({"action": "cancel", "reason": null}));
    let wrong = json!({"action": "accept", "content": {"ok": "yes"}});
    let (printed, _) = elicit(form, Some(wrong), "60").await;
    assert_eq!(printed, json!({"action": "cancel", "reason": "the client's answer does not fit the schema at /ok"}));
}

#[tokio::test]
async fn a_worker_prints_why_nobody_answered() {
    let (printed, _) = elicit(json!({}), None, "60").await;
    assert_eq!(printed["action"], "cancel");
    assert!(printed["reason"].as_str().unwrap().contains("has not declared"), "{printed}");
    let (printed, _) = elicit(json!({"elicitation": {}}), None, "1").await;
    assert_eq!(printed["action"], "cancel");
    assert!(printed["reason"].as_str().unwrap().contains("no answer"), "{printed}");
}

#[tokio::test]
async fn who_did_not_answer_in_time_is_asked_no_more_though_the_worker_has_ended() {
    let redis = RedisServer::start();
    let server = ChatProcess::start(&["--redis", &redis.url()]).await;
    let client = RawClient::connect_with(&server.url, json!({"elicitation": {}})).await;
    let mut stream = client.open_stream().await;
    let url = redis.url();
    let args = ["--redis", &url, "elicit", client.session_id(), "t7", "Sure?", SCHEMA, "--timeout", "1"];
    let (asked, output) = tokio::join!(stream.next_request(), worker(&args));
    assert!(stdout(&output).contains("no answer"), "{}", stdout(&output));
    let told = stream.next_notification().await.unwrap();
    assert_eq!(told["method"], "notifications/cancelled");
    assert_eq!(told["params"]["requestId"], asked.unwrap()["id"]);
}

#[tokio::test]
async fn a_worker_that_cannot_ask_says_why_and_ends_with_status_1() {
    let nested = r#"{"type": "object", "properties": {"a": {"type": "object"}}}"#;
    let wrong = [
        (vec!["with space", "t", "m", SCHEMA], "visible ASCII"),
        (vec!["s", "", "m", SCHEMA], "the id of a task must have 1 to 256 bytes"),
        (vec!["s", "t", "m", "{"], "the schema is no JSON"),
        (vec!["s", "t", "m", nested], "field \"a\" is none that MCP allows"),
        (vec!["s", "t", "m", SCHEMA, "--scope", ""], "the scope of a task"),
        (vec!["s", "t", "m", SCHEMA], "cannot be reached"),
    ];
    for (arguments, expected) in wrong {
        let mut args = vec!["--redis", "redis://127.0.0.1:1/", "elicit"];
        args.extend(&arguments);
        let output = worker(&args).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
}
