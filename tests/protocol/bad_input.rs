//! Bad input: messages that anyone can write into a queue, and notifications that a worker can push.
//!
//! No such input causes a panic or blocks a queue, and a client gets nothing but JSON-RPC.
//!
//! Each property runs 256 cases. For longer: `PROPTEST_CASES=1000000 cargo test --release --test protocol bad_input::`,
//! and with `--lib` in place of all that follows for private code. A counterexample is shrunk and printed. Store it in
//! `tests/corpus/envelope`: each file there is read at every run. `NAME.expected` beside a file has the outcome. Where
//! that is missing the test writes it, so that you can check and keep it.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcp_courier::testing::envelope::{Envelope, Timestamp, outbound};
use mcp_courier::{
    Config, Courier, HandOverError, ListSubscribers, McpSession, Notification, NotificationId, Outbound, Publisher,
    PushRefusal, SessionId, Task, TaskStatus, async_trait,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

const TTL: Duration = Duration::from_secs(300);
/// Trace context of a pusher.
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const RELATED: &str = "io.modelcontextprotocol/related-task";

/// Returns the outcome of a message of the queue, and asserts what must hold for every message.
fn judge(raw: &[u8]) -> String {
    let read = match Envelope::decode("q", raw.to_vec(), TTL) {
        Ok(read) => read,
        Err(why) => {
            let why = why.to_string();
            assert!(!why.is_empty() && why.len() < 500, "no message of a reasonable length: {why}");
            return format!("refused: {why}\n");
        }
    };
    let id = read.id;
    assert_eq!(Envelope::decode("q", raw.to_vec(), TTL).unwrap().id, id, "the same at each reading");

    // Failing changes nothing but the attempt and its error, and the attempts do grow.
    let mut last = read.clone();
    for error in ["first", "\0\u{1f4a9}".repeat(300).as_str()] {
        let rewritten = last.after_failure(error);
        let next = Envelope::decode("q", rewritten.clone(), TTL).expect("what was read is read again");
        assert_eq!((next.id, next.attempt), (id, last.attempt.saturating_add(1)));
        assert!(error.starts_with(next.last_error.as_deref().unwrap()));
        assert_eq!((next.method(), next.params()), (read.method(), read.params()));
        assert_eq!((next.enqueued_at, next.expires_at), (read.enqueued_at, read.expires_at));
        assert_eq!(next.question, read.question);
        assert_eq!(unknown(&rewritten), unknown(raw));
        last = next;
    }

    let delivered = outbound(&read).to_json();
    assert!(!delivered.contains(['\n', '\r']), "it is one line");
    let message = texts(&delivered);
    assert_eq!(message.keys().collect::<Vec<_>>(), ["jsonrpc", "method", "params"], "a notification has no id");
    assert_eq!(message["jsonrpc"], "\"2.0\"");
    assert!(message["method"].starts_with("\"notifications/"));
    let meta = texts(&texts(&message["params"])["_meta"]);
    assert_eq!(meta["mcp-courier/id"], format!("\"{id}\""));
    if let Some(related) = meta.get(RELATED) {
        let hidden = ["task_scope", "elicitation"];
        assert!(!texts(related).keys().any(|key| hidden.contains(&key.as_str())), "the relay's own: {related}");
    }
    if let Some(question) = &read.question {
        let params = question.to_params();
        assert!(params["message"].is_string() && params["_meta"][RELATED].get("task_scope").is_none());
    }
    let expires = read.expires_at.map_or("never".to_owned(), |at| at.to_string());
    let question = if read.question.is_some() { ", with a question" } else { "" };
    format!("read as {id}, attempt {}, expires {expires}{question}\n{delivered}\n", read.attempt)
}

/// Returns the fields that a failed attempt must not change.
fn unknown(raw: &[u8]) -> BTreeMap<String, String> {
    let mut fields = texts(std::str::from_utf8(raw).unwrap());
    for ours in ["attempt", "last_error", "id"] {
        fields.remove(ours);
    }
    fields
}

/// The fields of an object, each value as it is written.
fn texts(object: &str) -> BTreeMap<String, String> {
    let fields: BTreeMap<String, Box<RawValue>> = serde_json::from_str(object).expect("an object");
    fields.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()
}

#[test]
fn each_file_of_the_corpus_is_read_or_refused_as_it_is_recorded() {
    let files = corpus();
    assert!(files.len() >= 30, "{} files were found", files.len());
    for file in files {
        let came = judge(&std::fs::read(&file).unwrap());
        let record = file.with_extension("expected");
        match std::fs::read_to_string(&record) {
            Ok(expected) => assert_eq!(came, expected, "{}", file.display()),
            Err(_) => std::fs::write(record, came).unwrap(),
        }
    }
}

/// Returns a message of the corpus as one that was queued just now: the times in the files are fixed, and have passed.
fn queued_now(raw: &[u8]) -> Vec<u8> {
    let now = Timestamp::of_this_host();
    let times = [("2026-11-23T10:00:00", now), ("2026-11-23T10:05:00", now.plus(TTL))];
    times.iter().fold(raw.to_vec(), |raw, (fixed, at)| {
        let at = at.to_string();
        let mut parts = Vec::new();
        let mut rest = raw.as_slice();
        while let Some(found) = rest.windows(fixed.len()).position(|part| part == fixed.as_bytes()) {
            parts.extend_from_slice(&rest[..found]);
            parts.extend_from_slice(&at.as_bytes()[..fixed.len()]);
            rest = &rest[found + fixed.len()..];
        }
        parts.extend_from_slice(rest);
        parts
    })
}

fn corpus() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/envelope");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_none_or(|e| e != "expected")).collect()
}

/// Refuses each once.
#[derive(Default)]
struct Fussy {
    offered: Mutex<HashSet<NotificationId>>,
    taken: Mutex<Vec<String>>,
}

#[async_trait]
impl McpSession for Fussy {
    async fn hand_over(&self, notification: &Outbound) -> Result<(), HandOverError> {
        let is_new = self.offered.lock().unwrap().insert(notification.id);
        let refused = is_new || notification.attempt == 0;
        if !refused {
            self.taken.lock().unwrap().push(notification.method().to_owned());
        }
        if refused { Err(HandOverError::Transient("once".to_owned())) } else { Ok(()) }
    }
}

#[actix::test]
async fn g1_g2_nothing_in_the_corpus_stops_a_queue_or_stays_in_redis_for_ever() {
    let redis = RedisServer::start();
    let config = waiting::config().backoff_initial(Duration::from_millis(1)).max_attempts(1000).build().unwrap();
    let courier = Courier::start(&redis.url(), config).await.unwrap();
    let session = SessionId::new("s").unwrap();
    let (queue, mut connection) = ("mcp-courier:notifications:s", redis.connection().await);
    let files = corpus();
    for file in &files {
        let raw = queued_now(&std::fs::read(file).unwrap());
        let mut pipe = redis::pipe();
        pipe.lpush(queue, &raw).hset(format!("{{{queue}}}:questions"), file.to_str().unwrap(), &raw);
        pipe.zadd("mcp-courier:sessions", &raw, 9e15);
        pipe.query_async::<()>(&mut connection).await.unwrap();
    }
    courier.publisher().push(&session, Notification::new("notifications/last").unwrap()).await.unwrap();
    let fussy = Arc::new(Fussy::default());
    courier.ensure_subscriber(&session, fussy.clone()).await.unwrap();
    eventually("the last is taken", SOON, || async {
        fussy.taken.lock().unwrap().last().is_some_and(|method| method == "notifications/last")
    })
    .await;
    let info = courier.supervisor().send(ListSubscribers).await.unwrap().pop().unwrap();
    let refused = files.iter().filter(|file| judge(&std::fs::read(file).unwrap()).starts_with("refused")).count();
    assert!(info.discarded >= refused as u64, "{info:?}");
    let reached = courier.publisher().broadcast(&Notification::tools_list_changed()).await.unwrap();
    assert_eq!(reached.len(), 1, "its owner is found among what is no session");
    courier.shutdown(SOON).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    for key in keys.iter().filter(|key| !key.ends_with("sessions") && !key.ends_with("questions")) {
        let life: i64 = redis::cmd("PTTL").arg(key).query_async(&mut connection).await.unwrap();
        assert!((0..400 * 24 * 3_600_000).contains(&life), "{key} lives for {life} ms");
    }
}

/// JSON as bytes, so that it can be wrong.
#[derive(Debug, Clone)]
enum Node {
    Raw(Vec<u8>),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

impl Node {
    fn of(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::Array(items.iter().map(Self::of).collect()),
            Value::Object(fields) => Self::Object(fields.iter().map(|(k, v)| (k.clone(), Self::of(v))).collect()),
            other => Self::Raw(other.to_string().into_bytes()),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Raw(raw) => out.extend(raw),
            Self::Array(items) => {
                out.push(b'[');
                for (n, item) in items.iter().enumerate() {
                    out.extend(if n > 0 { "," } else { "" }.bytes());
                    item.write(out);
                }
                out.push(b']');
            }
            Self::Object(fields) => {
                out.push(b'{');
                for (n, (key, value)) in fields.iter().enumerate() {
                    out.extend(if n > 0 { "," } else { "" }.bytes());
                    out.extend(Value::from(key.as_str()).to_string().bytes());
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }

    fn size(&self) -> usize {
        1 + match self {
            Self::Raw(_) => 0,
            Self::Array(items) => items.iter().map(Self::size).sum(),
            Self::Object(fields) => fields.iter().map(|(_, v)| v.size()).sum(),
        }
    }

    /// The n-th of its nodes, itself first.
    fn at(&mut self, n: usize) -> &mut Self {
        if n == 0 {
            return self;
        }
        let mut left = n - 1;
        let children: Vec<&mut Node> = match self {
            Self::Raw(_) => Vec::new(),
            Self::Array(items) => items.iter_mut().collect(),
            Self::Object(fields) => fields.iter_mut().map(|(_, v)| v).collect(),
        };
        for child in children {
            let size = child.size();
            if left < size {
                return child.at(left);
            }
            left -= size;
        }
        unreachable!("n is below the size")
    }
}

#[derive(Debug, Clone)]
enum Change {
    Drop(usize),
    Duplicate(usize),
    Retype(Vec<u8>),
    Nest(usize),
    AsArray,
    Add(String, Vec<u8>),
}

impl Change {
    fn apply(&self, node: &mut Node) {
        match (self, node) {
            (Self::Drop(n), Node::Object(fields)) if !fields.is_empty() => drop(fields.remove(n % fields.len())),
            (Self::Duplicate(n), Node::Object(fields)) if !fields.is_empty() => {
                let (key, mut value) = fields[n % fields.len()].clone();
                if n % 2 == 0 {
                    value = Node::Raw(b"\"another\"".to_vec());
                }
                fields.push((key, value));
            }
            (Self::Add(key, value), Node::Object(fields)) => fields.push((key.clone(), Node::Raw(value.clone()))),
            (Self::AsArray, node) => {
                if let Node::Object(fields) = node {
                    *node = Node::Array(std::mem::take(fields).into_iter().map(|(_, v)| v).collect());
                }
            }
            (Self::Retype(raw), node) => *node = Node::Raw(raw.clone()),
            (Self::Nest(depth), node) => {
                let mut raw = "[".repeat(*depth).into_bytes();
                node.write(&mut raw);
                raw.extend("]".repeat(*depth).bytes());
                *node = Node::Raw(raw);
            }
            _ => {}
        }
    }
}

fn token() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "null",
        "true",
        "0",
        "-1",
        "-0.0",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "1.1234567890123457",
        "0.1",
        "1e308",
        "1e999",
        "-1e999",
        "5e-324",
        "1E400",
        "01",
        "NaN",
        "Infinity",
        "[]",
        "{}",
        "\"\"",
        "\"x\"",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "\"\\u0000\"",
        "\"\\ud83d\\udca9\"",
        "\"\n\"",
        "\"notifications/\"",
        "\"notifications/x\"",
        "\"notifications/tasks/status\"",
        "\"tools/call\"",
        "\"9999-12-31T23:59:59.999999+00:00\"",
        "\"0000-01-01T00:00:00Z\"",
        "\"99999-01-01T00:00:00Z\"",
        "\"1970-01-01T00:00:00+99:99\"",
        "\"0\"",
        "\"00000000-0000-0000-0000-000000000000\"",
        "{\"a\":1,\"a\":2}",
        "{\"elicitation\":{}}",
    ]);
    prop_oneof![
        8 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => Just(b"\"\xff\xfe\"".to_vec()),
        1 => Just(b"\"\xed\xa0\x80\"".to_vec()),
        1 => (1..100_000_usize).prop_map(|n| format!("\"{}\"", "x".repeat(n)).into_bytes()),
        1 => any::<f64>().prop_map(|n| format!("{n:e}").into_bytes()),
        1 => ".{0,20}".prop_map(|text| Value::from(text).to_string().into_bytes()),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<usize>().prop_map(Change::Drop),
        any::<usize>().prop_map(Change::Duplicate),
        token().prop_map(Change::Retype),
        prop_oneof![1..200_usize, Just(10_000)].prop_map(Change::Nest),
        Just(Change::AsArray),
        (prop::sample::select(vec!["more", "_meta", "params", "id", "attempt", "method", "at", "ttl"]), token())
            .prop_map(|(key, value)| Change::Add(key.to_owned(), value)),
    ]
}

fn bases() -> Vec<Value> {
    let now = Timestamp::of_this_host();
    let related = json!({"taskId": "t", "status": "input_required", "statusMessage": "?", "task_scope": "client|sub",
        "elicitation": {"requestId": "r", "message": "Sure?", "deadline": "9999-11-23T11:00:00Z",
            "requestedSchema": {"type": "object", "properties": {"ok": {"type": "boolean"}}}}});
    vec![
        json!({"notification": {"method": "notifications/x", "params": {"n": 0.1, "_meta": {"a": [1]}}, "_meta": {"b": 2}},
            "attempt": 0, "enqueued_at": now.to_string(),
            "expires_at": now.plus(TTL).to_string(), "traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v",
            "id": "01a20633-8601-72df-afc7-ed3bd94d95cf"}),
        json!({"notification": {"method": "notifications/tasks/status", "params": {"taskId": "t", "status": "working"},
            "_meta": {RELATED: related}}, "attempt": 1, "enqueued_at": now.to_string(),
            "last_error": "x", "more": {"kept": [0.1, null]}}),
        json!({"notification": {"method": "notifications/x", "params": {}}, "attempt": 0, "enqueued_at": now.to_string(),
            "expires_at": now.plus(TTL).to_string(), "ttl": 300_000_000, "at": now.0,
            "id": "01a20633-8601-72df-afc7-ed3bd94d95ce"}),
    ]
}

/// A valid envelope, changed here and there, and then perhaps a byte of it.
fn mutant() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop::option::weighted(0.2, (any::<usize>(), any::<u8>()));
    let changes = prop::collection::vec((any::<usize>(), change()), 0..5);
    (prop::sample::select(bases()), changes, byte).prop_map(|(base, changes, byte)| {
        let mut node = Node::of(&base);
        for (at, change) in changes {
            let at = at % node.size();
            change.apply(node.at(at));
        }
        let mut raw = Vec::new();
        node.write(&mut raw);
        if let Some((at, byte)) = byte {
            let at = at % raw.len();
            raw[at] = byte;
            if byte == 0 {
                raw.truncate(at);
            }
        }
        raw
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,9}|_meta", inner), 0..4).prop_map(|f| Value::Object(f.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_message_of_the_queue_is_read_and_kept_as_it_is_or_refused_for_a_reason(raw in mutant()) {
        judge(&raw);
    }

    #[test]
    fn so_are_any_bytes(raw in prop::collection::vec(any::<u8>(), 0..200)) {
        judge(&raw);
    }

    #[test]
    fn what_makes_no_notification_is_refused_with_what_is_allowed(method in ".*|notifications/.*", params in any_json(), meta in any_json()) {
        match Notification::new(method.clone()) {
            Ok(new) => {
                prop_assert!(method.strip_prefix("notifications/").is_some_and(|name| !name.is_empty()));
                let with_params = new.clone().with_params(params.clone());
                prop_assert_eq!(with_params.is_ok(), params.is_object() || params.is_null());
                let with_meta = new.with_meta(meta.clone());
                prop_assert_eq!(with_meta.is_ok(), meta.is_object() || meta.is_null());
                for refused in [with_params.err(), with_meta.err()].into_iter().flatten() {
                    prop_assert!(refused.to_string().contains("must be a JSON object"));
                }
            }
            Err(refused) => {
                let text = refused.to_string();
                prop_assert!(text.contains("must begin with \"notifications/\"") && text.len() < 1000, "{}", text);
            }
        }
    }

    #[test]
    fn no_time_makes_a_tasks_status_panic(before in any::<bool>(), by in any::<Duration>(), ttl in any::<Duration>()) {
        let epoch = std::time::SystemTime::UNIX_EPOCH;
        let at = if before { epoch.checked_sub(by) } else { epoch.checked_add(by) };
        let now = at.unwrap_or(epoch);
        let task = Task { ttl: Some(ttl), poll_interval: Some(ttl), ..Task::new("t", TaskStatus::Working, now) };
        let status = Notification::task_status(&task);
        let ms = serde_json::from_str::<Value>(&status.params().unwrap()).unwrap()["ttl"].as_u64().unwrap();
        prop_assert_eq!(u128::from(ms), ttl.as_millis().min(u64::MAX.into()));
    }

    #[test]
    fn what_is_no_session_id_is_refused_with_what_is_allowed(id in ".*|[!-~]{0,300}") {
        let is_allowed = (1..=256).contains(&id.len()) && id.bytes().all(|b| (0x21..=0x7e).contains(&b));
        match SessionId::new(&id) {
            Ok(read) => prop_assert!(is_allowed && read.as_str() == id),
            Err(refused) => {
                prop_assert!(!is_allowed);
                prop_assert!(refused.to_string().starts_with("a session id m") && refused.to_string().len() < 200);
            }
        }
    }
}

#[tokio::test]
async fn g2_what_is_pushed_with_ok_can_be_read_however_deep_it_is() {
    let publisher = Publisher::connect("memory://bad-input-depth", Config::default()).await.unwrap();
    let session = SessionId::new("s").unwrap();
    let of_depth = |depth: usize| {
        let nested = (2..depth).fold(json!([]), |inner, _| Value::Array(vec![inner]));
        Notification::new("notifications/x")
            .unwrap()
            .with_params(Value::Object(Map::from_iter([("v".to_owned(), nested)])))
            .unwrap()
    };
    publisher.push(&session, of_depth(100)).await.unwrap();
    for depth in [101, 127, 128, 5000] {
        let notification = of_depth(depth);
        let refused = publisher.push(&session, notification).await.unwrap_err();
        assert!(matches!(refused.reason, PushRefusal::TooDeep { limit: 100 }), "{refused}");
    }
    let meta = Notification::new("notifications/x")
        .unwrap()
        .with_meta(serde_json::from_str(&of_depth(101).params().unwrap()).unwrap())
        .unwrap();
    publisher.push(&session, meta).await.unwrap_err();
}
