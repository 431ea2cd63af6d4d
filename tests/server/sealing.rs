//! Sealed payloads in a fleet: what Redis holds, sessions that move between servers, and keys that are changed.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_courier::{
    Answer, Config, ConfigBuilder, Courier, Elicitation, Notification, Publisher, SealingKey, SealingKeys, SessionId,
    TaskKey,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use redis::Value as RedisValue;
use reqwest::StatusCode;
use serde_json::{Value, json};

/// Words that stand in payloads only: in methods, params, `_meta`, questions, forms, answers and `initialize`.
const SECRETS: [&str; 8] = [
    "notifications/hidden_method",
    "hidden_param",
    "hidden_meta",
    "hidden_status",
    "hidden_question",
    "hidden_field",
    "hidden_answer",
    "hidden_capability",
];

fn key(id: &str) -> SealingKey {
    let bytes: Vec<u8> = id.bytes().cycle().take(SealingKey::LENGTH).collect();
    SealingKey::from_bytes(&bytes).unwrap()
}

fn sealing(id: &str) -> SealingKeys {
    SealingKeys::sealing(id, key(id)).unwrap()
}

fn config(keys: Option<SealingKeys>) -> Config {
    let config: ConfigBuilder = waiting::config().dead_letters(10).session_time_to_live(Duration::from_secs(60));
    let config = config.backoff_initial(Duration::from_millis(5)).backoff_max(Duration::from_millis(100));
    match keys {
        Some(keys) => config.sealing(keys),
        None => config,
    }
    .build()
    .unwrap()
}

async fn server(redis: &RedisServer, keys: Option<SealingKeys>) -> McpServer {
    let courier = Courier::start(&redis.url(), config(keys)).await.unwrap();
    let manager = courier.session_manager();
    McpServer::of_fleet(courier, manager)
}

async fn worker(redis: &RedisServer, keys: Option<SealingKeys>) -> Publisher {
    Publisher::connect(&redis.url(), config(keys)).await.unwrap()
}

fn id(client: &RawClient) -> SessionId {
    SessionId::new(client.session_id()).unwrap()
}

fn note(n: usize) -> Notification {
    let notification = Notification::new("notifications/hidden_method").unwrap();
    let notification = notification.with_params(json!({"n": n, "text": "hidden_param"})).unwrap();
    notification.with_meta(json!({"more": "hidden_meta"})).unwrap()
}

fn question() -> Elicitation {
    let properties = json!({"hidden_field": {"type": "string"}});
    Elicitation::form("hidden_question", json!({"type": "object", "properties": properties})).unwrap()
}

fn ask(worker: &Publisher, client: &RawClient) -> tokio::task::JoinHandle<Answer> {
    let (elicitor, session, task) = (worker.elicitor(), id(client), TaskKey::anonymous("task-1").unwrap());
    tokio::spawn(async move {
        elicitor.elicit(&session, &task, question(), Duration::from_secs(120)).await.expect("an answer")
    })
}

fn accepted() -> Answer {
    let Value::Object(content) = json!({"hidden_field": "hidden_answer"}) else { unreachable!() };
    Answer::Accept(content)
}

async fn client_of(server: &McpServer) -> RawClient {
    RawClient::connect_with(&server.url, json!({"elicitation": {}, "experimental": {"hidden_capability": {}}})).await
}

/// Every byte that any client sends to Redis, and that any script writes, as `MONITOR` shows them.
struct Monitor(Arc<Mutex<Vec<u8>>>);

impl Monitor {
    fn begin(redis: &RedisServer) -> Self {
        let mut connection = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
        connection.write_all(b"MONITOR\r\n").unwrap();
        let mut ok = [0; 5];
        connection.read_exact(&mut ok).unwrap();
        assert_eq!(&ok, b"+OK\r\n");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut bytes = [0; 65536];
            while let Ok(count @ 1..) = connection.read(&mut bytes) {
                sink.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self(seen)
    }

    /// Returns everything up to now.
    async fn text(&self, redis: &RedisServer) -> String {
        let seen = || String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned();
        let () = redis::cmd("ECHO").arg("end-of-story").query_async(&mut redis.connection().await).await.unwrap();
        eventually("the last command", SOON, async || seen().contains("end-of-story")).await;
        seen()
    }
}

/// Appends each string in an answer of Redis.
fn flatten(value: &RedisValue, out: &mut String) {
    match value {
        RedisValue::Array(items) | RedisValue::Set(items) => items.iter().for_each(|item| flatten(item, out)),
        RedisValue::BulkString(bytes) => *out += &String::from_utf8_lossy(bytes),
        RedisValue::SimpleString(text) => *out += text,
        RedisValue::Int(_) | RedisValue::Double(_) | RedisValue::Nil | RedisValue::Okay => {}
        other => panic!("this test does not know how to read {other:?}"),
    }
    out.push('\n');
}

/// Returns the name, the type and the whole content of every key. A key of an unknown type fails the test.
async fn everything(redis: &RedisServer) -> Vec<(String, String)> {
    let mut connection = redis.connection().await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let mut all = Vec::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query_async(&mut connection).await.unwrap();
        let command: &[&str] = match kind.as_str() {
            "string" => &["GET", &key],
            "list" => &["LRANGE", &key, "0", "-1"],
            "hash" => &["HGETALL", &key],
            "set" => &["SMEMBERS", &key],
            "zset" => &["ZRANGE", &key, "0", "-1"],
            "stream" => &["XRANGE", &key, "-", "+"],
            "none" => continue,
            other => panic!("this test does not know how to read a {other}, which {key} is"),
        };
        let value = redis::cmd(command[0]).arg(&command[1..]).query_async(&mut connection).await.unwrap();
        let mut content = String::new();
        flatten(&value, &mut content);
        all.push((key, content));
    }
    all
}

/// Words of [`SECRETS`] in everything that Redis holds now.
async fn shown(redis: &RedisServer, found: &mut HashSet<&'static str>) {
    for (key, content) in everything(redis).await {
        found.extend(SECRETS.iter().filter(|secret| key.contains(**secret) || content.contains(**secret)));
    }
}

/// A client is told and asked, moves to another server while it is asked, and answers there. Returns the secrets that
/// lay in Redis at any of the looks, and all that was ever sent to Redis.
async fn story(keys: Option<SealingKeys>) -> (HashSet<&'static str>, String) {
    let redis = RedisServer::start();
    let monitor = Monitor::begin(&redis);
    let (a, b) = (server(&redis, keys.clone()).await, server(&redis, keys.clone()).await);
    let worker = worker(&redis, keys).await;
    let client = client_of(&a).await;
    let mut found = HashSet::new();
    // One becomes a dead letter, the other waits in the queue.
    let short = note(0).with_time_to_live(Duration::from_millis(1)).unwrap().with_receipt();
    let expired = worker.push(&id(&client), short).await.unwrap().id;
    worker.push(&id(&client), note(1)).await.unwrap();
    let mut task = mcp_courier::Task::new("t", mcp_courier::TaskStatus::Working, std::time::SystemTime::now());
    task.status_message = Some("hidden_status".to_owned());
    worker.push(&id(&client), Notification::task_status(&task)).await.unwrap();
    shown(&redis, &mut found).await;
    let mut stream = client.open_stream().await;
    let [first, second] = stream.notifications(2).await.try_into().unwrap();
    assert_eq!(
        (&first["method"], &first["params"]["text"]),
        (&json!("notifications/hidden_method"), &json!("hidden_param"))
    );
    assert_eq!((&first["params"]["n"], &first["params"]["_meta"]["more"]), (&json!(1), &json!("hidden_meta")));
    assert_eq!(second["params"]["statusMessage"], "hidden_status");
    assert!(worker.until_settled(&id(&client), expired, SOON).await.unwrap().is_settled());
    assert_eq!(worker.dead_letters().list(&id(&client), 0, 10).await.unwrap().len(), 1);
    let answer = ask(&worker, &client);
    let asked = stream.next_request().await.unwrap();
    assert_eq!(asked["params"]["message"], "hidden_question");
    let is_open = async || everything(&redis).await.iter().any(|(key, _)| key.ends_with(":questions"));
    eventually("an open question", SOON, is_open).await;
    shown(&redis, &mut found).await;
    // B knows the client only by what A has stored.
    drop(stream);
    let client = client.at(&b.url);
    let mut stream = client.open_stream().await;
    let asked = stream.next_request().await.unwrap();
    assert_eq!(asked["params"]["message"], "hidden_question", "asked again at B");
    let result = json!({"action": "accept", "content": {"hidden_field": "hidden_answer"}});
    assert_eq!(client.answer(&asked, result).await, StatusCode::ACCEPTED);
    assert_eq!(answer.await.unwrap(), accepted());
    // The dead letter is queued again, and expires again.
    assert_eq!(worker.dead_letters().redrive(&id(&client)).await.unwrap().redriven, 1);
    shown(&redis, &mut found).await;
    worker.push(&id(&client), note(2)).await.unwrap();
    while stream.next_notification().await.unwrap()["params"]["n"] != 2 {}
    (found, monitor.text(&redis).await)
}

#[actix::test]
async fn no_payload_is_in_redis_in_clear_at_any_time_of_a_clients_life() {
    // The plain run shows that this test finds what lies there.
    let (found, sent) = story(None).await;
    for secret in SECRETS {
        assert!(sent.contains(secret), "{secret} is no part of the story");
    }
    let answer_is_brief = HashSet::from(["hidden_answer"]);
    let missed: HashSet<_> = SECRETS.into_iter().filter(|secret| !found.contains(secret)).collect();
    assert!(missed.is_subset(&answer_is_brief), "{missed:?} lay in Redis and was not found");
    let (found, sent) = story(Some(sealing("k1").required())).await;
    assert_eq!(found, HashSet::new());
    let lines = || sent.lines().filter(|line| SECRETS.iter().any(|secret| line.contains(secret)));
    assert_eq!(lines().count(), 0, "{:?}", lines().next());
    assert!(sent.contains(r#"\"k\":\"k1\""#), "something was sealed");
}

#[actix::test]
async fn a_key_is_changed_while_the_fleet_runs() {
    let redis = RedisServer::start();
    let [old, next, changed, new] = [
        sealing("old"),
        sealing("old").may_open("new", key("new")).unwrap(),
        sealing("new").may_open("old", key("old")).unwrap(),
        sealing("new"),
    ];
    // The new key is everywhere, and one half of the fleet seals with it.
    let (a, b) = (server(&redis, Some(next.clone())).await, server(&redis, Some(changed.clone())).await);
    let client = client_of(&a).await;
    let stored_under = async |key: &str| {
        let state = everything(&redis).await.into_iter().find(|(name, _)| name.contains(":session:")).unwrap().1;
        state.contains(&format!(r#""k":"{key}""#))
    };
    eventually("the session, stored by A", SOON, async || stored_under("old").await).await;
    let workers = [worker(&redis, Some(next)).await, worker(&redis, Some(changed)).await];
    for (n, server) in [&a, &b, &a, &b].into_iter().enumerate() {
        let client = client.at(&server.url);
        let mut stream = client.open_stream().await;
        for worker in &workers {
            worker.push(&id(&client), note(n)).await.unwrap();
            assert_eq!(stream.next_notification().await.unwrap()["params"]["n"], n);
            let answer = ask(worker, &client);
            let asked = stream.next_request().await.unwrap();
            let result = json!({"action": "accept", "content": {"hidden_field": "hidden_answer"}});
            assert_eq!(client.answer(&asked, result).await, StatusCode::ACCEPTED);
            assert_eq!(answer.await.unwrap(), accepted());
        }
    }
    // B has loaded the session and stores it anew, so that the old key can go.
    eventually("the session, stored by B", Duration::from_secs(60), async || stored_under("new").await).await;
    let c = server(&redis, Some(new)).await;
    let client = client.at(&c.url);
    let mut stream = client.open_stream().await;
    workers[1].push(&id(&client), note(9)).await.unwrap();
    assert_eq!(stream.next_notification().await.unwrap()["params"]["n"], 9);
    // A server that never got the new key does not know the session: its client begins a new one.
    let behind = server(&redis, Some(old)).await;
    assert_eq!(client.at(&behind.url).open_stream_after(None).await.err(), Some(StatusCode::NOT_FOUND));
}

#[actix::test]
async fn a_stored_session_that_cannot_be_opened_or_is_plain_and_must_not_be_is_unknown() {
    mcp_courier_testing::in_own_process!();
    mcp_courier_testing::log::begin();
    let redis = RedisServer::start();
    let (sealed, plain) = (server(&redis, Some(sealing("k1"))).await, server(&redis, None).await);
    let (strict, other) =
        (server(&redis, Some(sealing("k1").required())).await, server(&redis, Some(sealing("k2"))).await);
    let clients = [client_of(&sealed).await, client_of(&plain).await];
    let is_stored =
        async || everything(&redis).await.iter().filter(|(name, _)| name.contains(":session:")).count() == 2;
    eventually("two stored sessions", SOON, is_stored).await;
    let status = async |client: &RawClient, server: &McpServer| {
        client.at(&server.url).open_stream_after(None).await.err().unwrap_or(StatusCode::OK)
    };
    for _ in 0..5 {
        assert_eq!(status(&clients[0], &plain).await, StatusCode::NOT_FOUND, "without a key");
    }
    assert_eq!(status(&clients[0], &other).await, StatusCode::NOT_FOUND, "with another key");
    assert_eq!(status(&clients[1], &strict).await, StatusCode::NOT_FOUND, "a plain one");
    assert_eq!(status(&clients[1], &sealed).await, StatusCode::OK, "a plain one is served until it must be sealed");
    assert_eq!(status(&clients[0], &strict).await, StatusCode::OK);
    let why = r#"it is sealed with key "k1" and cannot be opened: this process has no sealing keys"#;
    let logged = mcp_courier_testing::log::lines(&[
        "a stored session is refused",
        clients[0].session_id().get(..8).unwrap(),
        why,
    ]);
    assert_eq!(logged.len(), 3, "the first, the second and the fourth: {logged:?}");
}

#[actix::test]
async fn an_rmcp_client_is_told_and_asked_as_without_seals() {
    use rmcp::model::{
        ClientCapabilities, ClientConfig, CustomNotification, ElicitRequestParams, ElicitResult, ElicitationAction,
        Implementation,
    };
    use rmcp::service::{NotificationContext, RequestContext};
    use rmcp::transport::StreamableHttpClientTransport;
    use rmcp::{ClientHandler, RoleClient, ServiceExt};

    struct User(tokio::sync::mpsc::UnboundedSender<Value>);

    impl ClientHandler for User {
        fn get_info(&self) -> ClientConfig {
            ClientConfig::new(
                ClientCapabilities::builder().enable_elicitation().build(),
                Implementation::new("user", "0"),
            )
        }

        async fn on_custom_notification(&self, notification: CustomNotification, _: NotificationContext<RoleClient>) {
            let _ = self.0.send(notification.params.unwrap()["text"].clone());
        }

        async fn create_elicitation(
            &self,
            _request: ElicitRequestParams,
            _context: RequestContext<RoleClient>,
        ) -> Result<ElicitResult, rmcp::ErrorData> {
            Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({"hidden_field": "hidden_answer"})))
        }
    }
    let redis = RedisServer::start();
    let (server, worker) = (server(&redis, Some(sealing("k1"))).await, worker(&redis, Some(sealing("k1"))).await);
    let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
    let client = User(sender).serve(StreamableHttpClientTransport::from_uri(server.url.as_str())).await.unwrap();
    // The one tool of this server has the id of the session as its name.
    let session = SessionId::new(&client.list_all_tools().await.unwrap()[0].name).unwrap();
    worker.push(&session, note(1)).await.unwrap();
    assert_eq!(told.recv().await.unwrap(), "hidden_param");
    let task = TaskKey::anonymous("t").unwrap();
    let answer = worker.elicitor().elicit(&session, &task, question(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(answer, accepted());
    client.cancel().await.unwrap();
}
