//! The whole way with rmcp's sessions over HTTP, and clients that behave and misbehave.

use std::time::{Duration, Instant};

use mcp_courier::testing::backend::Settled;
use mcp_courier::{
    Answer, Config, Courier, ElicitError, Elicitation, Elicitor, Notification, Publisher, SessionId, Task, TaskKey,
    TaskStatus,
};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::{EventStream, RawClient};
use mcp_courier_testing::redis_server::RedisServer;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::place::{PATIENCE, accept, form, outcome, reason, task};

fn config() -> Config {
    super::place::config().hand_over_timeout(Duration::from_secs(5)).build().unwrap()
}

async fn server(queue: &str) -> McpServer {
    let courier = Courier::start(queue, config()).await.unwrap();
    let manager = courier.session_manager();
    McpServer::start(courier, manager)
}

/// A worker, a server, and a client of it that has declared these capabilities.
struct Scene {
    redis: RedisServer,
    elicitor: Elicitor,
    server: McpServer,
    client: RawClient,
    stream: EventStream,
}

impl Scene {
    async fn new(capabilities: Value) -> Self {
        let redis = RedisServer::start();
        let elicitor = Publisher::connect(&redis.url(), config()).await.unwrap().elicitor();
        let server = server(&redis.url()).await;
        let client = RawClient::connect_with(&server.url, capabilities).await;
        let stream = client.open_stream().await;
        Self { redis, elicitor, server, client, stream }
    }

    async fn with_forms() -> Self {
        Self::new(json!({"elicitation": {}})).await
    }

    fn session(&self) -> SessionId {
        SessionId::new(self.client.session_id()).unwrap()
    }

    fn ask(&self, task: &TaskKey, question: Elicitation) -> JoinHandle<Result<Answer, ElicitError>> {
        self.ask_for(task, question, PATIENCE)
    }

    fn ask_for(
        &self,
        task: &TaskKey,
        question: Elicitation,
        timeout: Duration,
    ) -> JoinHandle<Result<Answer, ElicitError>> {
        let (elicitor, session, task) = (self.elicitor.clone(), self.session(), task.clone());
        tokio::spawn(async move { elicitor.elicit(&session, &task, question, timeout).await })
    }

    /// The next question that the client gets.
    async fn asked(&mut self) -> Value {
        let request = self.stream.next_request().await.expect("the stream goes on");
        assert_eq!(request["method"], "elicitation/create", "{request}");
        request
    }

    async fn accept(&self, request: &Value, n: u64) {
        let status = self.client.answer(request, json!({"action": "accept", "content": {"n": n}})).await;
        assert_eq!(status, StatusCode::ACCEPTED);
    }

    async fn reopen(&mut self) {
        self.stream = self.client.open_stream().await;
    }
}

#[actix::test]
async fn each_outcome_over_http() {
    let mut table = Vec::new();
    let mut scene = Scene::with_forms().await;
    let answers = [
        ("accepted", json!({"action": "accept", "content": {"n": 7}}), "Accept({\"n\": Number(7)})"),
        ("accepted, wrong content", json!({"action": "accept", "content": {"n": "x"}}), "not fit the schema at /n"),
        ("accepted, no content", json!({"action": "accept"}), "not fit the schema at /"),
        ("declined", json!({"action": "decline"}), "Decline"),
        ("cancelled", json!({"action": "cancel"}), "Cancel { reason: None }"),
        ("an answer that is none", json!({"action": "explode"}), "no action that MCP knows"),
        ("an empty answer", json!({}), "no action that MCP knows"),
    ];
    for (case, answer, expected) in answers {
        let begun = Instant::now();
        let worker = scene.ask(&task(case), form(case));
        let asked = scene.asked().await;
        assert_eq!(scene.client.answer(&asked, answer).await, StatusCode::ACCEPTED);
        let got = format!("{:?}", outcome(worker).await);
        assert!(got.contains(expected), "{case}: {got}");
        table.push((case, begun.elapsed(), got));
    }
    let begun = Instant::now();
    let worker = scene.ask(&task("error"), form("?"));
    let asked = scene.asked().await;
    scene.client.refuse(&asked, "no screen").await;
    let got = reason(outcome(worker).await);
    assert_eq!(got, "the client refused: no screen");
    table.push(("JSON-RPC error", begun.elapsed(), got));

    let begun = Instant::now();
    let worker = scene.ask(&task("back"), form("?"));
    let asked = scene.asked().await;
    scene.reopen().await;
    let again = scene.asked().await;
    assert_eq!(again["id"], asked["id"]);
    scene.accept(&again, 1).await;
    let got = outcome(worker).await;
    assert_eq!(got, accept(1));
    table.push(("leaves before answering, comes back", begun.elapsed(), format!("{got:?}")));

    let (begun, timeout) = (Instant::now(), Duration::from_millis(400));
    let worker = scene.ask_for(&task("never"), form("?"), timeout);
    let asked = scene.asked().await;
    let got = reason(outcome(worker).await);
    assert_eq!(got, "no answer came within 400ms");
    table.push(("never answered, timeout 400 ms", begun.elapsed(), got));
    let withdrawn = scene.stream.next_notification().await.unwrap();
    assert_eq!(withdrawn["params"]["requestId"], asked["id"], "{withdrawn}");

    let begun = Instant::now();
    let worker = scene.ask(&task("deleted"), form("?"));
    scene.asked().await;
    scene.client.delete().await;
    let got = reason(outcome(worker).await);
    assert_eq!(got, "the session has ended");
    table.push(("session deleted", begun.elapsed(), got));
    scene.redis.assert_no_key_without_expiry().await;

    let url = || Elicitation::url("Log in", "https://example.com/login", "e-1");
    let (none, forms, urls) = (json!({}), json!({"elicitation": {}}), json!({"elicitation": {"url": {}}}));
    let cases = [
        ("no capability", none, form("?")),
        ("URL to a client of forms", forms, url()),
        ("form to one of URLs", urls, form("?")),
    ];
    for (case, capabilities, question) in cases {
        let scene = Scene::new(capabilities).await;
        let begun = Instant::now();
        let got = reason(outcome(scene.ask(&task(case), question)).await);
        assert_eq!(got, "the client has not declared this mode of elicitation", "{case}");
        table.push((case, begun.elapsed(), got));
    }
    println!("a client over HTTP, Redis");
    for (case, took, got) in table {
        println!("| {case} | {got} | {:.1} ms |", took.as_secs_f64() * 1000.0);
    }
}

#[actix::test]
async fn urls_are_asked_where_they_are_declared() {
    let mut scene = Scene::new(json!({"elicitation": {"form": {}, "url": {}}})).await;
    let worker = scene.ask(&task("url"), Elicitation::url("Log in", "https://example.com/login", "e-1"));
    let asked = scene.asked().await;
    let meta = json!({"io.modelcontextprotocol/related-task": {"taskId": "url"}});
    let expected = json!({"mode": "url", "message": "Log in", "url": "https://example.com/login",
        "elicitationId": "e-1", "_meta": meta});
    assert_eq!(asked["params"], expected);
    scene.client.answer(&asked, json!({"action": "accept"})).await;
    assert_eq!(outcome(worker).await, Answer::Accept(serde_json::Map::new()));
    let worker = scene.ask(&task("form"), form("?"));
    let asked = scene.asked().await;
    scene.accept(&asked, 3).await;
    assert_eq!(outcome(worker).await, accept(3));
}

#[actix::test]
async fn nothing_internal_reaches_the_client() {
    let mut scene = Scene::with_forms().await;
    let owner = TaskKey::of_scope("client|alice", "task-7").unwrap();
    let worker = scene.ask(&owner, form("How many?"));
    let status = scene.stream.next_notification().await.unwrap();
    let request = scene.asked().await;
    for message in [&status, &request] {
        for secret in ["task_scope", "alice", "\"elicitation\"", "deadline", "requestId"] {
            assert!(!message.to_string().contains(secret), "{message}");
        }
    }
    assert_eq!(status["params"]["status"], "input_required");
    let fields: Vec<_> = status["params"]["_meta"].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["mcp-courier/id"]);
    assert_eq!(request["jsonrpc"], "2.0");
    let mut fields: Vec<_> = request["params"].as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["_meta", "message", "requestedSchema"]);
    assert_eq!(request["params"]["_meta"], json!({"io.modelcontextprotocol/related-task": {"taskId": "task-7"}}));
    scene.accept(&request, 1).await;
    assert_eq!(outcome(worker).await, accept(1));
}

#[actix::test]
async fn duplicate_answers_over_http_never_satisfy_the_next_question() {
    let mut scene = Scene::with_forms().await;
    let mut earlier = None;
    for n in 0..10 {
        let worker = scene.ask(&task("t"), form("?"));
        let asked = scene.asked().await;
        if let Some(earlier) = &earlier {
            scene.accept(earlier, 99).await;
        }
        scene.accept(&asked, n).await;
        scene.accept(&asked, 98).await;
        assert_eq!(outcome(worker).await, accept(n));
        earlier = Some(asked);
    }
}

#[actix::test]
async fn an_answer_while_no_stream_is_open_counts() {
    let mut scene = Scene::with_forms().await;
    for n in 0..5 {
        let worker = scene.ask(&task("t"), form("?"));
        let asked = scene.asked().await;
        let id = asked["id"].as_str().unwrap().strip_prefix("mcp-courier:elicit:").unwrap().to_owned();
        scene.stream.close();
        scene.accept(&asked, n).await;
        assert_eq!(outcome(worker).await, accept(n));
        let settled = scene.server.courier.answer(&scene.session(), &id, accept(99)).await.unwrap();
        assert_eq!(settled, Settled::NotWaiting);
        scene.reopen().await;
    }
}

#[actix::test]
async fn an_answer_may_arrive_at_any_server_of_the_fleet() {
    let mut scene = Scene::with_forms().await;
    // A client can post only to a server that has its session. Where it would arrive, this is what it becomes.
    let other = server(&scene.redis.url()).await;
    for n in 0..5 {
        let worker = scene.ask(&task("t"), form("?"));
        let asked = scene.asked().await;
        let id = asked["id"].as_str().unwrap().strip_prefix("mcp-courier:elicit:").unwrap().to_owned();
        let settled = other.courier.answer(&scene.session(), &id, accept(n)).await.unwrap();
        assert_eq!(settled, Settled::Done);
        assert_eq!(outcome(worker).await, accept(n));
        // The user answers at the first one too.
        scene.accept(&asked, 99).await;
    }
}

#[actix::test]
async fn a_session_that_goes_on_at_another_server_is_asked_there() {
    let mut scene = Scene::with_forms().await;
    let worker = scene.ask(&task("t"), form("?"));
    let asked = scene.asked().await;
    let other = scene_at_another_server(&scene).await;
    let question = other.asked().await.question;
    assert_eq!(asked["id"], format!("mcp-courier:elicit:{}", question.request_id));
    // Both answers arrive; the first counts.
    scene.accept(&asked, 1).await;
    assert_eq!(outcome(worker).await, accept(1));
    scene.redis.assert_no_key_without_expiry().await;
}

/// The same session at another server, as a bare one: rmcp's cannot be given an id.
async fn scene_at_another_server(scene: &Scene) -> super::client::Client {
    let courier = Courier::start(&scene.redis.url(), config()).await.unwrap();
    let client = super::client::client();
    courier.ensure_subscriber(&scene.session(), client.session.clone()).await.unwrap();
    client
}

#[actix::test]
async fn deliveries_and_other_questions_go_on_while_one_is_open() {
    let mut scene = Scene::with_forms().await;
    let open = scene.ask(&task("open"), form("?"));
    let asked = scene.asked().await;
    let publisher = scene.server.courier.publisher();
    for n in 0..50 {
        let status = Task::new(format!("t{n}"), TaskStatus::Working, std::time::SystemTime::now());
        publisher.push(&scene.session(), Notification::task_status(&status)).await.unwrap();
    }
    for n in 0..50 {
        assert_eq!(scene.stream.next_notification().await.unwrap()["params"]["taskId"], format!("t{n}"));
    }
    let other = scene.ask(&task("other"), form("?"));
    let second = scene.asked().await;
    scene.accept(&second, 2).await;
    assert_eq!(outcome(other).await, accept(2));
    scene.accept(&asked, 1).await;
    assert_eq!(outcome(open).await, accept(1));
}
