//! Short examples: each runs to its end, and prints what its header says.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use mcp_courier::testing::envelope::Timestamp;
use mcp_courier_testing::examples::{ChatProcess, example, run};
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::redis_server::RedisServer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// Redis where nobody listens.
const NOWHERE: &str = "redis://127.0.0.1:1/";

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Runs an example that succeeds, and returns the lines that it prints.
async fn lines(name: &str, redis: &str, args: &[&str]) -> Vec<String> {
    let output = run(name, redis, args).await;
    assert!(output.status.success(), "{name} {args:?}: {}", stderr(&output));
    stdout(&output).lines().map(str::to_owned).collect()
}

/// Returns the id in a line `queued ID, N waiting`.
fn queued(line: &str) -> &str {
    let (id, waiting) = line.strip_prefix("queued ").and_then(|rest| rest.split_once(", ")).expect(line);
    assert!(waiting.ends_with(" waiting"), "{line}");
    id
}

/// Starts the example `rmcp_server` on a free port, and returns the process and the server's URL.
async fn rmcp_server(queue: &str) -> (Child, String) {
    let mut command = Command::new(example("rmcp_server"));
    command.arg("127.0.0.1:0").env("REDIS_URL", queue).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    tokio::time::timeout(Duration::from_secs(20), output.read_line(&mut line)).await.expect("in time").unwrap();
    let url = line.trim().strip_prefix("listening on ").unwrap_or_else(|| panic!("it printed {line:?}"));
    (child, url.to_owned())
}

#[test]
fn each_short_example_has_at_most_80_lines_and_the_index_has_its_command() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let index = std::fs::read_to_string(dir.join("README.md")).unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let (name, text) = (path.file_stem().unwrap().to_str().unwrap(), std::fs::read_to_string(&path).unwrap());
            assert!(text.lines().count() <= 80, "{name} has {} lines", text.lines().count());
            let row = index.lines().find(|line| line.contains(&format!("({name}.rs)"))).expect(name);
            let command = row.split('`').find(|part| part.starts_with("cargo run ")).expect(name);
            assert!(command.starts_with(&format!("cargo run --example {name}")), "{command}");
            assert!(text.contains(&format!("//! cargo run --example {name}")), "the header of {name} has its command");
            found.push(name.to_owned());
        }
    }
    found.sort_unstable();
    assert_eq!(found, ["ask", "dead_letters", "quickstart", "rmcp_server", "worker"]);
}

#[tokio::test]
async fn the_quickstart_prints_four_notifications_and_ends() {
    let printed = lines("quickstart", NOWHERE, &[]).await;
    let messages: Vec<Value> = printed.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let methods: Vec<_> = messages.iter().map(|message| message["method"].as_str().unwrap()).collect();
    let progress = "notifications/progress";
    assert_eq!(methods, [progress, progress, progress, "notifications/message"]);
    let steps: Vec<_> = messages[..3].iter().map(|message| message["params"]["progress"].as_f64().unwrap()).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0]);
    assert_eq!(messages[3]["params"]["data"], "export 7 is done");
}

#[tokio::test]
async fn the_job_of_the_rmcp_server_reports_its_progress_to_the_session_that_called() {
    let (mut server, url) = rmcp_server("memory://rmcp-server").await;
    let (caller, other) = (RawClient::connect(&url).await, RawClient::connect(&url).await);
    let (mut stream, mut others) = (caller.open_stream().await, other.open_stream().await);
    let started = caller.call_tool("export", json!({})).await;
    assert_eq!(started["structuredContent"], json!({"job": "export", "session_id": caller.session_id()}));
    for done in 1..=3 {
        let progress = stream.next_notification().await.unwrap();
        assert_eq!(progress["method"], "notifications/message");
        assert_eq!(progress["params"]["data"], json!({"job": "export", "done": done, "of": 3}));
    }
    // What the other client gets first is of its own job.
    other.call_tool("export", json!({})).await;
    assert_eq!(others.next_notification().await.unwrap()["params"]["data"]["done"], 1);

    let pid = server.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let status = tokio::time::timeout(Duration::from_secs(20), server.wait()).await.expect("it ends in time").unwrap();
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn the_notification_of_a_worker_arrives_unchanged() {
    let redis = RedisServer::start();
    let server = ChatProcess::start(&["--redis", &redis.url()]).await;
    let client = RawClient::connect(&server.url).await;
    let mut stream = client.open_stream().await;
    let now = Timestamp::of_this_host().to_string();
    let status = json!({
        "taskId": "7", "status": "working", "statusMessage": "half-way", "createdAt": now, "lastUpdatedAt": now,
        "ttl": null, "pollInterval": 500, "x-own": {"b": [1.5, null], "a": "ü"},
    });
    let own = json!({"any": ["thing", {"nested": true}]});
    for (method, params) in [("notifications/tasks/status", &status), ("notifications/mine/own", &own)] {
        let printed = lines("worker", &redis.url(), &[client.session_id(), method, &params.to_string()]).await;
        assert_eq!(printed[1..], ["delivered"]);
        let mut arrived = stream.next_notification().await.unwrap();
        assert_eq!(arrived["method"], method);
        let arrived = arrived["params"].as_object_mut().unwrap();
        let meta = arrived.remove("_meta").unwrap();
        assert_eq!(meta["mcp-courier/id"], queued(&printed[0]));
        assert_eq!(Value::Object(arrived.clone()), *params);
    }
}

#[tokio::test]
async fn a_worker_prints_the_receipt_of_each_notification_and_hints_at_a_wrong_id() {
    let redis = RedisServer::start();
    let url = redis.url();
    let server = ChatProcess::start(&["--redis", &url]).await;
    let client = RawClient::connect(&server.url).await;
    let push = async |session: &str, params: &[&str]| {
        lines("worker", &url, &[&[session, "notifications/x"], params].concat()).await
    };
    let away = "the client has no stream now, and may come back for it";
    let printed = push(client.session_id(), &["{}"]).await;
    queued(&printed[0]);
    assert_eq!(printed[1..], [away, "still queued"]);

    let mut stream = client.open_stream().await;
    stream.next_notification().await.unwrap();
    let printed = push(client.session_id(), &[r#"{"n": 1}"#, r#"{"n": 2}"#]).await;
    assert_eq!(printed[2..], ["delivered", "delivered"]);
    for (line, n) in printed.iter().zip(1..=2) {
        let arrived = stream.next_notification().await.unwrap();
        assert_eq!(
            (&arrived["params"]["n"], &arrived["params"]["_meta"]["mcp-courier/id"]),
            (&json!(n), &json!(queued(line)))
        );
    }

    let mut wrong = client.session_id().to_owned();
    wrong.pop();
    let printed = push(&wrong, &["{}"]).await;
    assert_eq!(printed[1..], ["no server knows this session: check the id"]);
}

#[tokio::test]
async fn dead_letters_are_listed_redriven_and_purged_as_the_header_shows() {
    let redis = RedisServer::start();
    let url = redis.url();
    let (_server, address) = rmcp_server(&url).await;
    let client = RawClient::connect(&address).await;
    let (session, _stream) = (client.session_id(), client.open_stream().await);
    assert_eq!(lines("dead_letters", &url, &["list"]).await.len(), 0);
    let report = async |status: &str| {
        let params = json!({"taskId": "7", "status": status}).to_string();
        lines("worker", &url, &[session, "notifications/tasks/status", &params]).await
    };
    assert_eq!(report("completed").await[1], "delivered");
    let late = report("working").await;
    assert_eq!(late[1], "discarded: its task has ended");

    let letter = format!("{session} notifications/tasks/status {}: its task has ended", queued(&late[0]));
    assert_eq!(lines("dead_letters", &url, &["list"]).await, std::slice::from_ref(&letter));
    let redriven = "redriven 1; stayed: 0 undecodable, 0 obsolete questions";
    assert_eq!(lines("dead_letters", &url, &["redrive", session]).await, [redriven]);
    // The server discards the notification again, for the same reason.
    while lines("dead_letters", &url, &["list"]).await != std::slice::from_ref(&letter) {}
    assert_eq!(lines("dead_letters", &url, &["purge", session]).await, ["purged 1"]);
    assert_eq!(lines("dead_letters", &url, &["list"]).await.len(), 0);
}

/// Has the example `ask` ask, and returns the outcome that it prints and the request that the client got, if the client
/// answers one.
async fn ask(capabilities: Value, answer: Option<Value>, task: &[&str]) -> (Value, Option<Value>) {
    let redis = RedisServer::start();
    let server = ChatProcess::start(&["--redis", &redis.url()]).await;
    let client = RawClient::connect_with(&server.url, capabilities).await;
    let mut stream = client.open_stream().await;
    let (url, args) = (redis.url(), [&[client.session_id()], task].concat());
    let answering = async {
        let asked = stream.next_request().await.unwrap();
        client.answer(&asked, answer.clone()?).await;
        Some(asked)
    };
    let (asked, printed) = match answer {
        Some(_) => tokio::join!(answering, lines("ask", &url, &args)),
        None => (None, lines("ask", &url, &args).await),
    };
    assert_eq!(printed.len(), 1, "{printed:?}");
    redis.assert_no_key_without_expiry().await;
    (serde_json::from_str(&printed[0]).unwrap(), asked)
}

#[tokio::test]
async fn the_answer_to_a_typed_question_is_printed() {
    let form = json!({"elicitation": {"form": {}}});
    let answer = json!({"action": "accept", "content": {"approve": true, "amount": 7, "account": "travel"}});
    let (printed, asked) = ask(form.clone(), Some(answer.clone()), &["t7", "client|sub"]).await;
    assert_eq!(printed, answer);
    let params = &asked.unwrap()["params"];
    assert_eq!(params["message"], "Pay 7 € to ACME?");
    let schema = &params["requestedSchema"];
    assert_eq!(schema["properties"]["approve"], json!({"type": "boolean", "description": "Do you approve?"}));
    assert_eq!((&schema["properties"]["amount"]["maximum"], &schema["required"]), (&json!(100), &json!(["approve"])));
    assert_eq!(params["_meta"], json!({"io.modelcontextprotocol/related-task": {"taskId": "t7"}}));

    for (answer, expected) in [
        (json!({"action": "decline"}), json!({"action": "decline"})),
        (json!({"action": "cancel"}), json!({"action": "cancel", "reason": null})),
        (
            json!({"action": "accept", "content": {"approve": "yes"}}),
            json!({"action": "cancel", "reason": "the client's answer does not fit the schema at /approve"}),
        ),
    ] {
        assert_eq!(ask(form.clone(), Some(answer), &["t7"]).await.0, expected);
    }
    let reason = "the client has not declared this mode of elicitation";
    assert_eq!(ask(json!({}), None, &["t7"]).await.0, json!({"action": "cancel", "reason": reason}));
}

#[tokio::test]
async fn each_example_reaches_a_session_that_is_bound_to_a_user() {
    let redis = RedisServer::start();
    let url = redis.url();
    let server = ChatProcess::start(&["--redis", &url, "--token", "al@example.com=secret"]).await;
    let client = RawClient::connect_as(&server.url, "secret").await;
    let mut stream = client.open_stream().await;
    let session = client.call_tool("session_id", json!({})).await["structuredContent"]["session_id"].clone();
    let session = session.as_str().unwrap();
    assert_eq!(session, format!("al%40example.com:{}", client.session_id()));

    assert_eq!(lines("worker", &url, &[session, "notifications/one", "{}"]).await[1], "delivered");
    assert_eq!(stream.next_notification().await.unwrap()["method"], "notifications/one");
    let outcome = &lines("ask", &url, &[session, "task"]).await[0];
    assert!(outcome.contains("has not declared"), "{outcome}");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_micros();
    let key = format!("{{mcp-courier:notifications:{session}}}:dead");
    let mut keep = redis::pipe();
    keep.cmd("LPUSH").arg(&key).arg(format!("{{\"at\":{now},\"reason\":{{\"rejected\":\"no\"}}}}\nnonsense")).ignore();
    keep.cmd("EXPIRE").arg(&key).arg(600).exec_async(&mut redis.connection().await).await.unwrap();
    assert_eq!(
        lines("dead_letters", &url, &["list"]).await,
        [format!("{session} undecodable : the session rejected it: no")]
    );
    assert_eq!(lines("dead_letters", &url, &["purge", session]).await, ["purged 1"]);
}

#[tokio::test]
async fn an_example_that_cannot_do_its_work_says_why_and_ends_with_status_1() {
    for (name, url, args, expected) in [
        ("worker", NOWHERE, &["with space", "notifications/x", "{}"][..], "visible ASCII"),
        ("worker", NOWHERE, &["a/b", "notifications/x", "{}"], "must be percent-encoded"),
        ("worker", NOWHERE, &["s", "tools/call", "{}"], "must begin with \"notifications/\""),
        ("worker", NOWHERE, &["s", "notifications/x", "{"], "the text given is none"),
        ("worker", NOWHERE, &["s", "notifications/x", "[]"], "must be a JSON object"),
        ("worker", NOWHERE, &["s", "notifications/x", "{}"], "cannot be reached"),
        ("worker", "http://127.0.0.1/", &["s", "notifications/x", "{}"], "redis://"),
        ("worker", NOWHERE, &[], "usage: worker SESSION METHOD PARAMS"),
        ("ask", NOWHERE, &["with space", "t"], "visible ASCII"),
        ("ask", NOWHERE, &["s", ""], "the id of a task must have 1 to 256 bytes"),
        ("ask", NOWHERE, &["s", "t", ""], "the scope of a task"),
        ("ask", NOWHERE, &["s", "t"], "cannot be reached"),
        ("ask", NOWHERE, &["s"], "usage: ask SESSION TASK"),
        ("dead_letters", NOWHERE, &["list"], "cannot be reached"),
    ] {
        let output = run(name, url, args).await;
        assert_eq!(output.status.code(), Some(1), "{name} {args:?}");
        assert!(stderr(&output).contains(expected), "{name} {args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
    }
    let redis = RedisServer::start();
    let wrong = run("dead_letters", &redis.url(), &["lists"]).await;
    assert_eq!((wrong.status.code(), stderr(&wrong).starts_with("error: usage: dead_letters list")), (Some(1), true));
}
