//! One trace across processes: a worker that pushes, and a server that delivers to a client over HTTP. Both have
//! OpenTelemetry's SDK, and write their spans to their standard outputs.
//!
//! `cargo nextest run --workspace --test fleet one_trace --no-capture` prints the spans.

use std::collections::HashSet;

use mcp_courier::{Courier, Notification, Publisher, SessionId};
use mcp_courier_testing::child::{Child, program};
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use serde_json::{Value, json};
use tracing::Instrument;

use self::exporter::{Exported, SPAN, print, set_up};

mod exporter;

/// Names the Redis of a child process.
const REDIS: &str = "TRACES_REDIS";
/// Names the session to which a worker pushes.
const SESSION: &str = "TRACES_SESSION";

/// Text that no span may contain.
const PAYLOAD: &str = "the-payload";

/// Not a test: a server process.
#[actix::test]
#[ignore = "the program of a child process"]
async fn server_process() {
    let Ok(url) = std::env::var(REDIS) else { return };
    let _provider = set_up();
    let courier = Courier::start(&url, waiting::config().build().unwrap()).await.unwrap();
    let server = McpServer::with(courier, |server| server);
    println!("\nserving {}", server.url);
    // The end of the input is the signal to stop.
    tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await.unwrap().unwrap();
    server.shut_down().await;
}

/// Not a test: a worker process, which pushes one notification in one job, and three together in another.
#[tokio::test]
#[ignore = "the program of a child process"]
async fn worker_process() {
    let Ok(url) = std::env::var(REDIS) else { return };
    let provider = set_up();
    let session = SessionId::new(std::env::var(SESSION).unwrap()).unwrap();
    let publisher = Publisher::connect(&url, waiting::config().build().unwrap()).await.unwrap();
    let pushed = publisher.push(&session, note(0)).instrument(tracing::info_span!("job")).await.unwrap();
    println!("\npushed {}", pushed.id);
    let three = (1..4).map(|n| (session.clone(), note(n)));
    let pushed = publisher.push_many(three).instrument(tracing::info_span!("batch job")).await;
    assert!(pushed.iter().all(Result::is_ok));
    provider.shutdown().unwrap();
}

fn note(n: usize) -> Notification {
    Notification::new("notifications/x").unwrap().with_params(json!({"n": n, "text": PAYLOAD})).unwrap()
}

/// Reads the lines of a process until `delivered` spans of notifications have ended, and then to its end.
async fn lines_of(process: &str, mut child: Child, delivered: usize) -> Vec<String> {
    let (mut lines, mut so_far) = (Vec::new(), 0);
    while so_far < delivered {
        let line = child.line().await.expect("the process ended");
        so_far += usize::from(line.contains(r#""name":"deliver""#));
        lines.push(line);
    }
    child.close_input();
    let status = child.ended().await;
    assert!(status.success(), "the {process} ended with {status}");
    lines.extend(child.rest());
    lines
}

/// Returns the spans in the lines of a process.
fn spans_in(process: &'static str, lines: &[String]) -> Vec<Exported> {
    lines.iter().filter_map(|line| line.strip_prefix(SPAN)).map(|line| Exported::read(process, line)).collect()
}

#[actix::test]
async fn one_trace_leads_from_the_worker_to_the_clients_confirmation() {
    let redis = RedisServer::start();
    let start = |name, session: &str| {
        Child::start(program(module_path!(), name).env(REDIS, redis.url()).env(SESSION, session)).unwrap()
    };
    let mut server = start("server_process", "");
    let client = RawClient::connect(&server.said("serving ").await).await;
    let mut stream = client.open_stream().await;

    let worker = lines_of("worker", start("worker_process", client.session_id()), 0).await;
    let id = worker.iter().find_map(|line| line.strip_prefix("pushed ")).expect("a push").to_owned();
    let received = stream.notifications(4).await;
    let mut spans = spans_in("worker", &worker);
    spans.extend(spans_in("server", &lines_of("server", server, 4).await));
    print(&spans);

    let named = |name: &'static str| spans.iter().filter(move |span| span.name == name);
    let the = |name: &'static str| named(name).next().unwrap_or_else(|| panic!("no span {name}"));
    let (job, push) = (the("job"), the("push"));
    assert_eq!((job.process, push.process, push.kind.as_str()), ("worker", "worker", "producer"));
    assert_eq!((&push.trace, &push.parent), (&job.trace, &job.id));
    assert_eq!(push.attributes["messaging.message.id"], id);

    let deliver = named("deliver").find(|span| span.attributes["messaging.message.id"] == id).expect("its delivery");
    assert_eq!((deliver.process, deliver.kind.as_str()), ("server", "consumer"));
    assert_eq!((&deliver.trace, &deliver.parent, deliver.is_remote), (&job.trace, &push.id, true));
    assert_eq!(deliver.attributes["outcome"], "confirmed");
    assert!(deliver.from >= push.from && deliver.to >= deliver.from);

    // The client can continue the same trace.
    let parents = received.iter().map(|message| message["params"]["_meta"]["traceparent"].as_str().unwrap().to_owned());
    let parents: Vec<String> = parents.collect();
    assert_eq!(parents[0], format!("00-{}-{}-01", push.trace, push.id));

    // Three that were pushed together have one parent, in a trace of their own, and each a span of its own.
    let batch_push = named("push").nth(1).expect("the second push");
    assert_ne!(batch_push.trace, push.trace);
    assert_eq!(batch_push.attributes["messaging.batch.message_count"], "3");
    let of_batch: Vec<_> = named("deliver").filter(|span| span.parent == batch_push.id).collect();
    assert_eq!(of_batch.len(), 3);
    assert!(parents[1..].iter().all(|parent| parent.contains(&batch_push.id)));

    for push in [push, batch_push] {
        for name in ["take", "delivery", "confirmation"] {
            let linked = named(name).find(|span| span.is_linked_with(push));
            let linked = linked.unwrap_or_else(|| panic!("no {name} is linked with {push:?}"));
            assert_eq!((linked.process, linked.attributes["messaging.system"].as_str()), ("server", "redis"));
            let links: HashSet<_> = linked.links.iter().collect();
            assert_eq!(links.len(), linked.links.len(), "messages that were pushed together are one link");
        }
    }
    for confirmation in named("confirmation") {
        let delivery = named("delivery").find(|span| span.id == confirmation.parent).expect("its delivery");
        assert_eq!(confirmation.trace, delivery.trace);
    }
    for span in &spans {
        assert!(!span.is_failed, "{span:?}");
        let shown = format!("{span:?}");
        assert!(!shown.contains(PAYLOAD) && !shown.contains(client.session_id()), "{shown}");
    }
    assert!(received.iter().all(|message: &Value| message["params"]["text"] == PAYLOAD));
}
