//! Clients that misbehave, over real HTTP and a real Redis: nothing is lost or reordered, what is held for them is bounded,
//! no other session waits for them (G7: a neighbour is measured all the while), and they can come back.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mcp_courier::{
    Answer, Courier, Elicitation, ListSubscribers, Notification, Publisher, SessionId, SubscriberState, TaskKey,
};
use mcp_courier_testing::eventually::{SOON, eventually};
use mcp_courier_testing::forwarder::{Forwarder, Mode};
use mcp_courier_testing::in_own_process;
use mcp_courier_testing::mcp_server::McpServer;
use mcp_courier_testing::process::Process;
use mcp_courier_testing::raw_client::RawClient;
use mcp_courier_testing::received::Received;
use mcp_courier_testing::redis_server::RedisServer;
use mcp_courier_testing::waiting;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Longest time that a client may take to confirm. A session that had to wait for a troubled client would wait that
/// long. The clients of a test share its thread, which on a busy machine may be delayed for a second and more.
const LIMIT: Duration = Duration::from_secs(4);

/// A server with a neighbour that does well.
struct Scene {
    server: McpServer,
    neighbour: Neighbour,
    before: (Duration, u64, u64),
    _redis: RedisServer,
}

impl Scene {
    async fn set() -> Self {
        let redis = RedisServer::start();
        let config = waiting::config()
            .backoff_initial(Duration::from_millis(5))
            .backoff_max(Duration::from_millis(100))
            .hand_over_timeout(LIMIT)
            .batch_messages(50);
        let courier = Courier::start(&redis.url(), config.build().unwrap()).await.unwrap();
        let manager = courier.session_manager();
        let server = McpServer::start(courier, manager);
        let quiet = Neighbour::watch(&server).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let worst = quiet.end().await;
        // What it left is gone: the next neighbour is measured amid the trouble.
        let neighbour = Neighbour::watch(&server).await;
        let before = (worst, Process::this().threads(), Process::this().resident());
        Self { server, neighbour, before, _redis: redis }
    }

    /// The trouble is over: nobody else had a part in it, and what it took is bounded.
    /// Whoever waited for the troubled one waited for its whole limit.
    async fn judge(self, trouble: &str, threads_at_most: u64) {
        let (worst, threads_before, resident_before) = self.before;
        let process = Process::this();
        let (threads, grown) = (process.threads(), process.resident().saturating_sub(resident_before) / 1024);
        let amid = self.neighbour.end().await;
        println!(
            "{trouble}: the neighbour waited at most {amid:?}, and {worst:?} before; threads {threads_before} and \
            {threads}; {grown} KiB more"
        );
        assert!(amid < worst + LIMIT, "{trouble}: the neighbour waited {amid:?}, and {worst:?} before");
        assert!(threads <= threads_before + threads_at_most, "{trouble}: {threads} threads, {threads_before} before");
        assert!(grown < 64 * 1024, "{trouble}: {grown} KiB");
        self.server.courier.shutdown(Duration::from_secs(1)).await;
    }

    async fn state_of(&self, client: &RawClient) -> Option<SubscriberState> {
        let infos = self.server.courier.supervisor().send(ListSubscribers).await.unwrap();
        infos.into_iter().find(|info| info.session.as_str() == client.session_id()).map(|info| info.state)
    }

    async fn until(&self, client: &RawClient, wanted: SubscriberState) {
        eventually(&format!("{wanted:?}"), LIMIT + SOON, || async { self.state_of(client).await == Some(wanted) })
            .await;
    }

    async fn push(&self, client: &RawClient, numbers: std::ops::Range<usize>, size: usize) {
        push(&self.server.courier.publisher(), client, numbers, size).await;
    }

    fn address(&self) -> SocketAddr {
        self.server.url.trim_start_matches("http://").trim_end_matches("/mcp").parse().unwrap()
    }
}

/// A client that does well, and how long each of its notifications took.
struct Neighbour {
    stop: Arc<AtomicBool>,
    worst: JoinHandle<Duration>,
}

impl Neighbour {
    async fn watch(server: &McpServer) -> Self {
        let client = RawClient::connect(&server.url).await;
        let (publisher, stop) = (server.courier.publisher(), Arc::new(AtomicBool::new(false)));
        let mut stream = client.open_stream().await;
        let is_over = Arc::clone(&stop);
        let worst = actix::spawn(async move {
            let mut worst = Duration::ZERO;
            for n in 0.. {
                let begun = Instant::now();
                push(&publisher, &client, n..n + 1, 0).await;
                assert_eq!(number(&stream.next_notification().await.expect("its stream goes on")), n);
                // The first comes while its subscriber still starts.
                worst = if n == 0 { worst } else { worst.max(begun.elapsed()) };
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            drop(stream);
            assert_eq!(client.delete().await, StatusCode::NO_CONTENT);
            worst
        });
        Self { stop, worst }
    }

    async fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.worst.await.unwrap()
    }
}

async fn push(publisher: &Publisher, client: &RawClient, numbers: std::ops::Range<usize>, size: usize) {
    let id = SessionId::new(client.session_id()).unwrap();
    let numbered = |n| {
        let params = json!({"n": n, "padding": "x".repeat(size)});
        Notification::new("notifications/x").unwrap().with_params(params).unwrap()
    };
    // A few at a time: all clients, the neighbour too, answer pings on this thread.
    for some in numbers.collect::<Vec<_>>().chunks(50) {
        for result in publisher.push_many(some.iter().map(|n| (id.clone(), numbered(*n)))).await {
            result.unwrap();
        }
        tokio::task::yield_now().await;
    }
}

fn number(notification: &Value) -> usize {
    usize::try_from(notification["params"]["n"].as_u64().unwrap()).unwrap()
}

#[actix::test]
async fn g1_g2_g7_a_client_that_stops_reading_or_answering_and_comes_back() {
    in_own_process!();
    let scene = Scene::set().await;
    let (client, mut got) = (RawClient::connect(&scene.server.url).await, Received::default());
    scene.push(&client, 0..1000, 16 * 1024).await;
    let stalled = client.open_stream().await;
    stalled.read(false);
    scene.until(&client, SubscriberState::Delivering).await;
    scene.until(&client, SubscriberState::Parked).await;
    let mut mute = client.open_stream().await;
    mute.answer_pings(false);
    mute.ended().await;
    scene.until(&client, SubscriberState::Parked).await;
    let mut stream = client.open_stream().await;
    got.until(&mut stream, 999).await;
    got.assert_is(0..1000);
    scene.judge("stops reading, then answering", 1).await;
}

#[actix::test]
async fn g2_g6_clients_that_never_open_a_stream_cost_no_subscriber() {
    in_own_process!();
    let scene = Scene::set().await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let client = RawClient::connect(&scene.server.url).await;
        scene.push(&client, 0..20, 100).await;
        client.request("tools/list", json!({})).await;
        clients.push(client);
    }
    assert_eq!(scene.server.courier.supervisor().send(ListSubscribers).await.unwrap().len(), 1, "the neighbour's");
    let (mut stream, mut got) = (clients[49].open_stream().await, Received::default());
    got.until(&mut stream, 19).await;
    got.assert_is(0..20);
    scene.judge("never opens a stream", 1).await;
}

#[actix::test]
async fn g1_g2_a_client_that_reconnects_a_hundred_times_while_notifications_flow() {
    in_own_process!();
    let scene = Scene::set().await;
    let (client, mut got) = (RawClient::connect(&scene.server.url).await, Received::default());
    let (publisher, pushing) = (scene.server.courier.publisher(), client.clone());
    let pushed = actix::spawn(async move {
        for n in 0..200 {
            push(&publisher, &pushing, n * 10..(n + 1) * 10, 500).await;
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    });
    for n in 0..100 {
        let mut stream = client.open_stream().await;
        // Sometimes at once, sometimes in the midst of a batch, sometimes after an answer.
        for _ in 0..n % 7 {
            if let Some(notification) = stream.notification_within(Duration::from_millis(50)).await {
                got.take(&notification);
            }
        }
        got.rest_of(stream).await;
    }
    pushed.await.unwrap();
    let mut stream = client.open_stream().await;
    got.until(&mut stream, 1999).await;
    got.assert_is(0..2000);
    scene.judge("reconnects a hundred times", 1).await;
}

#[actix::test]
async fn g1_g2_g6_a_client_that_opens_a_hundred_streams_and_leaves_them() {
    in_own_process!();
    let scene = Scene::set().await;
    let (client, mut got) = (RawClient::connect(&scene.server.url).await, Received::default());
    let mut streams = Vec::new();
    for n in 0..100 {
        streams.push(client.open_stream().await);
        scene.push(&client, n..n + 1, 100).await;
    }
    assert_eq!(scene.server.courier.supervisor().send(ListSubscribers).await.unwrap().len(), 2);
    scene.until(&client, SubscriberState::Waiting).await;
    // In the order in which it opened them; the last ones are on the newest.
    for stream in streams {
        got.rest_of(stream).await;
    }
    got.assert_is(0..100);
    scene.until(&client, SubscriberState::Parked).await;
    scene.push(&client, 100..110, 100).await;
    let mut stream = client.open_stream().await;
    got.until(&mut stream, 109).await;
    got.assert_is(0..110);
    scene.judge("opens a hundred streams", 1).await;
}

#[actix::test]
async fn g1_g2_g7_a_client_that_vanishes_without_a_fin() {
    in_own_process!();
    let scene = Scene::set().await;
    let forwarder = Forwarder::to(scene.address().port());
    let near = RawClient::connect(&format!("http://127.0.0.1:{}/mcp", forwarder.port())).await;
    let mut got = Received::default();
    let mut stream = near.open_stream().await;
    scene.push(&near, 0..10, 100).await;
    got.until(&mut stream, 9).await;
    scene.until(&near, SubscriberState::Waiting).await;
    forwarder.set(Mode::Silent);
    scene.push(&near, 10..500, 1000).await;
    let begun = Instant::now();
    scene.until(&near, SubscriberState::Parked).await;
    println!("found out after {:?}", begun.elapsed());
    // It is back by another way, with the same session.
    let back = RawClient::attach(&scene.server.url, near.session_id());
    let mut stream = back.open_stream().await;
    got.until(&mut stream, 499).await;
    got.assert_is(0..500);
    // One of them is the forwarder's.
    scene.judge("vanishes without FIN", 2).await;
}

#[actix::test]
async fn g2_a_client_that_forges_its_last_event_id() {
    in_own_process!();
    let scene = Scene::set().await;
    let (client, mut got) = (RawClient::connect(&scene.server.url).await, Received::default());
    let victim = RawClient::connect(&scene.server.url).await;
    // rmcp itself sends something down the victim's stream, under an id of this process.
    let mut stream = victim.open_stream().await;
    victim.send(&json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"})).await;
    let of_victim = loop {
        let event = stream.next_event().await.unwrap();
        // The first event has no data, and no position of rmcp.
        if event.message.is_some() {
            break event.id.unwrap();
        }
    };
    let epoch = of_victim.split_once('-').unwrap().0;
    let forged = [
        of_victim.clone(),
        format!("{epoch}-18446744073709551615"),
        format!("{epoch}-18446744073709551616"),
        format!("{epoch}-0/18446744073709551615"),
        format!("{epoch}--1"),
        format!("{epoch}-"),
        "0".to_owned(),
        "-".repeat(7000),
        "9".repeat(7000),
        "0/".to_owned(),
        "\"'{}[]".to_owned(),
    ];
    for (n, id) in forged.iter().enumerate() {
        let mut stream = client.open_stream_after(Some(id)).await.unwrap();
        // Where the id is none of a request's, an early close comes first.
        let first = stream.next_event().await.unwrap();
        if let Some(closed) = first.id.filter(|_| first.retry.is_some_and(|retry| retry < 100)) {
            stream.ended().await;
            stream = client.open_stream_after(Some(&closed)).await.unwrap();
        }
        scene.push(&client, n..n + 1, 0).await;
        let shown = &id[..id.len().min(50)];
        let first = tokio::time::timeout(SOON, stream.next_notification()).await;
        let first =
            first.unwrap_or_else(|_| panic!("nothing after {shown}")).unwrap_or_else(|| panic!("ended: {shown}"));
        assert_eq!(number(&first), n, "after {shown}");
        got.take(&first);
        scene.until(&client, SubscriberState::Waiting).await;
    }
    got.assert_is(0..forged.len());
    scene.push(&victim, 0..5, 0).await;
    let mut of_victim = Received::default();
    of_victim.until(&mut stream, 4).await;
    of_victim.assert_is(0..5);
    scene.judge("forges its Last-Event-ID", 2).await;
}

#[actix::test]
async fn g2_g7_a_client_that_answers_pings_that_were_never_sent() {
    in_own_process!();
    let scene = Scene::set().await;
    let client = RawClient::connect(&scene.server.url).await;
    let victim = RawClient::connect(&scene.server.url).await;
    let victims = victim.open_stream().await;
    victims.answer_pings(false);
    scene.push(&victim, 0..10, 0).await;
    eventually("the victim is pinged", SOON, || async { victims.last_ping_id().is_some() }).await;
    let of_victim = json!(victims.last_ping_id().unwrap());
    let stream = client.open_stream().await;
    stream.answer_pings(false);
    scene.push(&client, 0..10, 0).await;
    // Of this process and counted or near another, of a process that is not, and of none.
    let (process, n) = of_victim.as_str().unwrap().rsplit_once(':').unwrap();
    let n: u128 = n.parse().unwrap();
    let nobody = process.replace(|c: char| c.is_ascii_digit(), "0");
    let answer = |id: &Value| json!({"jsonrpc": "2.0", "id": id, "result": {}});
    for i in 1..300 {
        let of_process = [i.to_string(), n.wrapping_add(i).to_string(), format!("-{i}")];
        let forged = of_process.map(|n| format!("{process}:{n}")).into_iter().chain([format!("{nobody}:{i}")]);
        let forged = forged.map(Value::from).chain([of_victim.clone(), json!(i), json!("mcp-courier:elicit:no")]);
        for id in forged {
            assert_eq!(client.send(&answer(&id)).await, StatusCode::ACCEPTED);
        }
    }
    // The answer confirms neither of them: both streams are cut, and everything is repeated.
    for (client, mut stream) in [(&client, stream), (&victim, victims)] {
        stream.ended().await;
        let (mut stream, mut got) = (client.open_stream().await, Received::default());
        got.until(&mut stream, 9).await;
        got.assert_is(0..10);
        scene.until(client, SubscriberState::Waiting).await;
        // Repeated, late: it confirms nothing of the next batch.
        let ping = json!(stream.last_ping_id().unwrap());
        stream.answer_pings(false);
        scene.push(client, 10..20, 0).await;
        got.until(&mut stream, 19).await;
        assert_eq!(client.send(&answer(&ping)).await, StatusCode::ACCEPTED);
        stream.ended().await;
        let mut stream = client.open_stream().await;
        let mut again = Received::default();
        again.until(&mut stream, 19).await;
        again.assert_is(10..20);
    }
    scene.judge("answers pings that were never sent", 2).await;
}

#[actix::test]
async fn g6_g7_a_client_that_answers_with_enormous_bodies_and_ids() {
    in_own_process!();
    let scene = Scene::set().await;
    let client = RawClient::connect_with(&scene.server.url, json!({"elicitation": {}})).await;
    let mut stream = client.open_stream().await;
    let huge = "x".repeat(1_500_000);
    let result = json!({"action": "accept", "content": {"a": huge}});
    for id in ["mcp-courier:", "mcp-courier:elicit:", ""] {
        for (id, result) in [(format!("{id}{huge}"), json!({})), (format!("{id}no"), result.clone())] {
            client.send(&json!({"jsonrpc": "2.0", "id": id, "result": result})).await;
        }
    }
    let too_large = json!({"jsonrpc": "2.0", "id": 1, "result": {"a": "x".repeat(6_000_000)}});
    assert_eq!(client.send(&too_large).await, StatusCode::PAYLOAD_TOO_LARGE);
    // A question that is really asked: its answer is bounded as a message is, and its worker learns of the bound.
    let session = SessionId::new(client.session_id()).unwrap();
    let elicitor = scene.server.courier.publisher().elicitor();
    let form = Elicitation::form("?", json!({"type": "object", "properties": {"a": {"type": "string"}}})).unwrap();
    let task = TaskKey::anonymous("t").unwrap();
    let asked = actix::spawn(async move { elicitor.elicit(&session, &task, form, SOON).await.unwrap() });
    let request = stream.next_request().await.unwrap();
    client.answer(&request, result).await;
    let Answer::Cancel { reason: Some(reason) } = asked.await.unwrap() else { panic!("it was taken") };
    assert!(reason.contains("bytes, and at most 1048576 are allowed"), "{reason}");
    scene.push(&client, 0..5, 0).await;
    let mut got = Received::default();
    got.until(&mut stream, 4).await;
    got.assert_is(0..5);
    scene.judge("answers enormously", 1).await;
}
